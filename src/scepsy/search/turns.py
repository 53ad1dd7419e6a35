"""Allocations in which some LLMs take turns on whole GPUs: likely good ones, for a simulator.

The search proper gives each LLM a share of its own, and so needs to know nothing of one LLM to
cost another. LLMs that take turns are slower the more the others have to do. So of each set of
LLMs, tensor parallel degree and number of replicas a cost is estimated, the other LLMs get their
best on the GPUs that are left, and who measures decides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, combinations, product

import numpy as np

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName, Stage
from scepsy.predict.surface import StageSurface
from scepsy.predict.turns import stretches
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.search.exact import choices
from scepsy.search.frontier import LlmLoad
from scepsy.search.limits import Target
from scepsy.search.problem import Problem

MOST_LLMS = 6
"""Of a problem in which LLMs may take turns: the sets of them double with each."""
_TENTHS = 10
_MOST_USED = 1.5
"""Of the time of GPUs, by profiles of each LLM alone."""
_BEYOND_S = 1e6
_FULL = 0.99
_MOST_COUNTS = 24


def taking_turns(problem: Problem, most: int) -> list[Allocation]:
    """Distinct allocations in which two LLMs or more take turns, by a rough estimate, best first.

    Each has another set of LLMs or other degrees. None on clusters of several GPU types, and where
    sharing is not allowed.
    """
    return [found for _, found in sorted(_estimated(problem), key=_cost)[:most]]


def turn_replicas(allocation: Allocation) -> Iterator[Allocation]:
    """Those with an instance more or less for LLMs that take turns."""
    for llms, step in product(allocation.turns, (-1, 1)):
        replicas = allocation.group(llms[0]).replicas + step
        if replicas:
            groups = (
                replace(group, replicas=replicas) if group.llm in llms else group
                for group in allocation.groups
            )
            yield Allocation(tuple(groups), allocation.turns)


def _estimated(problem: Problem) -> Iterator[tuple[float, Allocation]]:
    loads = problem.loads
    if not _is_allowed(problem) or len(loads) > MOST_LLMS:
        return
    sets = chain.from_iterable(combinations(loads, size) for size in range(2, len(loads) + 1))
    for together in sets:
        others = [load.llm for load in loads if load not in together]
        best: dict[tuple[int, ...], tuple[float, Allocation]] = {}
        rest_on = cache(partial(_rest, problem, others))
        for pool in _pools(problem, together):
            rest = rest_on(problem.gpus - pool.gpus)
            if rest is None:
                continue
            found = pool.cost_s + rest[0], _allocation(pool.groups, rest[1])
            if found[0] < best.get(pool.degrees, (float("inf"),))[0]:
                best[pool.degrees] = found
        yield from best.values()


def _is_allowed(problem: Problem) -> bool:
    limits = problem.request.limits
    return (
        len(problem.rooms) == 1
        and limits.share
        and limits.target is Target.ANY
        and limits.survive is None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """LLMs that take turns, on so many instances of so many GPUs."""

    llms: tuple[LlmName, ...]
    degrees: tuple[int, ...]
    """(llms,) of which the largest is that of the instances."""
    replicas: int
    least: tuple[int, ...]
    """(llms,) tenths of the memory that each needs at least."""
    gpu_type: GpuTypeName
    cost_s: float

    @property
    def gpus(self) -> int:
        return max(self.degrees) * self.replicas

    @property
    def groups(self) -> tuple[ReplicaGroup, ...]:
        """What is left of the memory goes by size: larger LLMs have larger KV."""
        return tuple(
            ReplicaGroup(
                llm=llm,
                gpu_type=self.gpu_type,
                tensor_parallel=degree,
                replicas=self.replicas,
                gpu_fraction=tenths / _TENTHS,
            )
            for llm, degree, tenths in zip(
                self.llms, self.degrees, _shared_out(self.least), strict=True
            )
        )


def _shared_out(least: Sequence[int]) -> tuple[int, ...]:
    """All tenths, in proportion to the least of each."""
    ideal = [_TENTHS * n / sum(least) for n in least]
    parts = [max(n, int(part)) for n, part in zip(least, ideal, strict=True)]
    by_rest = sorted(range(len(least)), key=lambda at: parts[at] - ideal[at])
    for at in by_rest[: _TENTHS - sum(parts)]:
        parts[at] += 1
    return tuple(parts)


def _allocation(turned: Sequence[ReplicaGroup], rest: Sequence[ReplicaGroup]) -> Allocation:
    llms = tuple(sorted(group.llm for group in turned))
    return Allocation(tuple(sorted((*turned, *rest), key=_llm)), (llms,))


def _pools(problem: Problem, together: Sequence[LlmLoad]) -> Iterator[_Pool]:
    room, limits = problem.room, problem.request.limits
    whole: list[dict[int, int]] = []
    """(llms,) of each degree on whole GPUs, the least tenths of memory that were profiled."""
    for load in together:
        shapes = problem.surfaces.shapes([s.stage for s in load.stages], room.gpu_type)
        own = limits.of(load.llm)
        if not own.share:
            return
        whole.append(
            {
                degree: min(round(_TENTHS * part) for d, part in shapes if d == degree)
                for degree, fraction in shapes
                if fraction == 1
                and degree <= room.max_tensor_parallel
                and own.tensor_parallel in {None, degree}
            }
        )
    fewest = max(limits.of(load.llm).min_replicas for load in together)
    for widest in sorted(set().union(*whole)):
        if not all(any(degree <= widest for degree in each) for each in whole):
            continue
        known = tuple(max(d for d in each if d <= widest) for each in whole)
        tenths = [each[degree] for each, degree in zip(whole, known, strict=True)]
        pinned = any(limits.of(load.llm).tensor_parallel is not None for load in together)
        every = known if pinned else (widest,) * len(known)
        for degrees in dict.fromkeys((known, every)):
            # Weights of an LLM on more GPUs than it was profiled on take less of each.
            least = tuple(
                -(-n * low // high) for n, low, high in zip(tenths, known, degrees, strict=True)
            )
            if sum(least) > _TENTHS:
                continue
            for replicas in _counts(fewest, problem.gpus // widest):
                cost_s = _cost_s(problem, together, known, replicas)
                if cost_s is not None:
                    yield _Pool(
                        llms=tuple(load.llm for load in together),
                        degrees=degrees,
                        replicas=replicas,
                        least=least,
                        gpu_type=room.gpu_type,
                        cost_s=cost_s,
                    )


def _counts(fewest: int, most: int) -> list[int]:
    """Numbers of instances to look at: all of a few, else at even ratios."""
    if most - fewest < _MOST_COUNTS:
        return list(range(fewest, most + 1))
    ratio = (most / fewest) ** (1 / (_MOST_COUNTS - 1))
    return sorted({round(fewest * ratio**n) for n in range(_MOST_COUNTS)})


def _cost_s(
    problem: Problem, together: Sequence[LlmLoad], degrees: Sequence[int], replicas: int
) -> float | None:
    """Part of the objective; None far beyond what the GPUs sustain.

    A little beyond, the cost is more than any other: profiles may be wrong there.
    """
    used = 0.0
    at_work: list[float] = []
    costs_s: list[float] = []
    for load, degree in zip(together, degrees, strict=True):
        rows = [
            _surface(problem, stage.stage).rows([(degree, 1.0)], [np.array([replicas])])
            for stage in load.stages
        ]
        stages = list(zip(load.stages, rows, strict=True))
        own = sum(float(row.call_s[0]) * s.calls_per_s for s, row in stages if s.calls_per_s > 0)
        own /= replicas
        used += own
        within = np.array([min(own, _FULL)])
        times_s = [float(row.latency_s(within)[0]) for row in rows]
        calls = zip(load.stages, times_s, strict=True)
        at_work.append(sum(stage.calls_per_s * time_s for stage, time_s in calls) / replicas)
        costs = zip(load.stages, times_s, strict=True)
        costs_s.append(sum(stage.worth * time_s for stage, time_s in costs))
    if used > _MOST_USED:
        return None
    beyond_s = _BEYOND_S * used if used >= 1 - TURN_COST_FRACTION else 0.0
    stretched_s = (s * cost_s for s, cost_s in zip(stretches(at_work), costs_s, strict=True))
    return sum(stretched_s) + beyond_s


def _surface(problem: Problem, stage: Stage) -> StageSurface:
    return problem.surfaces.surface(stage, problem.room.gpu_type)


def _rest(
    problem: Problem, llms: Sequence[LlmName], gpus: int
) -> tuple[float, tuple[ReplicaGroup, ...]] | None:
    """What the others cost at best on so many GPUs, and their groups; None where they don't fit."""
    if not llms:
        return 0.0, ()
    if gpus <= 0:
        return None
    options = [
        each for each in problem.options([gpus * problem.room.units_per_gpu]) if each.llm in llms
    ]
    if not all(map(len, options)):
        return None
    best = next(choices(options, [gpus * problem.room.units_per_gpu]), None)
    if best is None:
        return None
    groups = (each.group(at) for each, at in zip(options, best.options, strict=True))
    return best.cost_s, tuple(groups)


def _cost(found: tuple[float, Allocation]) -> float:
    return found[0]


def _llm(group: ReplicaGroup) -> LlmName:
    return group.llm
