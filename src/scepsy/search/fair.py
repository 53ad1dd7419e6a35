"""Choices by the workflow that fares worst, exactly: so that none starves.

The weighted sum of what the workflows fare, for any weights that add up to 1, is at most what the
worst fares. So choices are met by a weighted sum, whose best weights are looked for first, and
each is handed on as soon as no choice still to come can be better. What all workflows fare on
average counts a thousandth of that, so that of choices alike for the worst the others' best is
taken.
"""

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from scepsy.predict.surface import Floats
from scepsy.search.exact import Choice, choices
from scepsy.search.frontier import Options
from scepsy.search.prices import best_prices

_ROUNDS = 16
OTHERS = 1e-3
"""What the mean over workflows counts beside the worst."""
_MOST_HELD = 2_000
"""Choices held back at most until the best of them is taken, proven or not."""


def fair_choices(
    llms: Sequence[Options], budgets: Sequence[int], gaps_s: Floats, per_s: Floats
) -> Iterator[Choice]:
    """Distinct choices by what the worst workflow fares, and a little the mean: their cost.

    Args:
        llms: the options of each LLM, with each workflow's part.
        budgets: units of each room.
        gaps_s: (workflows,) time in which no call runs.
        per_s: (workflows,) what a second of each counts.
    """
    if not all(len(options) for options in llms):
        return
    weights = _best_weights(llms, budgets, gaps_s, per_s) + OTHERS / len(per_s)
    fixed = float(weights @ (per_s * gaps_s))
    held: list[tuple[float, tuple[int, ...], Choice]] = []
    for choice in choices(_weighted(llms, weights * per_s), budgets):
        while held and (held[0][0] <= choice.cost_s + fixed or len(held) > _MOST_HELD):
            yield heapq.heappop(held)[2]
        worst = worst_of(llms, choice, gaps_s, per_s)
        heapq.heappush(held, (worst, choice.options, Choice(choice.options, choice.units, worst)))
    while held:
        yield heapq.heappop(held)[2]


def worst_of(llms: Sequence[Options], choice: Choice, gaps_s: Floats, per_s: Floats) -> float:
    """What the workflow fares that fares worst, and a little of what all do."""
    parts_s = sum(o.parts_s[:, at] for o, at in zip(llms, choice.options, strict=True))
    fares = per_s * (gaps_s + parts_s)
    return float(fares.max() + OTHERS * fares.mean())


def _weighted(llms: Sequence[Options], per_s: Floats) -> list[Options]:
    return [options.costing(per_s @ options.parts_s) for options in llms]


def _best_weights(
    llms: Sequence[Options], budgets: Sequence[int], gaps_s: Floats, per_s: Floats
) -> Floats:
    """Weights of the workflows at which the bound is high: those that fare worse weigh more."""
    weights = np.full(len(per_s), 1 / len(per_s))
    best, best_bound = weights, -np.inf
    for round_ in range(_ROUNDS):
        weighted = _weighted(llms, weights * per_s)
        prices = best_prices(weighted, budgets)
        if prices is None:
            return best
        bound = prices.bound_s + float(weights @ (per_s * gaps_s))
        if bound > best_bound:
            best, best_bound = weights, bound
        taken = [int(np.argmin(prices.above_s(options))) for options in weighted]
        parts_s = sum(o.parts_s[:, at] for o, at in zip(llms, taken, strict=True))
        fares = per_s * (gaps_s + parts_s)
        step = 2.0 / (1 + round_) / max(float(fares.max()), 1e-300)
        weights = weights * np.exp(step * (fares - fares.max()))
        weights = np.maximum(weights / weights.sum(), 1e-6)
        weights = weights / weights.sum()
    return best
