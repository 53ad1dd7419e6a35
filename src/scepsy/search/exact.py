"""The least-cost allocations within budgets, in order of cost, exactly.

LLMs share nothing but the budgets of GPU units, one for each GPU type. A price on each type's
units turns what an option costs and takes into one number; at the best prices (the Lagrangian
dual) the sum of each LLM's least such number is a bound that no choice beats, and that the best
choice comes close to. So an option, or a partial choice, that is further above the least than the
bound is below what is looked for, plays no part. What is left is combined exactly, by min-plus
convolution over the units, and the tables that this leaves guide a best-first walk that meets
complete choices in order of cost. The gap starts narrow, and is widened until it shows a choice,
and again where more are wanted: work grows with its square, and the more LLMs there are to fill
the budgets with, the nearer to the bound the best choice is.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from scepsy.model.plan import Allocation
from scepsy.predict.surface import Floats, Ints
from scepsy.search.frontier import Options
from scepsy.search.prices import Prices, best_prices

_TOLERANCE = 1e-12
"""Relative; sums in another order differ by less."""
_FIRST_GAP = 1e-3
"""Relative to the bound, where no choice is known yet."""
_WIDER = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """One option for each LLM, and what they take and cost together."""

    options: tuple[int, ...]
    """Index into each LLM's options."""
    units: tuple[int, ...]
    """By room."""
    cost_s: float


def choices(llms: Sequence[Options], budgets: Sequence[int]) -> Iterator[Choice]:
    """Distinct choices within the budgets, by rising cost; maybe none.

    Args:
        llms: the options of each LLM.
        budgets: units of each room.
    """
    fitting = [options.where(_fits(options, budgets)) for options in llms]
    kept_at = [np.flatnonzero(_fits(options, budgets)) for options in llms]
    prices = best_prices(fitting, budgets)
    if prices is None:
        return
    above = [prices.above_s(options) for options in fitting]
    widest = sum(float(a.max()) for a in above) + prices.slack_s(budgets)
    known_s = prices.gap_s if prices.gap_s is not None else _FIRST_GAP * abs(prices.bound_s)
    gap_s = known_s / len(llms)
    done_s = -np.inf
    while True:
        gap_s = max(gap_s * (1 + _TOLERANCE), _TOLERANCE * abs(prices.bound_s))
        limit_s = prices.bound_s + gap_s if gap_s < widest else np.inf
        near = [np.flatnonzero(a <= gap_s) for a in above]
        walk = _Walk([o.where(at) for o, at in zip(fitting, near, strict=True)], budgets, gap_s)
        for choice in walk.choices(limit_s, prices):
            if done_s < choice.cost_s <= limit_s:
                at = (
                    int(kept[n[option]])
                    for kept, n, option in zip(kept_at, near, choice.options, strict=True)
                )
                yield Choice(tuple(at), choice.units, choice.cost_s)
        if gap_s >= widest:
            return
        done_s = limit_s
        beyond = [float(a[a > gap_s].min()) for a in above if (a > gap_s).any()]
        gap_s = max(_WIDER * gap_s, min(beyond, default=widest))


