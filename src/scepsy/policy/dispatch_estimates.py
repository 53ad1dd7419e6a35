"""How long answers are, and how much of their prompts executions share: means of what was seen."""

from collections import OrderedDict

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_call import Means, Waiting
from scepsy.policy.route import CallView

_OUTPUT_WEIGHT, _SHARED_WEIGHT = 0.05, 0.1
"""How far each new value moves a mean."""
_FIRST_WEIGHT = 0.02
_MANY = 5.0
"""Calls of an execution from which on it is one of many."""
_MOST_KEYS = 4096
_INF = float("inf")


class Estimates:
    """By workflow and role."""

    def __init__(self) -> None:
        self._means: dict[tuple[WorkflowName, Role], Means] = {}
        self._first: dict[WorkflowName, float] = {}  # calls that are the first of an execution
        self._begun: OrderedDict[ExecutionId, None] = OrderedDict()
        self.all_shared_tokens = 0.0
        """Of all workflows and roles: what a replica that serves all of them holds for all."""

    def of(self, call: CallView) -> Means:
        """What is known of calls like that."""
        key = (call.workflow, call.role)
        found = self._means.get(key)
        if found is None:
            if len(self._means) >= _MOST_KEYS:
                self._means.clear()
                self.all_shared_tokens = 0.0
            found = self._means[key] = Means(call.workflow, call.role)
        return found

    def goes_on(self, call: CallView, *, is_first: bool) -> bool:
        """A call has come: whether executions of its workflow have many."""
        before = self._first.get(call.workflow)
        if before is None:
            before = 1.0
            if len(self._first) >= _MOST_KEYS:
                self._first.clear()
        now = self._first[call.workflow] = before + _FIRST_WEIGHT * (is_first - before)
        return now * _MANY <= 1.0

    def at_door(self, call: Waiting, capacity: Capacity) -> float:
        """What a call takes up, and how long its prompt takes, where its context is not (s)."""
        prompt_tokens, means = call.view.prompt_tokens, call.means
        shared_tokens = means.shared_of(prompt_tokens)
        call.need_tokens = max(1, prompt_tokens + int(means.output_tokens) - shared_tokens)
        call.cold_s = capacity.prefill_s(prompt_tokens, shared_tokens)
        call.begin_by_s = deadline_s = call.live.deadline_s
        if deadline_s < _INF:
            answer_s = means.output_tokens * capacity.decode_s
            call.begin_by_s = deadline_s - call.cold_s - answer_s
        return call.cold_s

    def at_context(self, call: Waiting, context: Context, blocks: int) -> Replica:
        """The same where its context is, that has some blocks of it: on the replica given."""
        view, replica = call.view, context.replica
        assert replica is not None
        self.at_door(call, replica.capacity)
        call.cached_tokens = min(blocks * replica.capacity.block_tokens, view.prompt_tokens - 1)
        if context.calls:  # another call that extends it runs: what both have is held
            call.need_tokens = max(1, call.need_tokens - call.cached_tokens)
        return replica

    def ended(self, call: Waiting, result: CallResult) -> None:
        """What a call says on answers, on what is shared, and on what its replica keeps."""
        means, cached_tokens = call.means, result.cached_tokens
        means.output_tokens += _OUTPUT_WEIGHT * (result.output_tokens - means.output_tokens)
        if cached_tokens is None:
            return
        if call.is_warm:
            assert call.replica is not None
            call.replica.found(as_believed=2 * cached_tokens >= call.cached_tokens)
        elif not call.live.contexts and self._is_new(call.view.execution):
            # All that it found is what others left.
            means = self.of(call.view)
            change = _SHARED_WEIGHT * (cached_tokens - means.shared_tokens)
            means.shared_tokens += change
            self.all_shared_tokens += change

    def _is_new(self, execution: ExecutionId) -> bool:
        """Whether it was not asked of it before: one may go on that was said to be over."""
        if execution in self._begun:
            return False
        self._begun[execution] = None
        if len(self._begun) > _MOST_KEYS:
            self._begun.popitem(last=False)
        return True
