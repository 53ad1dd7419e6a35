"""A plan in virtual time, and what if: fewer nodes, other rates, nodes that are lost meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from scepsy.errors import InfeasibleError, InputError, UnknownNameError
from scepsy.model.cluster import GpuId, NodeName
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import PlacedReplica, Plan, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.policy.dispatch import MakeDispatcher
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.route import LeastLoaded, MakeRouter
from scepsy.sim.arrivals import (
    Arrival,
    ArrivalSource,
    ClosedLoop,
    OpenLoop,
    Stream,
    as_recorded,
    merged,
)
from scepsy.sim.fleet import Fleet, ServedGroup
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.run import Fault, FaultySimulation, ServedExecution
from scepsy.sim.script import Script
from scepsy.sim.specs import SpecOf, offloading, specs_of


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """A node that dies, and when its replicas serve again."""

    node: NodeName
    at_s: float
    back_s: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan is simulated under."""

    rates: tuple[WorkflowRate, ...] = ()
    burstiness: float = 1.0
    """Of arrivals: see ``Stream``."""
    users: int = 0
    """In place of rates: so many users of each workflow, each waiting for its last execution."""
    think_s: float = 0.0
    speed: float = 0.0
    """In place of rates: executions arrive once as recorded, faster by this; 0: not so."""
    without: frozenset[NodeName] = frozenset()
    """Nodes whose replicas are not there."""
    losses: tuple[NodeLoss, ...] = ()
    host_bytes: Mapping[LlmName, float] = field(default_factory=dict)
    """Host memory that each replica of an LLM offloads KV to; none where not given."""
    make_router: MakeRouter = LeastLoaded
    make_dispatcher: MakeDispatcher | None = None
    """In place of a router: makes what calls of each LLM wait with."""
    order: OrderPolicy = first_come
    executions: int = 200
    """Counted over all workflows, where arrivals do not end by themselves."""
    warm_up: int = 50
    """Executions that come before those."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of a plan under a setting."""

    counted: tuple[ServedExecution, ...]
    """By arrival, all ended."""
    others: tuple[ServedExecution, ...]
    """That ended meanwhile: of the warm-up, and of the load that goes on to the end."""


def simulate_plan(
    plan: Plan,
    scripts: Mapping[WorkflowName, Sequence[Script]],
    spec_of: SpecOf,
    setting: Setting,
    *,
    on_end: Callable[[], object] = lambda: None,
) -> Simulated:
    """Serve until all executions that are counted have ended.

    Args:
        plan: whose replicas serve.
        scripts: the executions of each workflow; only those of workflows that arrive count.
        spec_of: gives the engines.
        setting: what arrives, and what is different from the plan.
        on_end: called as each counted execution ends.

    Raises:
        UnknownNameError: a node that the cluster does not have.
        InfeasibleError: an LLM has no replica left from the start, or from a loss on.
        InputError: a call can never fit the KV cache of its LLM's engines.
    """
    spec_of = offloading(spec_of, setting.host_bytes)
    groups = tuple(replica_groups(plan, spec_of, setting.without))
    faults = tuple(_faults(plan, setting))
    _check_left(groups, faults)
    there = {name for group in groups for name in group.replicas}
    turns = (tuple(r.name for r in each if r.name in there) for each in plan.together)
    fleet = _fleet(groups, filter(None, turns), setting)
    source = _source(scripts, setting)
    simulation = FaultySimulation(source, fleet, faults, order=setting.order, on_over=fleet.over)
    first = 0 if setting.speed else setting.warm_up
    last = sum(map(len, scripts.values())) if setting.speed else first + setting.executions
    counted: list[ServedExecution] = []
    others: list[ServedExecution] = []
    for execution in simulation.run():
        if not first <= execution.number < last:
            others.append(execution)
        else:
            counted.append(execution)
            on_end()
            if len(counted) == last - first:
                break
    return Simulated(tuple(sorted(counted, key=lambda each: each.number)), tuple(others))


def _fleet(
    groups: Sequence[ServedGroup], turns: Iterable[tuple[ReplicaName, ...]], setting: Setting
) -> Fleet:
    if setting.make_dispatcher is None:
        return Fleet(groups, turns=turns, make_router=setting.make_router)
    return ProgramFleet(groups, turns=turns, make_dispatcher=setting.make_dispatcher)


def replica_groups(
    plan: Plan, spec_of: SpecOf, without: frozenset[NodeName] = frozenset()
) -> Iterator[ServedGroup]:
    """The plan's replicas by LLM, but for those that need a GPU of certain nodes.

    Raises:
        UnknownNameError: a node that the cluster does not have.
        InfeasibleError: an LLM has no replica left.
    """
    for node in without:
        _check_node(plan, node)
    specs = specs_of(plan.allocation, spec_of)
    for group in plan.allocation.groups:
        names = [
            replica.name
            for replica in plan.placement.replicas
            if replica.llm == group.llm and not without & _nodes(plan, replica)
        ]
        if not names:
            raise InfeasibleError(
                f"without {', '.join(sorted(without))} no replica of {group.llm} is left",
                hint="plan with `--survive 1 node`, or leave another node out",
            )
        yield ServedGroup(group.llm, specs[group.llm], tuple(names))


def _source(scripts: Mapping[WorkflowName, Sequence[Script]], setting: Setting) -> ArrivalSource:
    if setting.speed:
        return OpenLoop(as_recorded(chain(*scripts.values()), speed=setting.speed))
    if setting.users:
        every = tuple(chain(*scripts.values()))
        users = setting.users * len(scripts)
        return ClosedLoop(every, users=users, think_s=setting.think_s, seed=setting.seed)
    if not setting.rates:
        raise InputError("nothing arrives: there is no rate", hint="give one with --rate")
    total_per_s = sum(rate.rate_per_s for rate in setting.rates)

    def arrivals(rate: WorkflowRate) -> Iterator[Arrival]:
        stream = Stream(
            scripts=tuple(scripts[rate.workflow]),
            rate_per_s=rate.rate_per_s,
            burstiness=setting.burstiness,
        )
        period = max(1, round(setting.executions * rate.rate_per_s / total_per_s))
        return stream.arrivals(setting.seed, period)

    return OpenLoop(merged(map(arrivals, setting.rates)))


def _faults(plan: Plan, setting: Setting) -> Iterator[Fault]:
    for loss in setting.losses:
        _check_node(plan, loss.node)
        for replica in plan.placement.replicas:
            nodes = _nodes(plan, replica)
            if loss.node in nodes and not setting.without & nodes:
                yield Fault(loss.at_s, replica.llm, replica.name, loss.back_s)


def _check_left(groups: Sequence[ServedGroup], faults: Sequence[Fault]) -> None:
    """Each LLM must have a replica in the end, or its calls would wait for ever."""
    gone = {fault.replica for fault in faults if fault.back_s == float("inf")}
    for group in groups:
        if gone.issuperset(group.replicas):
            raise InfeasibleError(
                f"no replica of {group.llm} is left after the loss, so its calls would never end",
                hint="say when the node is back, like `--lose node-1@60:180`, or plan with "
                "`--survive 1 node`",
            )


def _nodes(plan: Plan, replica: PlacedReplica) -> frozenset[NodeName]:
    gpus: frozenset[GpuId] = frozenset(replica.gpus)
    return frozenset(gpu.node for gpu in plan.cluster.gpus if gpu.id in gpus)


def _check_node(plan: Plan, node: NodeName) -> None:
    known = dict.fromkeys(gpu.node for gpu in plan.cluster.gpus)
    if node not in known:
        raise UnknownNameError("node", node, known)
