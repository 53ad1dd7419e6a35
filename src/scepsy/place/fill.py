"""Replicas of one GPU each, by filling one GPU after the other as full as can be.

The minimum bin slack heuristic [1]: where many small shards share GPUs it wastes less than placing
the largest first. An untouched GPU takes the largest shard that is left, then what fills it best.

[1] Gupta and Ho, A new heuristic algorithm for the one-dimensional bin-packing problem, 1999.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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


def fill_domain(attempt: Attempt, groups: Sequence[Group], gpus: int) -> bool:
    """Place groups on the one domain of an attempt, its GPUs filled with shards of all replicas.

    A replica with as many shards left as there are GPUs left has one on each of them.
    """
    waiting = [
        _Shards(group, group.shape.gpus, []) for group in groups for _ in range(group.replicas)
    ]
    whole = attempt.domain(0).free_units // gpus
    for gpu in range(gpus):
        waiting.sort(key=lambda one: (-one.group.shape.units, -one.left))
        forced = [one for one in waiting if one.left == gpus - gpu]
        room = whole - sum(one.group.shape.units for one in forced)
        others = [one for one in waiting if 0 < one.left < gpus - gpu]
        if room < 0 or len(forced) + len(others) < sum(one.left > 0 for one in waiting):
            return False
        by_units = Counter(one.group.shape.units for one in others)
        sizes = tuple(by_units)
        counts = dict(
            zip(
                sizes,
                fullest(room, sizes, tuple(min(by_units[u], room // u) for u in sizes)),
                strict=True,
            )
        )
        for one in others:
            if counts[one.group.shape.units]:
                counts[one.group.shape.units] -= 1
                forced.append(one)
        for one in forced:
            one.left -= 1
            one.at.append(gpu)
    if any(one.left for one in waiting):
        return False
    for one in waiting:
        attempt.place(one.group, 0, tuple(one.at))
    return True


@dataclass(slots=True)
class _Shards:
    """A replica and its shards that are still to be placed. Mutable."""

    group: Group
    left: int
    at: list[int]


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
