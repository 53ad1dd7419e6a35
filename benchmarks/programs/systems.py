"""The systems that are compared: for each a dispatcher, and what its engines keep cached.

All run the same simulated engine with prefix caching. A new system is one line in ``SYSTEMS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from scepsy.errors import UnknownNameError
from scepsy.model.workflow import LlmName
from scepsy.policy.dispatch import AtOnce, Dispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.retain import Lru, Retention
from scepsy.policy.retain_saga import WaLruTtl
from scepsy.policy.route import LeastLoaded, PrefixAware, RoundRobin
from scepsy.policy.yardsticks.affinity import SessionAffinity
from scepsy.policy.yardsticks.continuum import Continuum, KeptLru
from scepsy.policy.yardsticks.saga import Saga
from scepsy.policy.yardsticks.scoring import KvRouter, LlmD
from scepsy.policy.yardsticks.thunder_agent import ThunderAgent
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.fleet import ServedGroup, replica_names
from scepsy.sim.program_fleet import ProgramFleet


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What serves, but for the replicas."""

    dispatcher: Callable[[], Dispatcher]
    retention: Callable[[EngineSpec, Dispatcher], Retention] = lambda _spec, _dispatcher: Lru()
    """Of one engine, given what feeds it."""
    order: OrderPolicy = first_come

    def fleet(self, llm: LlmName, spec: EngineSpec, replicas: int) -> ProgramFleet:
        """Idle replicas."""
        made = self.dispatcher()
        return ProgramFleet(
            [ServedGroup(llm, spec, replica_names(llm, replicas))],
            make_dispatcher=lambda: made,
            make_retention=lambda: self.retention(spec, made),
        )


@runtime_checkable
class Keeper(Protocol):
    """A dispatcher that engines ask."""

    def is_kept(self, program: str) -> bool:
        """Whether a program's blocks are to stay while there are others to forget."""
        ...


@runtime_checkable
class TierKeeper(Keeper, Protocol):
    """One that is also asked of what waits in host memory."""

    def is_live(self, program: str) -> bool:
        """The same, of blocks in host memory."""
        ...


def _kept(_spec: EngineSpec, dispatcher: Dispatcher) -> Retention:
    assert isinstance(dispatcher, Keeper)
    below = KeptLru(dispatcher.is_live) if isinstance(dispatcher, TierKeeper) else None
    return KeptLru(dispatcher.is_kept, below)


def _wa_lru(spec: EngineSpec, _dispatcher: Dispatcher) -> Retention:
    return WaLruTtl(spec.kv_blocks)


SYSTEMS: Mapping[str, System] = {
    "fcfs": System(dispatcher=lambda: AtOnce(RoundRobin())),
    "least-loaded": System(dispatcher=lambda: AtOnce(LeastLoaded())),
    "vllm-affinity": System(dispatcher=SessionAffinity),
    "dynamo": System(dispatcher=KvRouter),
    "llm-d": System(dispatcher=LlmD),
    "thunder-agent": System(dispatcher=ThunderAgent),
    "continuum": System(dispatcher=Continuum, retention=_kept),
    "saga": System(dispatcher=Saga, retention=_wa_lru),
    "ours": System(dispatcher=ByProgram, retention=_kept),
    "ours-lru": System(dispatcher=ByProgram),
    "prefix-aware": System(dispatcher=lambda: AtOnce(PrefixAware())),
}


def find_system(name: str) -> System:
    """The system of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SYSTEMS:
        raise UnknownNameError("system", name, SYSTEMS)
    return SYSTEMS[name]
