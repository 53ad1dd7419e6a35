"""MuxServe's units: LLMs placed one after the other on meshes, where they add most throughput."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from scepsy.model.workflow import LlmName
from scepsy.place.topology import UNITS_PER_GPU
from scepsy.sim.baselines.ratings import Rated, Ratings, computation

_Kind = tuple[int, int, frozenset[LlmName]]
"""Meshes alike: GPUs, tenths free of each of them, and the LLMs on them."""


class Meshes:
    """What is free on the meshes of a group; a copy of an LLM takes as much of all its GPUs."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """All free; the GPUs of each."""
        self._kinds: Counter[_Kind] = Counter((size, UNITS_PER_GPU, frozenset()) for size in sizes)

    @property
    def sizes(self) -> list[int]:
        """GPUs of the meshes there are, rising."""
        return sorted({size for size, _, _ in self._kinds})

    @property
    def free_units(self) -> int:
        """Tenths of GPUs that nobody has."""
        return sum(size * free * n for (size, free, _), n in self._kinds.items())

    def room(self, llm: LlmName, size: int, units: int) -> int:
        """Copies of an LLM that find so many units of such a mesh, each on another one."""
        return sum(
            n
            for (gpus, free, llms), n in self._kinds.items()
            if gpus == size and free >= units and llm not in llms
        )

    def take(self, llm: LlmName, size: int, units: int, copies: int) -> None:
        """Put copies of an LLM, for which there is room, where most is free."""
        fitting = [
            kind
            for kind in self._kinds
            if kind[0] == size and kind[1] >= units and llm not in kind[2]
        ]
        for kind in sorted(fitting, key=lambda kind: (-kind[1], sorted(kind[2]))):
            n = min(copies, self._kinds[kind])
            self._move(kind, (size, kind[1] - units, kind[2] | {llm}), n)
            copies -= n

    def widen(self, llm: LlmName, units: int) -> bool:
        """Give all copies of an LLM so many units more; False, and nothing, if one has no room."""
        own = [kind for kind in self._kinds if llm in kind[2]]
        if any(free < units for _, free, _ in own):
            return False
        counts = [(kind, self._kinds[kind]) for kind in sorted(own, key=lambda kind: kind[1])]
        for kind, n in counts:
            self._move(kind, (kind[0], kind[1] - units, kind[2]), n)
        return True

    def _move(self, old: _Kind, new: _Kind, n: int) -> None:
        if n:
            self._kinds[old] -= n
            if not self._kinds[old]:
                del self._kinds[old]
            self._kinds[new] += n


@dataclass(frozen=True, slots=True)
class Units:
    """Where all LLMs ended up."""

    placed: tuple[Rated, ...]
    """Each LLM's copies."""
    scale: float
    """The load that they were placed for, over the one there is."""

    @property
    def utilization(self) -> float:
        """Of the fullest LLM, at the load there is."""
        return max(rated.utilization for rated in self.placed)

    @property
    def serves_all(self) -> bool:
        """Whether the load that they were placed for is sustained."""
        return self.utilization * self.scale < 1


def place_units(
    ratings: Ratings, meshes: Meshes, scale: float, *, to_the_full: bool = False
) -> Units | None:
    """Place LLMs, those with most to compute first, each where it adds most throughput.

    Args:
        ratings: of the LLMs under their load.
        meshes: all free; what is placed is taken from them.
        scale: the load to place for, over the one there is.
        to_the_full: give away what is left then.

    Returns:
        None where an LLM finds no place.
    """
    placed: dict[LlmName, Rated] = {}
    for llm in sorted(ratings.llms, key=lambda llm: (-computation(ratings, llm), llm)):
        best = min(
            (_on_size(ratings, meshes, llm, size, scale) for size in meshes.sizes),
            key=lambda pair: pair[0],
            default=(_NOWHERE, None),
        )[1]
        if best is None:
            return None
        group = best.group
        units = round(group.gpu_fraction * UNITS_PER_GPU)
        meshes.take(llm, group.tensor_parallel, units, group.replicas)
        placed[llm] = best
    if to_the_full:
        _give_away(ratings, meshes, placed)
    return Units(tuple(placed.values()), scale)


_Worth = tuple[float, float, int]
"""Less throughput, more GPUs, larger meshes are worse."""
_NOWHERE: _Worth = (inf, inf, 0)


def _on_size(
    ratings: Ratings, meshes: Meshes, llm: LlmName, size: int, scale: float
) -> tuple[_Worth, Rated | None]:
    """The copies and the share that an LLM would have on meshes of one size.

    The fewest copies that sustain the load, each with the least share that will do; where none
    do, what comes closest.
    """
    enough: list[tuple[tuple[int, float], Rated]] = []
    short: list[Rated] = []
    for fraction in _fractions(ratings, llm, size):
        room = meshes.room(llm, size, round(fraction * UNITS_PER_GPU))
        if not room:
            continue
        rated = _fewest(ratings, llm, (size, fraction), room, scale)
        if rated is None:
            continue
        if rated.utilization * scale < 1:
            enough.append(((rated.group.replicas, fraction), rated))
        else:
            short.append(rated)
    if enough:
        best = min(enough, key=lambda pair: pair[0])[1]
    elif short:
        best = min(short, key=lambda one: one.utilization)
    else:
        return _NOWHERE, None
    served = min(scale, 1 / best.utilization) if best.utilization > 0 else scale
    return (-served, best.group.gpus, size), best


def _fewest(
    ratings: Ratings, llm: LlmName, shape: tuple[int, float], room: int, scale: float
) -> Rated | None:
    """The fewest copies within the room that sustain the load, or as many as there is room for."""
    low, high = 0, room
    while high - low > 1:
        middle = (low + high) // 2
        rated = ratings.rated(llm, shape, middle)
        if rated is not None and rated.utilization * scale < 1:
            high = middle
        else:
            low = middle
    return ratings.rated(llm, shape, high)


def _fractions(ratings: Ratings, llm: LlmName, size: int) -> Iterator[float]:
    return (fraction for degree, fraction in ratings.shapes(llm) if degree == size)


def _give_away(ratings: Ratings, meshes: Meshes, placed: dict[LlmName, Rated]) -> None:
    """More copies, then larger shares, one at a time for the LLM that is used most."""
    for grown in (_one_copy_more, _next_share):
        able = set(placed)
        while able:
            llm = max(sorted(able), key=lambda llm: placed[llm].utilization)
            more = grown(ratings, meshes, placed[llm])
            if more is None:
                able.remove(llm)
            else:
                placed[llm] = more


def _one_copy_more(ratings: Ratings, meshes: Meshes, rated: Rated) -> Rated | None:
    group = rated.group
    size, units = group.tensor_parallel, round(group.gpu_fraction * UNITS_PER_GPU)
    if not meshes.room(group.llm, size, units):
        return None
    meshes.take(group.llm, size, units, 1)
    return ratings.rated(group.llm, (size, group.gpu_fraction), group.replicas + 1)


def _next_share(ratings: Ratings, meshes: Meshes, rated: Rated) -> Rated | None:
    group = rated.group
    size, share = group.tensor_parallel, group.gpu_fraction
    for wider in _fractions(ratings, group.llm, size):
        units = round((wider - share) * UNITS_PER_GPU)
        if units > 0:
            more = ratings.rated(group.llm, (size, wider), group.replicas)
            return more if more is not None and meshes.widen(group.llm, units) else None
    return None
