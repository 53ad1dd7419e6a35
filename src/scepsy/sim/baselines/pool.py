"""Pools of instances that LLMs share by turns, used like a fleet."""

from collections.abc import Mapping
from dataclasses import replace
from heapq import heappop, heappush

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.route import CallView
from scepsy.sim.agenda import Agenda
from scepsy.sim.baselines.pooled_instance import PooledInstance, PooledSpec
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken, Preempted
from scepsy.sim.fleet import Serving

_INF = float("inf")


class _Member:
    def __init__(self, name: ReplicaName, spec: PooledSpec) -> None:
        self.name = name
        self.instance = PooledInstance(spec)
        self.costs_s: dict[LlmName, float] = {}
        """Of a call of an LLM, since something last happened."""

    def cost_s(self, llm: LlmName) -> float:
        known = self.costs_s.get(llm)
        if known is None:
            known = self.costs_s[llm] = self.instance.cost_s(llm)
        return known


class Pool:
    """A call goes where it costs least time, its own and that of others."""

    def __init__(self, specs: Mapping[ReplicaName, PooledSpec]) -> None:
        """Idle instances."""
        self._members = [_Member(name, spec) for name, spec in specs.items()]
        self._of_llm: dict[LlmName, list[_Member]] = {}
        for member in self._members:
            for model in member.instance.spec.llms:
                self._of_llm.setdefault(model.llm, []).append(member)
        self._where: dict[str, _Member] = {}
        self._ended: list[str] = []
        self._agenda: Agenda[_Member] = Agenda()

    @property
    def switches(self) -> int:
        """Turns that began with another LLM than the last, over all instances."""
        return sum(member.instance.switches for member in self._members)

    @property
    def switching_s(self) -> float:
        """Seconds of instances in which nothing was computed for them."""
        return sum(member.instance.switching_s for member in self._members)

    def submit(self, now_s: float, llm: LlmName, _view: CallView, call: EngineCall) -> None:
        """Let a call arrive.

        Raises:
            UnknownNameError: no instance serves the LLM.
        """
        members = self._of_llm.get(llm)
        if members is None:
            raise UnknownNameError("LLM of the pool", llm, self._of_llm)
        member = min(members, key=lambda one: (one.cost_s(llm), one.instance.inflight))
        member.instance.serve(now_s, llm, call)
        self._where[call.id] = member
        self._expect(member)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when all are idle."""
        return self._agenda.next_s

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since."""
        for call_id in self._ended:
            self._where.pop(call_id, None)
        self._ended.clear()
        found: list[EngineEvent] = []
        while self.next_event_s() <= now_s:
            member = self._agenda.take()
            events = member.instance.advance(now_s)
            self._ended += [event.call_id for event in events if isinstance(event, Finished)]
            found += events
            self._expect(member)
        return found

    def replica_of(self, call_id: str) -> ReplicaName:
        """Where a call runs or, until the next call of ``advance``, ran."""
        return self._where[call_id].name

    def _expect(self, member: _Member) -> None:
        """Note when the instance's next event is."""
        member.costs_s.clear()
        self._agenda.announce(member.name, member, member.instance.next_s)


class PrefillApart:
    """Prefill on some instances, decoding on others; KV goes from one to the other."""

    def __init__(self, prefill: Serving, decode: Serving, token_s: Mapping[LlmName, float]) -> None:
        """Idle pools.

        Args:
            prefill: gives the first token.
            decode: gives the rest; its prefills should take no time.
            token_s: seconds to move a prompt token's KV, of each LLM.
        """
        self._prefill = prefill
        self._decode = decode
        self._token_s = token_s
        self._calls: dict[str, tuple[LlmName, CallView, EngineCall]] = {}
        self._first: dict[str, Finished] = {}
        """How the prefill of calls ended that decode."""
        self._moving: list[tuple[float, str]] = []  # a heap
        self._decoding: set[str] = set()
        self._names: dict[str, ReplicaName] = {}
        """Where calls ended, until the next call of ``advance``."""

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        """Let a call arrive.

        Raises:
            UnknownNameError: no instance serves the LLM.
        """
        first = replace(call, output_tokens=min(1, call.output_tokens))
        self._prefill.submit(now_s, llm, view, first)
        self._calls[call.id] = (llm, view, call)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when all are idle."""
        moved_s = self._moving[0][0] if self._moving else _INF
        return min(self._prefill.next_event_s(), self._decode.next_event_s(), moved_s)

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since."""
        self._names.clear()
        found: list[EngineEvent] = []
        while (at_s := self.next_event_s()) <= now_s:
            for event in self._prefill.advance(at_s):
                found += self._prefilled(event)
            for event in self._decode.advance(at_s):
                found += self._decoded(event)
            while self._moving and self._moving[0][0] <= at_s:
                call_id = heappop(self._moving)[1]
                self._decode.submit(at_s, *self._calls[call_id])
                self._decoding.add(call_id)
        return found

    def replica_of(self, call_id: str) -> ReplicaName:
        """Where a call runs or, until the next call of ``advance``, ran."""
        if call_id in self._names:
            return self._names[call_id]
        serving = self._decode if call_id in self._decoding else self._prefill
        return serving.replica_of(call_id)

    def _prefilled(self, event: EngineEvent) -> list[EngineEvent]:
        llm, _, call = self._calls[event.call_id]
        if not isinstance(event, Finished):
            return [event]
        if call.output_tokens <= 1:
            return [self._over(event, self._prefill)]
        self._first[call.id] = event
        moved_s = event.at_s + call.prompt_tokens * self._token_s[llm]
        heappush(self._moving, (moved_s, call.id))
        return []

    def _decoded(self, event: EngineEvent) -> list[EngineEvent]:
        if isinstance(event, FirstToken):  # it had that
            return []
        if isinstance(event, Preempted):
            return [event]
        first = self._first.pop(event.call_id)
        self._decoding.remove(event.call_id)
        event = replace(event, cached_tokens=first.cached_tokens, scheduled_s=first.scheduled_s)
        return [self._over(event, self._decode)]

    def _over(self, event: Finished, serving: Serving) -> Finished:
        del self._calls[event.call_id]
        self._names[event.call_id] = serving.replica_of(event.call_id)
        return event
