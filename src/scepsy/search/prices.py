"""What a unit of each GPU type is worth: the multipliers of the budgets, and the bound they give.

Any prices give a bound: at the price, each LLM takes its best option whatever the others do. The
bound is the tighter, and the search the faster, the nearer the prices are to the best ones; that
they are near is all that is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.predict.surface import Floats, Ints
from scepsy.search.frontier import Options

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
    """The options of one LLM that none of its room beats in units and cost."""

    room: Ints
    units: Ints
    cost_s: Floats


def best_prices(llms: Sequence[Options], budgets: Sequence[int]) -> Prices | None:
    """Prices near the best; None where the LLMs' fewest units exceed the budgets.

    With several rooms, that none is returned proves that nothing fits, but not the reverse.
    """
    if not all(len(options) for options in llms):
        return None
    points = [_thinned(options) for options in llms]
    sizes = np.asarray(budgets, dtype=np.int64)
    if sum(float(min(p.units / np.maximum(sizes[p.room], 1))) for p in points) > len(budgets):
        return None
    if len(budgets) == 1 and sum(int(p.units.min()) for p in points) > sizes[0]:
        return None
    per_unit_s = np.zeros(len(budgets))
    for _ in range(_ROUNDS if len(budgets) > 1 else 1):
        for room in range(len(budgets)):
            per_unit_s[room] = _price(points, sizes, per_unit_s, room)
    total_s, taken, cost_s = _taken(points, per_unit_s)
    bound_s = total_s - float(per_unit_s @ sizes)
    fits = bool((taken <= sizes).all())
    return Prices(per_unit_s, bound_s, max(0.0, cost_s - bound_s) if fits else None)


def _thinned(options: Options) -> _Points:
    keep = np.zeros(len(options), dtype=bool)
    for room in range(len(options.gpu_types)):
        at = np.flatnonzero(options.room == room)
        if len(at):
            cost_s = options.cost_s[at]
            before = np.minimum.accumulate(np.concatenate([[np.inf], cost_s[:-1]]))
            keep[at[cost_s < before]] = True
    return _Points(options.room[keep], options.units[keep].astype(np.int64), options.cost_s[keep])


def _taken(points: Sequence[_Points], per_unit_s: Floats) -> tuple[float, Ints, float]:
    """Sum of the least at the prices; units that these take of each room; what they cost."""
    total_s, cost_s = 0.0, 0.0
    taken = np.zeros(len(per_unit_s), dtype=np.int64)
    for p in points:
        at_price_s = p.cost_s + per_unit_s[p.room] * p.units
        at = int(np.argmin(at_price_s))
        total_s += float(at_price_s[at])
        cost_s += float(p.cost_s[at])
        taken[p.room[at]] += p.units[at]
    return total_s, taken, cost_s


def _price(points: Sequence[_Points], budgets: Ints, others_s: Floats, room: int) -> float:
    """The least price of a room at which what is taken of it fits, the other prices given."""

    def fits(price_s: float) -> bool:
        per_unit_s = others_s.copy()
        per_unit_s[room] = price_s
        return bool(_taken(points, per_unit_s)[1][room] <= budgets[room])

    if fits(0.0):
        return 0.0
    spread_s = max(float(p.cost_s.max() - p.cost_s.min()) for p in points)
    high_s = max(spread_s / float(budgets[room]), 1e-300)
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
