"""The published Scepsy's search for one workflow: GPUs for each LLM, pruned by latency share.

Of all allocations that its pruning leaves it finds the best one for every budget at once, by
dynamic programming; the published search enumerates them. See
``docs/reference/baselines/published.md``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from scepsy.model.plan import ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.topology import UNITS_PER_GPU
from scepsy.sim.baselines.ratings import Rated, Ratings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_FINE_GPUS = 8
"""GPUs up to which an LLM's amount goes in tenths; beyond, in whole GPUs."""


class Goal(Enum):
    """What is made small."""

    LATENCY = "least latency"
    """The sum of the LLMs' parts of the mean execution latency, all loads sustained."""
    UTILIZATION = "most throughput"
    """The utilization of the fullest LLM, where not all loads can be sustained."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read what the publication leaves open."""

    any_shape: bool
    """How an amount becomes replicas. Any that come to it; or, as whole GPUs from 1 GPU on, and
    below as one replica on part of one GPU."""
    beyond_least: bool
    """What an LLM of larger latency share gets at least as much of: all; or what LLMs get beyond
    the least that holds them."""

    def __str__(self) -> str:
        shape = "any shape" if self.any_shape else "whole GPUs or part of one"
        return f"{shape}, order by {'what is beyond the least' if self.beyond_least else 'all'}"


READINGS = tuple(Reading(shape, least) for shape in (False, True) for least in (False, True))


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """The amounts that one LLM may have, each with the best of its shapes."""

    units: Ints
    """(amounts,) tenths of GPUs, rising."""
    value: Floats
    """(amounts,) of the goal."""
    rated: tuple[Rated, ...]
    """(amounts,)."""


def offers(ratings: Ratings, llm: LlmName, gpus: int, goal: Goal, reading: Reading) -> Offers:
    """What each amount up to so many GPUs could be, where no part of it is wasted."""
    fine = range(1, min(gpus, _FINE_GPUS) * UNITS_PER_GPU + 1)
    whole = range((_FINE_GPUS + 1) * UNITS_PER_GPU, gpus * UNITS_PER_GPU + 1, UNITS_PER_GPU)
    found: list[tuple[int, float, Rated]] = []
    for units in (*fine, *whole):
        shapes = [(_value(one, goal), one) for one in _shapes(ratings, llm, units, reading)]
        value, best = min(shapes, key=lambda pair: pair[0], default=(np.inf, None))
        if best is not None and value < np.inf:
            found.append((units, value, best))
    return Offers(
        np.array([units for units, _, _ in found], dtype=np.int64),
        np.array([value for _, value, _ in found]),
        tuple(rated for _, _, rated in found),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """The best allocation of one workflow for every budget up to the GPUs there are."""

    value: Floats
    """(budget in tenths of GPUs + 1,) of the goal; infinite where there is none."""
    chosen: Callable[[int], tuple[ReplicaGroup, ...]]
    """The groups for a budget that has an allocation."""


def search(
    ratings: Ratings, shares: Mapping[LlmName, float], gpus: int, goal: Goal, reading: Reading
) -> Searched:
    """The best allocations in which an LLM of larger latency share never gets less.

    Args:
        ratings: of the workflow's LLMs under its load.
        shares: each LLM's part of an execution's LLM time.
        gpus: those there are.
        goal: what is made small.
        reading: of the publication.
    """
    budget = gpus * UNITS_PER_GPU
    order = sorted(ratings.llms, key=lambda llm: (shares[llm], llm))  # the least share first
    each = [offers(ratings, llm, gpus, goal, reading) for llm in order]
    if not all(len(own.units) for own in each):
        return Searched(np.full(budget + 1, np.inf), lambda _: ())
    ranks = [own.units - own.units[0] if reading.beyond_least else own.units for own in each]
    # best[a, b]: of the LLMs so far, the last one with at most its amount a, within budget b
    best, rank = np.zeros((1, budget + 1)), np.zeros(1, dtype=np.int64)
    tables: list[tuple[Ints, npt.NDArray[np.int32]]] = []
    for own, own_rank in zip(each, ranks, strict=True):
        below = np.searchsorted(rank, own_rank, side="right") - 1
        best, last = _running_min(_with_one_more(best, below, own, goal))
        rank = own_rank
        tables.append((below, last))

    def chosen(units: int) -> tuple[ReplicaGroup, ...]:
        groups: list[ReplicaGroup] = []
        row = len(rank) - 1
        for own, (below, last) in zip(reversed(each), reversed(tables), strict=True):
            at = int(last[row, units])
            groups.append(own.rated[at].group)
            units -= int(own.units[at])
            row = int(below[at])
        return tuple(groups)

    return Searched(best[-1], chosen)


def _with_one_more(best: Floats, below: Ints, own: Offers, goal: Goal) -> Floats:
    """(amounts, budgets) the value with one LLM more that has exactly the amount."""
    now = np.full((len(own.units), best.shape[1]), np.inf)
    for at, (row, units) in enumerate(zip(below, own.units, strict=True)):
        if row >= 0:
            before = best[row, : best.shape[1] - units]
            value = own.value[at]
            together = before + value if goal is Goal.LATENCY else np.maximum(before, value)
            now[at, units:] = together
    return now


def _running_min(rows: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
    """The minimum over rows up to each one, and which row it is from.

    Of equal ones the last: what does not help the goal is given to the LLM rather than to none.
    """
    best = np.minimum.accumulate(rows, axis=0)
    numbers = np.arange(len(rows), dtype=np.int32)[:, None]
    return best, np.maximum.accumulate(np.where(rows == best, numbers, 0), axis=0)


def _value(rated: Rated, goal: Goal) -> float:
    return rated.cost_s if goal is Goal.LATENCY else rated.utilization


def _shapes(ratings: Ratings, llm: LlmName, units: int, reading: Reading) -> Iterator[Rated]:
    """The groups that come to an amount."""
    large = units > _FINE_GPUS * UNITS_PER_GPU
    for degree, fraction in ratings.shapes(llm):
        replicas, over = divmod(units, degree * round(fraction * UNITS_PER_GPU))
        part_of_one = degree == replicas == 1
        if over or not replicas:
            continue
        if fraction < 1 and (large or not (reading.any_shape or part_of_one)):
            continue
        rated = ratings.rated(llm, (degree, fraction), replicas)
        if rated is not None:
            yield rated
