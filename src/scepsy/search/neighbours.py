"""Allocations that are nearly the same: one LLM's group changed, or something of one for another.

They are for a search that measures: what is predicted of them decides no more than which come
first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from operator import itemgetter

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, Placement, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.pack import pack
from scepsy.search.frontier import Shape
from scepsy.search.problem import Problem
from scepsy.search.turns import turn_replicas

_SLACK = 1e-9


class Neighbourhood:
    """The neighbours within a problem's limits that are thought to sustain its rates."""

    def __init__(self, problem: Problem) -> None:
        """Look up what the problem allows each LLM."""
        self._problem = problem
        self._costs_s: dict[LlmName, dict[tuple[GpuTypeName, Shape], dict[int, float]]] = {}
        for options in problem.options():
            costs_s = self._costs_s.setdefault(options.llm, {})
            for at, cost_s in enumerate(options.cost_s):
                group = options.group(at)
                costs_s.setdefault(_kind(group), {})[group.replicas] = float(cost_s)

    def of(self, allocation: Allocation) -> Iterator[Allocation]:
        """Those that can be placed, by what is predicted.

        First those with other numbers of replicas that take turns; nothing is predicted of them.
        """
        yield from self._with_other_turns(allocation)
        shapes = {
            g.llm: [shape for kind, shape in self._costs_s[g.llm] if kind == g.gpu_type]
            for g in allocation.groups
        }
        found = [
            (cost_s, at, changed)
            for at, changed in enumerate(neighbours(allocation, shapes, self._problem.gpus))
            if (cost_s := self.cost_s(changed)) < float("inf")
        ]
        for _, _, changed in sorted(found, key=itemgetter(0, 1)):
            if placed(self._problem, changed) is not None:
                yield changed

    def cost_s(self, allocation: Allocation) -> float:
        """What the search makes small; infinite for what is not allowed or not sustained."""
        alone = (group for group in allocation.groups if not allocation.turns_of(group.llm))
        return sum(map(self._cost_s, alone))

    def _with_other_turns(self, allocation: Allocation) -> Iterator[Allocation]:
        limits = self._problem.request.limits
        for changed in turn_replicas(allocation):
            fits = changed.gpus <= self._problem.gpus + _SLACK
            fits = fits and all(g.replicas >= limits.of(g.llm).min_replicas for g in changed.groups)
            if fits and placed(self._problem, changed) is not None:
                yield changed

    def _cost_s(self, group: ReplicaGroup) -> float:
        """More replicas than are told apart cost what the most of them do."""
        by_replicas = self._costs_s[group.llm].get(_kind(group), {})
        if not by_replicas:
            return float("inf")
        return by_replicas.get(min(group.replicas, max(by_replicas)), float("inf"))


def placed(problem: Problem, allocation: Allocation) -> Placement | None:
    """A placement that keeps a problem's rules, if one is found."""
    placement = pack(
        allocation,
        problem.cluster,
        units_per_gpu=problem.room.units_per_gpu,
        rules=problem.place_rules(allocation),
    )
    if isinstance(placement, Placement) and len(placement.used) <= problem.gpus:
        return placement
    return None


def neighbours(
    allocation: Allocation, shapes: Mapping[LlmName, Sequence[Shape]], gpus: int
) -> Iterator[Allocation]:
    """Those that take no more than so many GPUs, placeable or not; none twice.

    First those that change one group alone, then those in which one LLM gives a replica or a step
    of its shape and another takes what that frees.
    """
    seen = {allocation}
    for changed in _changed(allocation, shapes, gpus):
        if changed not in seen:
            seen.add(changed)
            yield changed


def _changed(
    allocation: Allocation, shapes: Mapping[LlmName, Sequence[Shape]], gpus: int
) -> Iterator[Allocation]:
    alone = [group for group in allocation.groups if not allocation.turns_of(group.llm)]
    options = {g.llm: list(_others(g, shapes[g.llm], gpus)) for g in alone}
    room = gpus - allocation.gpus + _SLACK
    for group in alone:
        for other in options[group.llm]:
            if other.gpus - group.gpus <= room:
                yield _with(allocation, other)
    for giver, taker in permutations(alone, 2):
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


def _kind(group: ReplicaGroup) -> tuple[GpuTypeName, Shape]:
    return group.gpu_type, (group.tensor_parallel, group.gpu_fraction)


def _with(allocation: Allocation, group: ReplicaGroup) -> Allocation:
    groups = tuple(group if g.llm == group.llm else g for g in allocation.groups)
    return Allocation(groups, allocation.turns)
