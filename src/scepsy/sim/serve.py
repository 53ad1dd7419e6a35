"""Streams of recorded executions through an allocation at a steady load."""

from collections.abc import Iterator, Mapping, Sequence

from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation
from scepsy.model.workflow import LlmName
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.route import LeastLoaded, MakeRouter
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Arrival, OpenLoop, Stream, merged
from scepsy.sim.fleet import Fleet, ServedGroup, Serving, replica_names
from scepsy.sim.run import ServedExecution, Simulation, steady


def fleet_of(
    allocation: Allocation,
    specs: Mapping[LlmName, EngineSpec],
    *,
    make_router: MakeRouter = LeastLoaded,
) -> Fleet:
    """Idle replicas of an allocation.

    Args:
        allocation: how many replicas each LLM has.
        specs: what each replica of an LLM can do on the group's shape.
        make_router: makes what feeds the replicas of each LLM.
    """
    groups = (
        ServedGroup(group.llm, specs[group.llm], replica_names(group.llm, group.replicas))
        for group in allocation.groups
    )
    return Fleet(groups, turns=_turns(allocation), make_router=make_router)


def _turns(allocation: Allocation) -> Iterator[tuple[ReplicaName, ...]]:
    """A replica of each of the LLMs that take turns."""
    for llms in allocation.turns:
        named = (replica_names(llm, allocation.group(llm).replicas) for llm in llms)
        yield from zip(*named, strict=True)


def serve(
    streams: Sequence[Stream],
    serving: Serving,
    *,
    executions: int,
    warm_up: int,
    seed: int,
    order: OrderPolicy = first_come,
) -> tuple[ServedExecution, ...]:
    """Run streams through what is idle; give executions in their order of arrival, all ended.

    Load goes on until the last of them has ended, so that none runs in a plan that empties. About
    ``executions`` of all streams are a period, over which rates are exact.

    Args:
        streams: the workflows, each with a rate.
        serving: idle, at time 0.
        executions: how many are given, over all streams.
        warm_up: how many come before them.
        seed: decides arrivals and their order; equal seeds give equal results.
        order: which of the calls that wait in an engine comes first.
    """
    arrivals = arriving(streams, executions=executions, seed=seed)
    simulation = Simulation(OpenLoop(arrivals), serving, order=order)
    return steady(simulation, executions=executions, warm_up=warm_up)


def arriving(streams: Sequence[Stream], *, executions: int, seed: int) -> Iterator[Arrival]:
    """What arrives of all streams, by instants; about ``executions`` of them are a period."""
    total_per_s = sum(stream.rate_per_s for stream in streams)
    return merged(
        stream.arrivals(seed, max(1, round(executions * stream.rate_per_s / total_per_s)))
        for stream in streams
    )
