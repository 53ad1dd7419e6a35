"""Replicas of one GPU each, by filling one GPU after the other as full as can be.

The minimum bin slack heuristic [1]: where many small shards share GPUs it wastes less than placing
the largest first. An untouched GPU takes the largest shard that is left, then what fills it best.

[1] Gupta and Ho, A new heuristic algorithm for the one-dimensional bin-packing problem, 1999.
"""

from collections.abc import Sequence
from functools import lru_cache

from scepsy.place.attempt import Attempt, Group


def fill(attempt: Attempt, groups: Sequence[Group]) -> Group | None:
    """Place groups of replicas of one GPU; one whose replicas find no place, or None."""
    left: dict[int, list[Group]] = {}
    for group in groups:
        left.setdefault(group.shape.units, []).extend([group] * group.replicas)
    for number, at, room, whole in attempt.rooms():
        sizes = tuple(sorted((units for units, waiting in left.items() if waiting), reverse=True))
        if not sizes:
            return None
        first = sizes[0] if whole else 0
        most = [min(len(left[units]), room // units) - (units == first) for units in sizes]
        counts = fullest(room - first, sizes, tuple(most))
        for units, n in zip(sizes, counts, strict=True):
            for _ in range(n + (units == first)):
                attempt.place(left[units].pop(), number, (at,))
    return next((waiting[0] for waiting in left.values() if waiting), None)


@lru_cache(maxsize=1 << 14)
def fullest(room: int, sizes: tuple[int, ...], most: tuple[int, ...]) -> tuple[int, ...]:
    """How many of each size, up to so many, fill a room best: of the first as many as can be."""
    if not sizes:
        return ()
    best: tuple[int, ...] = ()
    filled = -1
    for n in range(min(most[0], room // sizes[0]), -1, -1):
        counts = (n, *fullest(room - n * sizes[0], sizes[1:], most[1:]))
        if (units := sum(a * b for a, b in zip(sizes, counts, strict=True))) > filled:
            best, filled = counts, units
        if filled == room:
            break
    return best
