"""LLMs colocated on meshes of GPUs by their popularity and computation, as in MuxServe.

See ``docs/reference/baselines/muxserve.md``.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement

from scepsy.sim.baselines.base import System, Task, fixed_system, is_placeable
from scepsy.sim.baselines.ratings import Offer, Ratings, shortlist
from scepsy.sim.baselines.units import Meshes, place_units

NAME = "muxserve"
MOST = 4
"""Systems of most throughput that are simulated, and of least latency."""
_KEPT = 12
"""Mesh groups of most throughput that are looked at closely."""
_ALL_COMBINATIONS = 2
"""Blocks up to which each may be cut in its own way."""
_STEPS_PER_OCTAVE = 2
_OCTAVES = (-4, 6)
"""Loads that are tried, as powers of 2 of the one there is."""


def muxserve_systems(task: Task) -> tuple[System, ...]:
    """Units on the mesh groups that serve most, and on those where calls are fastest."""
    ratings = Ratings(task)
    groups = sorted(
        ((headroom(ratings, meshes), meshes) for meshes in mesh_groups(task, ratings)),
        key=lambda pair: -pair[0],
    )
    offers = []
    for most, meshes in groups[:_KEPT]:
        for scale in sorted({most, most**0.5, 1.0} if most > 1 else {most, 1.0}):
            units = place_units(ratings, Meshes(meshes), scale, to_the_full=True) if scale else None
            if units is not None:
                offers.append(Offer(units.placed, _note(meshes)))
    return tuple(
        fixed_system(task, NAME, offer.allocation, note=offer.note)
        for offer in shortlist(offers, MOST)
        if is_placeable(offer.allocation, task.cluster)
    )


def _note(meshes: Sequence[int]) -> str:
    sizes = [f"{meshes.count(n)} x {n}" for n in sorted(set(meshes), reverse=True)]
    return f"meshes of {' + '.join(sizes)} GPUs"


def headroom(ratings: Ratings, meshes: Sequence[int]) -> float:
    """The largest load, as a multiple of the one there is, that units on meshes serve; or 0."""
    low, high = (octave * _STEPS_PER_OCTAVE for octave in _OCTAVES)
    low -= 1
    while high - low > 1:
        middle = (low + high) // 2
        units = place_units(ratings, Meshes(meshes), 2 ** (middle / _STEPS_PER_OCTAVE))
        if units is not None and units.serves_all:
            low = middle
        else:
            high = middle
    return 2 ** (low / _STEPS_PER_OCTAVE) if low >= _OCTAVES[0] * _STEPS_PER_OCTAVE else 0.0


def mesh_groups(task: Task, ratings: Ratings) -> Iterator[tuple[int, ...]]:
    """Ways to cut the NVLink domains into meshes, each as sizes by falling size.

    Of more blocks than a few, all are cut alike, or half of them, or all but one in eight, in one
    way and the rest in another.
    """
    degrees = sorted({degree for llm in ratings.llms for degree, _ in ratings.shapes(llm)})
    if not degrees:
        return
    blocks = [
        size for domain in task.cluster.domains for size in _blocks(len(domain.gpus), degrees[-1])
    ]
    whole = max(blocks)
    patterns = list(partitions(whole, degrees))
    seen = set()
    for mix in _mixes(patterns, len(blocks)):
        meshes = [
            size
            for pattern, block in zip(mix, blocks, strict=True)
            for size in (pattern if block == whole else _cut(block, pattern, degrees))
        ]
        group = tuple(sorted(meshes, reverse=True))
        if group not in seen:
            seen.add(group)
            yield group


def partitions(gpus: int, sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All ways to cut GPUs into meshes of some sizes, the largest first; as few idle as can be."""
    if gpus < min(sizes):
        yield ()
    for size in sizes:
        if size <= gpus:
            smaller = [other for other in sizes if other <= size]
            yield from ((size, *rest) for rest in partitions(gpus - size, smaller))


def _blocks(gpus: int, widest: int) -> list[int]:
    over = gpus % widest
    return [widest] * (gpus // widest) + ([over] if over else [])


def _cut(gpus: int, pattern: Sequence[int], degrees: Sequence[int]) -> list[int]:
    """A smaller block, cut as much alike as may be."""
    meshes = []
    for size in (*sorted(set(pattern), reverse=True), *reversed(degrees)):
        meshes += [size] * (gpus // size)
        gpus %= size
    return meshes


_Pattern = tuple[int, ...]


def _mixes(patterns: Sequence[_Pattern], blocks: int) -> Iterator[Sequence[_Pattern]]:
    """Which pattern each block is cut by."""
    if blocks <= _ALL_COMBINATIONS:
        yield from combinations_with_replacement(patterns, blocks)
        return
    for pattern in patterns:
        yield [pattern] * blocks
    few = max(1, blocks // 8)
    for one, other in combinations(patterns, 2):
        for ones in (few, blocks // 2, blocks - few):
            yield [one] * ones + [other] * (blocks - ones)
