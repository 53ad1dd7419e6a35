"""What a larger cluster would do: the fewest GPUs more, of one type, with which there is a plan."""

from dataclasses import replace
from itertools import islice
from math import ceil

from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuTypeName,
    NodeName,
    RackName,
)
from scepsy.model.plan import Plan
from scepsy.place.topology import largest_domain
from scepsy.search.exact import allocation, choices
from scepsy.search.find import find_plan
from scepsy.search.limits import Scope
from scepsy.search.problem import Problem, slo_value_s
from scepsy.search.reach import fewest_units

MOST_GROWTH = 32
"""Clusters this many times as large are looked at."""
_MOST_UNITS = 1_000_000
"""Budget up to which the fewest GPUs for a rate are looked for on one GPU type."""
_PLACED = 100
"""Allocations tried to be placed for each rate and size that may be proposed."""
_PREDICTED = 8
"""Allocations whose percentiles are looked at for each size of cluster."""


def more_gpus(problem: Problem) -> dict[GpuTypeName, int]:
    """For each GPU type the fewest more, of that type alone, with which there is a plan.

    They come in nodes of their own, each an NVLink domain as large as the type's largest. Starts
    from what is needed at least before placement, so nothing less would do. A type is left out
    that does not help however many there are, as far as was looked.
    """
    found = {room.gpu_type: _more_of(problem, room.gpu_type) for room in problem.rooms}
    return {kind: more for kind, more in found.items() if more is not None}


def has_plan(problem: Problem) -> bool:
    """Whether there is a plan among a few allocations."""
    few = replace(problem.request, max_candidates=_PLACED)
    return isinstance(find_plan(replace(problem, request=few)), Plan)


def _more_of(problem: Problem, kind: GpuTypeName) -> int | None:
    least = _least_more(problem, kind)
    if least is None:
        return None
    cluster = problem.request.cluster
    numbers = range(least, least + 2 * largest_domain(cluster, kind) + 1)
    return next((n for n in numbers if has_plan(problem.on(grown(cluster, kind, n)))), None)


def _least_more(problem: Problem, kind: GpuTypeName) -> int | None:
    """GPUs more that are needed at least before placement; None beyond what is looked at."""
    if len(problem.rooms) == 1 and problem.request.slo is None and not problem.room.scopes:
        budget = problem.room.budget_units
        while budget <= _MOST_UNITS:
            choice = fewest_units(problem.options([budget]))
            if choice is not None:
                gpus = ceil(choice.units[0] / problem.room.units_per_gpu)
                return max(1, gpus - problem.gpus)
            budget *= 2
        return None
    low, high = 0, 1
    most = len(problem.request.cluster.gpus) * MOST_GROWTH
    while not _is_enough(_larger(problem, kind, high)):
        low, high = high, high * 2
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = _is_enough(_larger(problem, kind, middle))
        low, high = (low, middle) if enough else (middle, high)
    return high


def _is_enough(problem: Problem) -> bool:
    """Whether one of the best allocations meets the SLO, placeable or not.

    Exact without an SLO and where ``best_decides``; elsewhere it may miss one that does.
    """
    slo = problem.request.slo
    for part in problem.splits():
        llms = part.options()
        if slo is None:
            if next(choices(llms, part.budgets), None) is not None:
                return True
            continue
        best = part.choices(llms, part.budgets, part.worst_per_s(llms))
        for choice in islice(best, _PREDICTED):
            if slo_value_s(part.predict(allocation(llms, choice)), slo) <= slo.bound_s:
                return True
    return False


def _larger(problem: Problem, kind: GpuTypeName, more: int) -> Problem:
    """The same problem with more GPUs of a type to count on; the cluster stays."""
    cluster = problem.request.cluster
    nodes = ceil(more / largest_domain(cluster, kind))
    if problem.request.limits.survive is Scope.RACK:
        nodes = ceil(nodes / _nodes_per_rack(cluster, kind))
    rooms = tuple(
        replace(
            room,
            budget_units=room.budget_units + more * room.units_per_gpu,
            scopes=room.scopes + nodes if room.scopes else 0,
        )
        if room.gpu_type == kind
        else room
        for room in problem.rooms
    )
    most_gpus = {**problem.most_gpus, kind: problem.most_gpus[kind] + more}
    return replace(problem, rooms=rooms, most_gpus=most_gpus, at_most=problem.at_most + more)


def grown(cluster: Cluster, kind: GpuTypeName, more: int) -> Cluster:
    """A cluster with more GPUs of a type, on nodes and in racks of their own."""
    size = largest_domain(cluster, kind)
    per_rack = _nodes_per_rack(cluster, kind)
    have = len({gpu.node for gpu in cluster.gpus})
    added = tuple(
        Gpu(
            id=GpuId(f"more-{have + node}/gpu-{n % size}"),
            type=kind,
            node=NodeName(f"more-{have + node}"),
            domain=DomainName(f"more-{have + node}"),
            rack=RackName(f"more-{have + node - node % per_rack}"),
        )
        for n in range(more)
        for node in [n // size]
    )
    return Cluster((*cluster.gpus, *added), cluster.types)


def _nodes_per_rack(cluster: Cluster, kind: GpuTypeName) -> int:
    nodes = {(gpu.rack, gpu.node) for gpu in cluster.gpus if gpu.type == kind}
    racks = [rack for rack, _ in nodes]
    return max(map(racks.count, racks))
