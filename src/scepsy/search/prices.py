"""What a unit of each GPU type is worth: the multipliers of the budgets, and the bound they give.

Any prices give a bound: at the price, each LLM takes its best option whatever the others do. The
bound is the tighter, and the search the faster, the nearer the prices are to the best ones; that
they are near is all that is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.predict.surface import Floats, Ints
from scepsy.search.frontier import Bools, Options

_BISECTIONS = 50
_ROUNDS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Prices of units, and what follows from them."""

    per_unit_s: Floats
    """(rooms,) >= 0."""
    bound_s: float
    """No choice within the budgets costs less."""
    gap_s: float | None
    """A choice within the budgets costs at most this much more; None where none is known."""

    def above_s(self, options: Options) -> Floats:
        """(options,) how far each is above the LLM's least, at the prices."""
        at_price_s = options.cost_s + self.per_unit_s[options.room] * options.units
        above_s: Floats = at_price_s - at_price_s.min()
        return above_s

    def slack_s(self, budgets: Sequence[int]) -> float:
        """Price of the budgets."""
        return float(self.per_unit_s @ np.asarray(budgets))


@dataclass(frozen=True, slots=True, eq=False)
class _Points:
    """The options that none of their LLM and room beats in units and cost, LLM after LLM."""

    room: Ints
    units: Ints
    cost_s: Floats
    starts: Ints
    """(llms,) where each LLM's begin."""

    def taken(self, per_unit_s: Floats) -> tuple[float, Ints, float]:
        """Sum of the least at the prices; units that these take of each room; what they cost."""
        at_price_s = self.cost_s + per_unit_s[self.room] * self.units
        least_s = np.minimum.reduceat(at_price_s, self.starts)
        sizes = np.diff(self.starts, append=len(at_price_s))
        hits = np.flatnonzero(at_price_s == np.repeat(least_s, sizes))
        first = hits[np.searchsorted(hits, self.starts)]
        taken = np.zeros(len(per_unit_s), dtype=np.int64)
        np.add.at(taken, self.room[first], self.units[first])
        return float(least_s.sum()), taken, float(self.cost_s[first].sum())


def best_prices(llms: Sequence[Options], budgets: Sequence[int]) -> Prices | None:
    """Prices near the best; None where the LLMs' fewest units exceed the budgets.

    With several rooms, that none is returned proves that nothing fits, but not the reverse.
    """
    if not all(len(options) for options in llms):
        return None
    points = _points(llms)
    sizes = np.asarray(budgets, dtype=np.int64)
    parts = points.units / np.maximum(sizes[points.room], 1)
    if float(np.minimum.reduceat(parts, points.starts).sum()) > len(budgets):
        return None
    least = np.minimum.reduceat(points.units, points.starts)
    for room, size in enumerate(sizes):
        only_here = np.logical_and.reduceat(points.room == room, points.starts)
        if least[only_here].sum() > size:
            return None
    per_unit_s = np.zeros(len(budgets))
    for _ in range(_ROUNDS if len(budgets) > 1 else 1):
        for room in range(len(budgets)):
            per_unit_s[room] = _price(points, sizes, per_unit_s, room)
    total_s, taken, cost_s = points.taken(per_unit_s)
    bound_s = total_s - float(per_unit_s @ sizes)
    fits = bool((taken <= sizes).all())
    return Prices(per_unit_s, bound_s, max(0.0, cost_s - bound_s) if fits else None)


def _points(llms: Sequence[Options]) -> _Points:
    kept = [options.where(_unbeaten(options)) for options in llms]
    return _Points(
        np.concatenate([options.room for options in kept]),
        np.concatenate([options.units for options in kept]).astype(np.int64),
        np.concatenate([options.cost_s for options in kept]),
        np.cumsum([0, *(len(options) for options in kept[:-1])]),
    )


def _unbeaten(options: Options) -> Bools:
    keep = np.zeros(len(options), dtype=bool)
    for room in range(len(options.gpu_types)):
        at = np.flatnonzero(options.room == room)
        if len(at):
            cost_s = options.cost_s[at]
            before = np.minimum.accumulate(np.concatenate([[np.inf], cost_s[:-1]]))
            keep[at[cost_s < before]] = True
    return keep


def _price(points: _Points, budgets: Ints, others_s: Floats, room: int) -> float:
    """The least price of a room at which what is taken of it fits, the other prices given."""

    def fits(price_s: float) -> bool:
        per_unit_s = others_s.copy()
        per_unit_s[room] = price_s
        return bool(points.taken(per_unit_s)[1][room] <= budgets[room])

    if fits(0.0):
        return 0.0
    highest_s = np.maximum.reduceat(points.cost_s, points.starts)
    lowest_s = np.minimum.reduceat(points.cost_s, points.starts)
    others = float(others_s.max()) * float(points.units.max())
    high_s = max(float((highest_s - lowest_s).max()), others, 1e-300) / float(budgets[room])
    while not fits(high_s):
        high_s *= 4
        if high_s > 1e300:
            return high_s
    return _least(fits, high_s)


def _least(holds: Callable[[float], bool], high: float) -> float:
    """The least value up to a bound that holds, to many digits, from the side that holds."""
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
