"""All replicas of a plan in virtual time: an engine each, and a router for each LLM.

The instants of a fleet must not run back. Where an LLM has lost all its replicas its calls wait;
calls in flight on a replica that is lost begin anew on another.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.replicas import ReplicaSet
from scepsy.policy.retain import Lru, MakeRetention
from scepsy.policy.route import CallView, LeastLoaded, MakeRouter, Router
from scepsy.policy.turns import TurnGroup, step_cost
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.agenda import Agenda
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.turns import SharedGpus, TurnTaker


@dataclass(frozen=True, slots=True)
class ServedGroup:
    """Equal replicas of one LLM."""

    llm: LlmName
    spec: EngineSpec
    """What each of them can do."""
    replicas: tuple[ReplicaName, ...]


def replica_names(llm: str, replicas: int) -> tuple[ReplicaName, ...]:
    """Names for replicas that no plan has named."""
    return tuple(ReplicaName(f"{llm}-{number}") for number in range(replicas))


class Serving(Protocol):
    """What calls can be given to, in virtual time."""

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        """Let a call arrive."""
        ...

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when idle."""
        ...

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since."""
        ...

    def replica_of(self, call_id: str) -> ReplicaName:
        """Where a call runs or, until the next call of ``advance``, ran."""
        ...


@dataclass(slots=True, eq=False)
class _Replica:
    name: ReplicaName
    llm: LlmName
    engine: Engine | TurnTaker
    beside: tuple[ReplicaName, ...] = ()
    """Those that it takes turns with."""
    inflight: dict[str, tuple[CallView, EngineCall]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Group:
    spec: EngineSpec
    router: Router
    among: ReplicaSet
    held: deque[tuple[CallView, EngineCall]] = field(default_factory=deque)
    """Calls that wait for a replica to come."""


class Fleet:
    """Replicas with their routers, used like one engine."""

    def __init__(
        self,
        groups: Iterable[ServedGroup],
        *,
        turns: Iterable[tuple[ReplicaName, ...]] = (),
        make_router: MakeRouter = LeastLoaded,
        make_retention: MakeRetention = Lru,
    ) -> None:
        """Idle replicas, each with its retention policy, and a router for each LLM.

        Args:
            groups: the replicas.
            turns: those of them that take turns on the same GPUs.
            make_router: makes what feeds the replicas of each LLM.
            make_retention: makes what decides which KV an engine keeps.
        """
        self._make_retention = make_retention
        self._turns: dict[ReplicaName, tuple[SharedGpus, tuple[ReplicaName, ...]]] = {}
        together = tuple(turns)
        for names in together:
            gpus = SharedGpus()
            for name in names:
                self._turns[name] = gpus, tuple(other for other in names if other != name)
        self._groups: dict[LlmName, _Group] = {}
        self._replicas: dict[ReplicaName, _Replica] = {}
        self._where: dict[str, _Replica] = {}
        self._ended: list[str] = []
        self._agenda: Agenda[_Replica] = Agenda()
        for group in groups:
            if group.llm in self._groups:
                raise InputError(f"{group.llm} has two groups of replicas")
            self._groups[group.llm] = _Group(group.spec, make_router(), ReplicaSet())
            for name in group.replicas:
                self._add(group.llm, name)
        self._turn_group = self._route_turns(together)

    @property
    def waiting_calls(self) -> int:
        """Calls that wait for a replica, or in an engine's queue, by the last instant."""
        held = sum(len(group.held) for group in self._groups.values())
        return held + sum(each.engine.waiting_calls for each in self._replicas.values())

    @property
    def engines(self) -> Sequence[tuple[ReplicaName, Engine]]:
        """The replicas that are up, to look at."""
        return [
            (each.name, engine.engine if isinstance(engine := each.engine, TurnTaker) else engine)
            for each in self._replicas.values()
        ]

    def replica_of(self, call_id: str) -> ReplicaName:
        """Where a call runs or, until the next call of ``advance``, ran."""
        return self._where[call_id].name

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        """Let a call arrive: the router sees the view, the engine it picks gets the call.

        Raises:
            UnknownNameError: no group serves the LLM.
        """
        group = self._groups.get(llm)
        if group is None:
            raise UnknownNameError("LLM of the plan", llm, self._groups)
        if not group.among.names:
            group.held.append((view, call))
            return
        name = group.router.choose(view, group.among)
        replica = self._replicas[name]
        replica.engine.submit(now_s, call)
        group.router.started(view, name)
        group.among.started(name, call.prompt_tokens)
        replica.inflight[call.id] = (view, call)
        self._where[call.id] = replica
        self._expect(replica)
        if replica.beside:
            self._expect_beside(replica)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when all are idle."""
        return self._agenda.next_s

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since, by replica, then by time."""
        for call_id in self._ended:
            self._where.pop(call_id, None)
        self._ended.clear()
        found: list[EngineEvent] = []
        while self.next_event_s() <= now_s:
            replica = self._agenda.take()
            for event in replica.engine.advance(now_s):
                found.append(event)
                if replica.beside:
                    self._see_turns(replica, event)
                if isinstance(event, Finished):
                    _, call = replica.inflight.pop(event.call_id)
                    self._groups[replica.llm].among.ended(
                        replica.name, call.prompt_tokens, event.output_tokens
                    )
                    self._ended.append(event.call_id)
            self._expect(replica)
            if replica.beside:
                self._expect_beside(replica)
        return found

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """No call of an execution follows. Routers keep nothing of it."""

    def lose(self, now_s: float, name: ReplicaName) -> tuple[str, ...]:
        """A replica dies with what it had cached; give its calls, which begin anew elsewhere.

        Nothing may be left to collect up to ``now_s``.
        """
        replica = self._replicas.pop(name)
        self._agenda.leave(name)
        if isinstance(replica.engine, TurnTaker):
            replica.engine.leave(now_s)
            self._expect_beside(replica)
        group = self._groups[replica.llm]
        group.among.remove(name)
        group.router.lost(name)
        for call_id, (view, call) in replica.inflight.items():
            del self._where[call_id]
            self.submit(now_s, replica.llm, view, call)
        return tuple(replica.inflight)

    def join(self, now_s: float, llm: LlmName, name: ReplicaName) -> None:
        """A replica comes up, empty, and takes calls that waited for one."""
        self._add(llm, name)
        held = self._groups[llm].held
        while held:
            self.submit(now_s, llm, *held.popleft())

    def _add(self, llm: LlmName, name: ReplicaName) -> None:
        if name in self._replicas:
            raise InputError(f"two replicas are named {name}")
        self._groups[llm].among.add(name)
        engine = Engine(self._groups[llm].spec, self._make_retention())
        if name not in self._turns:
            self._replicas[name] = _Replica(name, llm, engine)
            return
        gpus, others = self._turns[name]
        self._replicas[name] = _Replica(name, llm, gpus.add(engine), others)

    def _route_turns(self, together: Sequence[tuple[ReplicaName, ...]]) -> TurnGroup:
        """LLMs that take turns are routed by what goes on beside each replica."""
        taking = {self._replicas[name].llm for name in self._turns}
        group = TurnGroup.of(
            together,
            costs={llm: step_cost(self._groups[llm].spec) for llm in taking},
            replicas={llm: each.among for llm, each in self._groups.items()},
        )
        routers = group.routers({llm: each.router for llm, each in self._groups.items()})
        for llm, router in routers.items():
            self._groups[llm].router = router
        return group

    def _see_turns(self, replica: _Replica, event: EngineEvent) -> None:
        """Note when a prompt is computed."""
        has_answer = isinstance(event, FirstToken)
        if has_answer or (isinstance(event, Finished) and not event.output_tokens):
            _, call = replica.inflight[event.call_id]
            self._turn_group.answers(replica.name, call.prompt_tokens)

    def _expect_beside(self, replica: _Replica) -> None:
        """What one does may change when those speak that take turns with it."""
        for name in replica.beside:
            if name in self._replicas:
                self._expect(self._replicas[name])

    def _expect(self, replica: _Replica) -> None:
        self._agenda.announce(replica.name, replica, replica.engine.next_event_s())
