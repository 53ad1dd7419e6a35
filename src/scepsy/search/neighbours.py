"""Allocations that are nearly the same: one LLM's group changed, or something of one for another.

What the predictors say of them is beside the point: they are for a search that measures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product

from scepsy.model.cluster import Cluster
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.pack import Unplaced, pack

Shape = tuple[int, float]
"""Tensor parallel degree and GPU fraction."""
_SLACK = 1e-9


def neighbours(
    allocation: Allocation, shapes: Mapping[LlmName, Sequence[Shape]], cluster: Cluster
) -> Iterator[Allocation]:
    """Those that can be placed on the cluster; none twice.

    First those that change one group alone, then those in which one LLM gives a replica or a step
    of its shape and another takes what that frees.
    """
    seen = {allocation}
    for changed in _changed(allocation, shapes, len(cluster.gpus)):
        if changed not in seen:
            seen.add(changed)
            if not isinstance(pack(changed, cluster), Unplaced):
                yield changed


def _changed(
    allocation: Allocation, shapes: Mapping[LlmName, Sequence[Shape]], gpus: int
) -> Iterator[Allocation]:
    options = {g.llm: list(_others(g, shapes[g.llm], gpus)) for g in allocation.groups}
    room = gpus - allocation.gpus + _SLACK
    for group in allocation.groups:
        for other in options[group.llm]:
            if other.gpus - group.gpus <= room:
                yield _with(allocation, other)
    for giver, taker in permutations(allocation.groups, 2):
        for less, more in product(options[giver.llm], options[taker.llm]):
            freed = giver.gpus - less.gpus
            if freed > 0 and room < more.gpus - taker.gpus <= room + freed:
                yield _with(_with(allocation, less), more)


def _others(group: ReplicaGroup, shapes: Sequence[Shape], gpus: int) -> Iterator[ReplicaGroup]:
    """A replica more or less; another shape with as many replicas, or about as many GPUs."""
    found: dict[ReplicaGroup, None] = {}
    for replicas in (group.replicas - 1, group.replicas + 1):
        if replicas:
            found[replace(group, replicas=replicas)] = None
    for degree, fraction in shapes:
        each = degree * fraction
        about = round(group.gpus / each)
        for replicas in sorted({group.replicas, about, about + 1}):
            if 0 < replicas <= (gpus + _SLACK) / each:
                found[
                    replace(group, tensor_parallel=degree, gpu_fraction=fraction, replicas=replicas)
                ] = None
    found.pop(group, None)
    yield from found


def _with(allocation: Allocation, group: ReplicaGroup) -> Allocation:
    return Allocation(tuple(group if g.llm == group.llm else g for g in allocation.groups))
