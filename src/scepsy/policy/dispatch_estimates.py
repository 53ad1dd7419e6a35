"""How long answers are, and how much of their prompts executions share: means of what was seen."""

from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_call import Waiting
from scepsy.policy.route import CallView

_OUTPUT_TOKENS = 300.0
"""Before any answer was seen."""
_OUTPUT_WEIGHT, _SHARED_WEIGHT = 0.05, 0.1
"""How far each new value moves a mean."""
_MOST_SHARED_FRACTION = 0.9
_MOST_KEYS = 4096


class Estimates:
    """By workflow and role."""

    def __init__(self) -> None:
        self._output: dict[tuple[WorkflowName, Role], float] = {}
        self._shared: dict[tuple[WorkflowName, Role], float] = {}
        self.all_shared_tokens = 0.0
        """Of all workflows and roles: what a replica that serves all of them holds for all."""

    def output_tokens(self, call: CallView) -> int:
        """Of its answer."""
        return int(self._output.get((call.workflow, call.role), _OUTPUT_TOKENS))

    def shared_tokens(self, call: CallView) -> int:
        """Of its prompt: what other executions begin with too, and that counts once for all."""
        shared = self._shared.get((call.workflow, call.role), 0.0)
        return int(min(shared, _MOST_SHARED_FRACTION * call.prompt_tokens))

    def at_door(self, call: Waiting, capacity: Capacity) -> float:
        """What a call takes up, and how long its prompt takes, where its context is not (s)."""
        view = call.view
        shared_tokens = self.shared_tokens(view)
        call.need_tokens = max(1, view.prompt_tokens + self.output_tokens(view) - shared_tokens)
        call.cold_s = capacity.prefill_s(view.prompt_tokens, shared_tokens)
        return call.cold_s

    def at_context(self, call: Waiting, context: Context) -> Replica:
        """The same, and what it finds, where its context is: on the replica that is given."""
        view, replica = call.view, context.replica
        assert replica is not None
        self.at_door(call, replica.capacity)
        blocks = context.shared_blocks(view.prefix_blocks)
        call.cached_tokens = min(blocks * replica.capacity.block_tokens, view.prompt_tokens - 1)
        if context.calls:  # another call that extends it runs: what both have is held
            call.need_tokens = max(1, call.need_tokens - call.cached_tokens)
        return replica

    def ended(self, call: Waiting, result: CallResult) -> None:
        """What a call says on answers, on what is shared, and on what its replica keeps."""
        self._answered(call.view, result.output_tokens)
        cached_tokens = result.cached_tokens
        if cached_tokens is None:
            return
        if call.is_warm:
            assert call.replica is not None
            call.replica.found(as_believed=2 * cached_tokens >= call.cached_tokens)
        elif not call.live.contexts:  # all that it found is what others left
            self._began(call.view, cached_tokens)

    def _answered(self, call: CallView, output_tokens: int) -> None:
        key = (call.workflow, call.role)
        if key not in self._output and len(self._output) >= _MOST_KEYS:
            self._output.clear()
        before = self._output.get(key, _OUTPUT_TOKENS)
        self._output[key] = before + _OUTPUT_WEIGHT * (output_tokens - before)

    def _began(self, call: CallView, cached_tokens: int) -> None:
        key = (call.workflow, call.role)
        if key not in self._shared and len(self._shared) >= _MOST_KEYS:
            self._shared.clear()
            self.all_shared_tokens = 0.0
        before = self._shared.get(key, 0.0)
        change = _SHARED_WEIGHT * (cached_tokens - before)
        self._shared[key] = before + change
        self.all_shared_tokens += change
