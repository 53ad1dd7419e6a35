"""How far GPUs reach: the largest rate that a budget sustains, the fewest units for a rate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scepsy.model.workflow import LlmName
from scepsy.predict.surface import Floats, Ints
from scepsy.search.exact import Choice
from scepsy.search.frontier import Options


class Reach(NamedTuple):
    """The factor on all rates at which a budget saturates, and the LLM that does so first."""

    factor: float
    bottleneck: LlmName


def largest_factor(llms: Sequence[Options], budget_units: int) -> Reach | None:
    """The least upper bound of the factors on all rates that some allocation sustains.

    None where the budget does not hold every LLM even without load. Exact: the answer is the
    headroom of some option, and whether a headroom can be had for all LLMs falls with it, so it
    is found by bisecting the sorted headrooms.
    """
    if not all(len(options) for options in llms):
        return None
    steps = [_steps(options) for options in llms]
    factors = np.unique(np.concatenate([headroom for _, headroom in steps]))
    low, high = 0, len(factors)
    while low < high:
        middle = (low + high) // 2
        if _units_for(steps, float(factors[middle])) <= budget_units:
            low = middle + 1
        else:
            high = middle
    if low == 0 or factors[low - 1] <= 0:
        return None
    factor = float(factors[low - 1])
    reached = [headroom[np.searchsorted(headroom, factor)] for _, headroom in steps]
    return Reach(factor, llms[int(np.argmin(reached))].llm)


def fewest_units(llms: Sequence[Options]) -> Choice | None:
    """The choice with the fewest units that sustains the load; None if an LLM has none.

    Of the options with an LLM's fewest units it takes the one of least cost.
    """
    chosen: list[int] = []
    for options in llms:
        sustaining = np.flatnonzero(np.isfinite(options.cost_s))
        if not len(sustaining):
            return None
        chosen.append(int(sustaining[0]))  # options are sorted by units, then cost
    pairs = list(zip(llms, chosen, strict=True))
    return Choice(
        tuple(chosen),
        sum(int(options.units[at]) for options, at in pairs),
        sum(float(options.cost_s[at]) for options, at in pairs),
    )


def _steps(options: Options) -> tuple[Ints, Floats]:
    """Units at which the largest headroom within so many units rises, and to what."""
    best = np.maximum.accumulate(options.headroom)
    rises = np.flatnonzero(best > np.concatenate([[-np.inf], best[:-1]]))
    return options.units[rises], best[rises]


def _units_for(steps: Sequence[tuple[Ints, Floats]], factor: float) -> float:
    total = 0.0
    for units, headroom in steps:
        at = int(np.searchsorted(headroom, factor))
        if at == len(units):
            return np.inf
        total += float(units[at])
    return total
