"""The least-cost allocations within a budget, in order of cost, exactly.

LLMs share nothing but the budget of GPU units, so the least cost of several LLMs within u units
is the min-plus convolution of their frontiers. The tables that the convolution leaves behind say,
for any partial choice, what the rest costs at least, and that bound is reached. A best-first walk
guided by them meets complete allocations in order of cost and never turns back.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from scepsy.model.plan import Allocation
from scepsy.predict.surface import Floats, Ints
from scepsy.search.frontier import Options


@dataclass(frozen=True, slots=True)
class Choice:
    """One option for each LLM, and what they cost together."""

    options: tuple[int, ...]
    """Index into each LLM's options."""
    units: int
    cost_s: float


def least_cost_s(llms: Sequence[Options], budget_units: int) -> Floats:
    """(llms + 1, budget + 1): least cost of the LLMs from m on, within at most u units."""
    tables = np.full((len(llms) + 1, budget_units + 1), np.inf)
    tables[-1] = 0.0
    for m in range(len(llms) - 1, -1, -1):
        options, table, rest = llms[m], tables[m], tables[m + 1]
        for at in options.pareto():
            units = int(options.units[at])
            if units > budget_units:
                break
            within = table[units:]
            np.minimum(within, options.cost_s[at] + rest[: budget_units + 1 - units], out=within)
    return tables


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """A partial choice, and what the next LLM's options make of it, best first."""

    chosen: tuple[int, ...]
    units: int
    cost_s: float
    order: Ints
    bounds_s: Floats
    """(options of the next LLM,) least cost of a complete choice through each, unsorted."""


def choices(llms: Sequence[Options], budget_units: int) -> Iterator[Choice]:
    """Distinct choices that sustain the load within the budget, by rising cost; maybe none.

    Of equal costs, the choice with fewer units for the first LLM comes first, so that the order
    is the same in every run.
    """
    tables = least_cost_s(llms, budget_units)
    serial = count()
    heap: list[tuple[float, int, _Branch, int]] = []

    def push(branch: _Branch, rank: int) -> None:
        if rank < len(branch.order):
            bound_s = float(branch.bounds_s[branch.order[rank]])
            if bound_s < np.inf:
                heapq.heappush(heap, (bound_s, next(serial), branch, rank))

    push(_branch(llms, tables, (), 0, 0.0), 0)
    while heap:
        _, _, branch, rank = heapq.heappop(heap)
        push(branch, rank + 1)
        at = int(branch.order[rank])
        options = llms[len(branch.chosen)]
        chosen = (*branch.chosen, at)
        units = branch.units + int(options.units[at])
        cost_s = branch.cost_s + float(options.cost_s[at])
        if len(chosen) == len(llms):
            yield Choice(chosen, units, cost_s)
        else:
            push(_branch(llms, tables, chosen, units, cost_s), 0)


def _branch(
    llms: Sequence[Options], tables: Floats, chosen: tuple[int, ...], units: int, cost_s: float
) -> _Branch:
    options = llms[len(chosen)]
    left = tables.shape[1] - 1 - units
    rest = tables[len(chosen) + 1]
    bounds_s = np.full(len(options), np.inf)
    fits = options.units <= left
    bounds_s[fits] = cost_s + options.cost_s[fits] + rest[left - options.units[fits]]
    return _Branch(chosen, units, cost_s, np.argsort(bounds_s, kind="stable"), bounds_s)


def allocation(llms: Sequence[Options], choice: Choice) -> Allocation:
    """A choice as the allocation it stands for."""
    return Allocation(
        tuple(options.group(at) for options, at in zip(llms, choice.options, strict=True))
    )