def _fits(options: Options, budgets: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    fits: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        options.units <= np.asarray(budgets)[options.room]
    )
    return fits


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """Least cost of some LLMs by exactly the units they take of each room, over a window."""

    low: Ints
    """(rooms,) units at the window's corner."""
    cost_s: Floats
    """(units of the first room, of the second, ...)."""

    def at(self, units: Ints) -> Floats:
        """(n,) cost at (n, rooms) units; infinite outside the window."""
        index = units - self.low
        inside = ((index >= 0) & (index < self.cost_s.shape)).all(axis=1)
        index[~inside] = 0
        found: Floats = self.cost_s[tuple(index.T)]
        return np.where(inside, found, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """A partial choice, and what the next LLM's options make of it, best first."""

    chosen: tuple[int, ...]
    left: Ints
    """(rooms,) units that the LLMs to come take, exactly."""
    cost_s: float
    order: Ints
    bounds_s: Floats
    """(options of the next LLM,) least cost of a complete choice through each, unsorted."""


class _Walk:
    """The choices among options near the best, by their cost."""

    def __init__(self, llms: Sequence[Options], budgets: Sequence[int], gap_s: float) -> None:
        self._llms = llms
        self._budgets = np.asarray(budgets, dtype=np.int64)
        self._gap_s = gap_s
        self._units = [_vectors(options, len(budgets)) for options in llms]

    def choices(self, limit_s: float, prices: Prices) -> Iterator[Choice]:
        """Those that cost at most so much, by rising cost (to within rounding)."""
        tables = self._tables(prices)
        if tables is None:
            return
        serial = count()
        heap: list[tuple[float, int, int, _Branch, int]] = []
        grain_s = max(abs(prices.bound_s), self._gap_s) * _TOLERANCE or _TOLERANCE

        def push(branch: _Branch, rank: int, parent_s: float = -np.inf) -> None:
            if rank < len(branch.order):
                bound_s = float(branch.bounds_s[branch.order[rank]])
                if bound_s <= limit_s * (1 + _TOLERANCE) and bound_s < np.inf:
                    if bound_s <= parent_s + grain_s:  # the same but for rounding, so first the
                        bound_s = parent_s  # most complete: else all alike are begun, none ended
                    heapq.heappush(heap, (bound_s, -len(branch.chosen), next(serial), branch, rank))

        totals, roots_s = _totals(tables[0])
        push(
            _Branch(
                (), np.zeros(0, dtype=np.int64), 0.0, np.argsort(roots_s, kind="stable"), roots_s
            ),
            0,
        )
        while heap:
            bound_s, _, _, branch, rank = heapq.heappop(heap)
            push(branch, rank + 1, bound_s)
            at = int(branch.order[rank])
            if not len(branch.left):  # the root: its branches are the totals
                push(self._branch(tables, (), totals[at], 0.0), 0, bound_s)
                continue
            m = len(branch.chosen)
            chosen = (*branch.chosen, at)
            cost_s = branch.cost_s + float(self._llms[m].cost_s[at])
            if len(chosen) == len(self._llms):
                yield Choice(chosen, self._taken(chosen), cost_s)
            else:
                left = branch.left - self._units[m][at]
                push(self._branch(tables, chosen, left, cost_s), 0, bound_s)

    def _taken(self, chosen: Sequence[int]) -> tuple[int, ...]:
        total = sum(units[at] for units, at in zip(self._units, chosen, strict=True))
        return tuple(int(n) for n in np.asarray(total))

    def _branch(
        self, tables: Sequence[_Table], chosen: tuple[int, ...], left: Ints, cost_s: float
    ) -> _Branch:
        m = len(chosen)
        bounds_s = cost_s + self._llms[m].cost_s + tables[m + 1].at(left - self._units[m])
        return _Branch(chosen, left, cost_s, np.argsort(bounds_s, kind="stable"), bounds_s)

    def _tables(self, prices: Prices) -> list[_Table] | None:
        """(llms + 1,) least cost of the LLMs from m on; None where nothing fits."""
        rooms = len(self._budgets)
        tables = [_Table(np.zeros(rooms, dtype=np.int64), np.zeros((1,) * rooms))]
        base_s = 0.0
        for options, units in zip(reversed(self._llms), reversed(self._units), strict=True):
            base_s += float((options.cost_s + units @ prices.per_unit_s).min())
            table = _convolved(options, units, tables[-1], self._budgets)
            trimmed = self._trimmed(table, prices, base_s)
            if trimmed is None:
                return None
            tables.append(trimmed)
        return tables[::-1]

    def _trimmed(self, table: _Table, prices: Prices, base_s: float) -> _Table | None:
        """Without what is further above the least than the gap."""
        at_price_s = table.cost_s.copy()
        for axis, price_s in enumerate(prices.per_unit_s):
            units = table.low[axis] + np.arange(table.cost_s.shape[axis])
            shape = [1] * table.cost_s.ndim
            shape[axis] = -1
            at_price_s = at_price_s + price_s * units.reshape(shape)
        slop_s = _TOLERANCE * 1e2 * (abs(base_s) + abs(prices.bound_s))
        keep = at_price_s <= base_s + self._gap_s + slop_s
        if not keep.any():
            return None
        within = np.where(keep, table.cost_s, np.inf)
        low, slices = [], []
        for axis in range(keep.ndim):
            hit = np.flatnonzero(keep.any(axis=tuple(a for a in range(keep.ndim) if a != axis)))
            low.append(int(table.low[axis]) + int(hit[0]))
            slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
        return _Table(np.array(low), np.ascontiguousarray(within[tuple(slices)]))


def _vectors(options: Options, rooms: int) -> Ints:
    """(options, rooms) units that each takes of each room."""
    units = np.zeros((len(options), rooms), dtype=np.int64)
    units[np.arange(len(options)), options.room] = options.units
    return units


def _convolved(options: Options, units: Ints, rest: _Table, budgets: Ints) -> _Table:
    """Least cost of an LLM and those to come, by the units that they take together."""
    low = rest.low + units.min(axis=0)
    high = np.minimum(rest.low + rest.cost_s.shape - 1 + units.max(axis=0), budgets)
    shape = tuple(int(n) for n in np.maximum(high - low + 1, 0))
    cost_s = np.full(shape, np.inf)
    for cost, at in zip(options.cost_s, units, strict=True):
        start = rest.low + at - low
        sizes = np.minimum(np.asarray(rest.cost_s.shape), np.asarray(shape) - start)
        if (sizes <= 0).any():
            continue
        window = tuple(slice(int(a), int(a + n)) for a, n in zip(start, sizes, strict=True))
        part = tuple(slice(0, int(n)) for n in sizes)
        np.minimum(cost_s[window], cost + rest.cost_s[part], out=cost_s[window])
    return _Table(low, cost_s)


def _totals(table: _Table) -> tuple[Ints, Floats]:
    """(n, rooms) units in all and (n,) least cost there, by rising units."""
    at = np.argwhere(np.isfinite(table.cost_s))
    return at + table.low, table.cost_s[tuple(at.T)]


def allocation(llms: Sequence[Options], choice: Choice) -> Allocation:
    """A choice as the allocation it stands for."""
    return Allocation(
        tuple(options.group(at) for options, at in zip(llms, choice.options, strict=True))
    )
