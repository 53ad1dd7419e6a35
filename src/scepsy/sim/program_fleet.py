"""A fleet in which calls wait at a dispatcher for each LLM, and are bound to a replica late."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatcher, MakeDispatcher
from scepsy.policy.replicas import ReplicaSet
from scepsy.policy.retain import Lru, MakeRetention, Retention
from scepsy.policy.route import CallView
from scepsy.policy.turns import TurnGroup
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.fleet import Fleet, ServedGroup

_LONG_CONTEXT_TOKENS = 32_768
_FEW_DECODES = 8


def capacity_of(spec: EngineSpec) -> Capacity:
    """What a dispatcher may know of a replica: two prefill steps and a decode step tell speeds."""
    chunk = spec.chunk_tokens

    def chunk_s(context_tokens: int) -> float:
        return spec.times.step_s(
            prefill_tokens=chunk,
            prefill_context_tokens=context_tokens,
            decodes=0,
            decode_context_tokens=0,
        )

    first_s = chunk_s(0)
    kv_tokens = spec.kv_blocks * spec.block_tokens
    return Capacity(
        kv_tokens=kv_tokens,
        seqs=min(spec.max_seqs, chunk),
        prompt_token_s=first_s / chunk,
        context_token_s=(chunk_s(_LONG_CONTEXT_TOKENS) - first_s) / chunk / _LONG_CONTEXT_TOKENS,
        decode_s=spec.times.decode_run_s(
            decodes=_FEW_DECODES, decode_context_tokens=kv_tokens // 2, steps=1
        ),
        host_tokens=spec.host_blocks * spec.block_tokens,
        host_token_s=spec.host_block_s / spec.block_tokens,
        block_tokens=spec.block_tokens,
    )


class ProgramFleet(Fleet):
    """Replicas fed by dispatchers. See ``Fleet``."""

    def __init__(
        self,
        groups: Iterable[ServedGroup],
        *,
        make_dispatcher: MakeDispatcher,
        turns: Iterable[tuple[ReplicaName, ...]] = (),
        make_retention: MakeRetention = Lru,
    ) -> None:
        """Idle replicas, and a dispatcher for each LLM; one that takes turns is told nothing of it.

        Args:
            groups: the replicas.
            make_dispatcher: makes what calls of each LLM wait with.
            turns: those of the replicas that take turns on the same GPUs.
            make_retention: makes what decides which KV an engine keeps.
        """
        groups = tuple(groups)
        self._told = _Told()
        self._retentions: list[Retention] = []
        self._make_kept = make_retention
        self._llm_of = {name: group.llm for group in groups for name in group.replicas}
        self._capacities = {group.llm: capacity_of(group.spec) for group in groups}
        self.dispatchers: dict[LlmName, Dispatcher] = {
            group.llm: make_dispatcher() for group in groups
        }
        self._waiting: dict[str, tuple[CallView, EngineCall]] = {}
        """Calls that a dispatcher has."""
        self._due_s = float("inf")
        """When a dispatcher may send more though nothing happens."""
        self._sent: dict[str, tuple[Dispatcher, CallView, EngineCall]] = {}
        self._programs: dict[ExecutionId, set[str]] = {}
        super().__init__(
            groups,
            turns=turns,
            make_router=lambda: self._told,
            make_retention=self._retention,
        )
        for group in groups:
            for name in group.replicas:
                self.dispatchers[group.llm].joined(0.0, name, self._capacities[group.llm])

    @property
    def waiting_calls(self) -> int:
        """Calls that wait at a dispatcher, or in an engine's queue, by the last instant."""
        return super().waiting_calls + len(self._waiting)

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        """Let a call arrive: the dispatcher sees the view, and sends what goes now.

        Raises:
            UnknownNameError: no group serves the LLM.
        """
        dispatcher = self.dispatchers.get(llm)
        if dispatcher is None:
            raise UnknownNameError("LLM of the plan", llm, self.dispatchers)
        self._sent.pop(call.id, None)  # it was on a replica that is lost
        self._waiting[view.id] = (view, call)
        if call.program:
            self._programs.setdefault(view.execution, set()).add(call.program)
        dispatcher.arrived(now_s, view)
        self._send(now_s, llm)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when all are idle."""
        return min(super().next_event_s(), self._due_s)

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since, by replica, then by time."""
        self._due_s = float("inf")  # what is due at a dispatcher ends no engine's step
        events = super().advance(now_s)
        for event in events:
            if isinstance(event, Finished):
                dispatcher, view, call = self._sent.pop(event.call_id)
                result = CallResult(
                    output_tokens=event.output_tokens,
                    cached_tokens=event.cached_tokens,
                    tool=call.tool,
                )
                dispatcher.ended(now_s, view, result)
            elif isinstance(event, FirstToken):
                dispatcher, view, _ = self._sent[event.call_id]
                dispatcher.first_token(now_s, view)
        self._send_all(now_s)
        return events

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """No call of an execution follows."""
        for retention in self._retentions:
            for program in self._programs.get(execution, ()):
                retention.over(now_s, program)
        self._programs.pop(execution, None)
        for dispatcher in self.dispatchers.values():
            dispatcher.over(now_s, execution)
        self._send_all(now_s)

    def lose(self, now_s: float, name: ReplicaName) -> tuple[str, ...]:
        """A replica dies with what it had cached; give its calls, which arrive again.

        Nothing may be left to collect up to ``now_s``.
        """
        llm = self._llm_of.pop(name)
        self.dispatchers[llm].lost(now_s, name)
        lost = super().lose(now_s, name)
        self._send(now_s, llm)
        return lost

    def join(self, now_s: float, llm: LlmName, name: ReplicaName) -> None:
        """A replica comes up, empty, and takes calls that waited for one."""
        super().join(now_s, llm, name)
        self._llm_of[name] = llm
        self.dispatchers[llm].joined(now_s, name, self._capacities[llm])
        self._send(now_s, llm)

    def _send_all(self, now_s: float) -> None:
        for llm in self.dispatchers:
            self._send(now_s, llm)

    def _send(self, now_s: float, llm: LlmName) -> None:
        """Send what goes now, and note when more may."""
        dispatcher = self.dispatchers[llm]
        for view, name, moved_blocks, move_s in dispatcher.take(now_s):
            _, call = self._waiting.pop(view.id)
            if moved_blocks:
                call = replace(call, fetched_blocks=moved_blocks, fetch_s=move_s)
            self._sent[call.id] = (dispatcher, view, call)
            self._told.replica = name
            super().submit(now_s, llm, view, call)
        self._due_s = min(each.next_s for each in self.dispatchers.values())

    def _route_turns(self, _together: Sequence[tuple[ReplicaName, ...]]) -> TurnGroup:
        """Dispatchers say where, also of LLMs that take turns."""
        return TurnGroup.of((), {}, {})

    def _retention(self) -> Retention:
        made = self._make_kept()
        self._retentions.append(made)
        return made


class _Told:
    """A router that sends each call where its dispatcher said."""

    replica: ReplicaName

    def choose(
        self,
        _call: CallView,
        _replicas: ReplicaSet,
        _without: Collection[ReplicaName] = (),
    ) -> ReplicaName:
        return self.replica

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """The dispatcher knows."""

    def lost(self, replica: ReplicaName) -> None:
        """The dispatcher is told."""
