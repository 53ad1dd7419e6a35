"""Repacking one, two or three NVLink domains at a time, so that together they touch one GPU fewer.

One pass over all replicas decides early where wide ones sit, and how many GPUs of each domain are
touched. Here both are open again for these domains.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scepsy.model.cluster import Cluster, Gpu, GpuId, NvlinkDomain
from scepsy.model.workflow import LlmName
from scepsy.place.attempt import Attempt, Group
from scepsy.place.bounds import least_gpus
from scepsy.place.topology import ReplicaShape

Where = Mapping[LlmName, Sequence[tuple[GpuId, ...]]]
Squeeze = Callable[[Sequence[Group], Cluster], Attempt | None]
"""Groups on all of a small cluster's GPUs, or None."""

_REPLICAS_TRIED = 1000
"""Each in up to a dozen ways: what bounds the time."""
_DOMAINS_TRIED = 16
"""Those with most units free on GPUs that are touched."""
_AT_ONCE = (1, 2, 3)
"""Domains that are repacked together."""


@dataclass(slots=True)
class _Held:
    """A domain and what is on it. Mutable."""

    domain: NvlinkDomain
    replicas: list[tuple[LlmName, tuple[GpuId, ...]]]

    @property
    def touched(self) -> int:
        return len({gpu for _, gpus in self.replicas for gpu in gpus})


class Merge:
    """Repacking until nothing more is found, the bound is reached, or the time is up."""

    def __init__(
        self,
        groups: Sequence[Group],
        cluster: Cluster,
        units_per_gpu: int,
        squeeze: Squeeze,
        where: Where,
    ) -> None:
        self._groups = {group.llm: group for group in groups}
        self._cluster = cluster
        self._units_per_gpu = units_per_gpu
        self._squeeze = squeeze
        self._left = _REPLICAS_TRIED
        self._vain: set[tuple[object, ...]] = set()
        self._held = [_Held(domain, []) for domain in cluster.domains]
        self._number = {gpu.id: n for n, d in enumerate(cluster.domains) for gpu in d.gpus}
        for llm, replicas in where.items():
            for gpus in replicas:
                self._held[self._number[gpus[0]]].replicas.append((llm, gpus))

    def run(self, bound: int) -> Where | None:
        """Where the replicas are when fewer GPUs are touched; None where that was not found."""
        touched = sum(held.touched for held in self._held)
        found = False
        while touched > bound and self._one_fewer():
            touched -= 1
            found = True
        if not found:
            return None
        where: dict[LlmName, list[tuple[GpuId, ...]]] = {}
        for held in self._held:
            for llm, gpus in held.replicas:
                where.setdefault(llm, []).append(gpus)
        return where

    def _one_fewer(self) -> bool:
        used = [held for held in self._held if held.replicas]
        empty = [held for held in self._held if not held.replicas]
        used.sort(key=self._free_units, reverse=True)
        wasteful = used[:_DOMAINS_TRIED] + empty[:1]
        for size in _AT_ONCE:
            for some in combinations(wasteful, size):
                if self._left <= 0:
                    return False
                if self._repack(some):
                    return True
        return False

    def _free_units(self, held: _Held) -> int:
        """On the GPUs of a domain that are touched."""
        taken = sum(self._groups[llm].shape.units * len(gpus) for llm, gpus in held.replicas)
        return held.touched * self._units_per_gpu - taken

    def _repack(self, some: Sequence[_Held]) -> bool:
        """Let some domains touch one GPU fewer, if that can be found."""
        gpus = sum(held.touched for held in some) - 1
        if sum(map(self._free_units, some)) < self._units_per_gpu:
            return False
        counts = Counter(llm for held in some for llm, _ in held.replicas)
        shapes: Counter[ReplicaShape] = Counter()
        for llm, n in counts.items():
            shapes[self._groups[llm].shape] += n
        same = (gpus, tuple(sorted(len(h.domain.gpus) for h in some)), frozenset(shapes.items()))
        if same in self._vain or least_gpus(list(shapes.items()), self._units_per_gpu) > gpus:
            return False
        self._vain.add(same)
        groups = [
            Group(llm, self._groups[llm].type, self._groups[llm].shape, n)
            for llm, n in sorted(counts.items())
        ]
        for offered in _offers([held.domain.gpus for held in some], gpus):
            self._left -= counts.total()
            if (
                attempt := self._squeeze(groups, Cluster(offered, self._cluster.types))
            ) is not None:
                self._take(some, groups, attempt)
                return True
            if self._left <= 0:
                break
        return False

    def _take(self, some: Sequence[_Held], groups: Sequence[Group], attempt: Attempt) -> None:
        for held in some:
            held.replicas.clear()
        for group in groups:
            for gpus in attempt.gpus(group.llm):
                self._held[self._number[gpus[0]]].replicas.append((group.llm, gpus))


def _offers(domains: Sequence[tuple[Gpu, ...]], gpus: int) -> Iterator[tuple[Gpu, ...]]:
    """The first GPUs of some domains, so many in all, divided in each way (of equal sizes one)."""
    seen: set[tuple[tuple[int, int], ...]] = set()
    for parts in _parts([len(domain) for domain in domains], gpus):
        alike = tuple(sorted((len(d), n) for d, n in zip(domains, parts, strict=True)))
        if alike not in seen:
            seen.add(alike)
            yield tuple(g for d, n in zip(domains, parts, strict=True) for g in d[:n])


def _parts(most: Sequence[int], total: int) -> Iterator[tuple[int, ...]]:
    """The ways to divide a number into parts of at most so much each."""
    if len(most) == 1:
        if total <= most[0]:
            yield (total,)
        return
    for first in range(min(most[0], total), -1, -1):
        for rest in _parts(most[1:], total - first):
            yield (first, *rest)
