"""How far GPUs reach: the largest rate that a budget sustains, the fewest units for a rate."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scepsy.model.plan import Allocation
from scepsy.model.workflow import LlmName
from scepsy.predict.surface import Floats, Ints, Surfaces
from scepsy.search.exact import Choice, allocation, choices
from scepsy.search.frontier import (
    LlmLoad,
    Options,
    Room,
    profiled_shapes,
    usable_shapes,
    utilizations,
)
from scepsy.search.limits import Limits
from scepsy.search.problem import Problem

_LEAST_FACTOR = 1e-6
_BISECTIONS = 14
_FOUR_DIGITS = 1e-4


class Reach(NamedTuple):
    """The factor on all rates at which a budget saturates, and the LLM that does so first."""

    factor: float
    bottleneck: LlmName


def reach_of(problem: Problem) -> Reach | None:
    """How far a problem's rates may grow before placement; None where nothing fits at any rate.

    Exact for one GPU type; for several to within a millionth.
    """
    parts = list(problem.splits())
    if len(parts) > 1:
        found = [reach for part in parts if (reach := reach_of(part)) is not None]
        return max(found, key=lambda reach: reach.factor, default=None)
    if len(problem.rooms) == 1:
        limits = problem.request.limits
        return largest_factor(problem.loads, problem.surfaces, problem.room, limits)

    part = parts[0]

    def best(factor: float) -> Allocation | None:
        scaled = part.scaled(factor)
        llms = [o.costing(np.zeros(len(o))) for o in scaled.options()]
        choice = next(choices(llms, scaled.budgets), None)
        return None if choice is None else allocation(llms, choice)

    low, high = _LEAST_FACTOR, 1.0
    groups = best(low)
    if groups is None:
        return None
    while (better := best(high)) is not None and high < 1 / _LEAST_FACTOR:
        low, high, groups = high, high * 2, better
    while high - low > 1e-6 * high:
        middle = (low * high) ** 0.5 if high > 2 * low else (low + high) / 2
        better = best(middle)
        low, high, groups = (middle, high, better) if better else (low, middle, groups)
    prediction = problem.predict(groups)
    used = {s.stage.llm: s.utilization for w in prediction.workflows for s in w.stages}
    return Reach(low, min(used, key=lambda llm: (-used[llm], llm)))


def largest_factor(
    loads: Sequence[LlmLoad], surfaces: Surfaces, room: Room, limits: Limits
) -> Reach | None:
    """The least upper bound of the factors on all rates that some allocation sustains.

    None where the budget does not hold every LLM even without load. Exact: the answer is the
    headroom of some option, and whether a headroom can be had for all LLMs falls with it, so it
    is found by bisecting the sorted headrooms.
    """
    steps = [_steps(load, surfaces, room, limits) for load in loads]
    if not all(len(units) for units, _ in steps):
        return None
    factors = np.unique(np.concatenate([headroom for _, headroom in steps]))
    low, high = 0, len(factors)
    while low < high:
        middle = (low + high) // 2
        if _units_for(steps, float(factors[middle])) <= room.budget_units:
            low = middle + 1
        else:
            high = middle
    if low == 0 or factors[low - 1] <= 0:
        return None
    factor = float(factors[low - 1])
    reached = [headroom[np.searchsorted(headroom, factor)] for _, headroom in steps]
    return Reach(factor, loads[int(np.argmin(reached))].llm)


def fewest_units(llms: Sequence[Options]) -> Choice | None:
    """The choice with the fewest units that sustains the load, of one room; None if there is none.

    Of the options with an LLM's fewest units it takes the one of least cost.
    """
    chosen: list[int] = []
    for options in llms:
        if not len(options):
            return None
        least = np.flatnonzero(options.units == options.units[0])
        chosen.append(int(least[np.argmin(options.cost_s[least])]))
    pairs = list(zip(llms, chosen, strict=True))
    return Choice(
        tuple(chosen),
        (sum(int(options.units[at]) for options, at in pairs),),
        sum(float(options.cost_s[at]) for options, at in pairs),
    )


def _steps(load: LlmLoad, surfaces: Surfaces, room: Room, limits: Limits) -> tuple[Ints, Floats]:
    """Units at which the largest headroom within so many units rises, and to what."""
    units, headroom = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    (shapes,) = profiled_shapes(load, surfaces, [room])
    least = limits.of(load.llm).min_replicas
    for shape, each in usable_shapes(load, shapes, room, limits):
        used = utilizations(load, surfaces, room.gpu_type, shape, room.budget_units // each)
        if room.scopes:
            used = _after_loss(used, room.scopes)
        count = np.arange(1, len(used) + 1)
        keep = (count >= least) & np.isfinite(used)
        with np.errstate(divide="ignore"):  # an LLM that is never called has endless headroom
            headroom.append(1 / used[keep])
        units.append(each * count[keep])
    order = np.argsort(np.concatenate(units), kind="stable")
    best = np.maximum.accumulate(np.concatenate(headroom)[order])
    rises = np.flatnonzero(best > np.concatenate([[-np.inf], best[:-1]]))
    return np.concatenate(units)[order][rises], best[rises]


def _after_loss(used: Floats, scopes: int) -> Floats:
    """(replicas,) the highest utilization while replicas are lost, one scope's worth at most."""
    worst = np.full(len(used), np.inf)
    for replicas in range(1, len(used) + 1):
        left = replicas - -(-replicas // scopes)
        if left:
            worst[replicas - 1] = used[left - 1 : replicas].max()
    return worst


def _units_for(steps: Sequence[tuple[Ints, Floats]], factor: float) -> float:
    total = 0.0
    for units, headroom in steps:
        at = int(np.searchsorted(headroom, factor))
        if at == len(units):
            return np.inf
        total += float(units[at])
    return total


def bisect(holds: Callable[[float], bool], high: float) -> float:
    """The largest factor below a bound that holds, to four digits; 0 if none of those tried."""
    low = 0.0
    for tried in range(2 * _BISECTIONS):
        if high - low <= _FOUR_DIGITS * high or (low == 0 and tried >= _BISECTIONS):
            break
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
