"""A cluster as placement sees it: domains of numbered GPUs, each with some units free."""

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from scepsy.errors import InputError
from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuTypeName,
    NodeName,
    NvlinkDomain,
    RackName,
)
from scepsy.model.plan import Allocation

UNITS_PER_GPU = 10
"""GPUs are shared in tenths unless a caller says otherwise."""


@dataclass(frozen=True, slots=True, order=True)
class ReplicaShape:
    """What one replica takes: so many units of each of so many GPUs of one NVLink domain."""

    gpus: int
    units: int


State = tuple[int, ...]
"""How many GPUs of a domain have so many units free, from none to all."""


class Fit(NamedTuple):
    """What a domain is like once one more replica sits on it."""

    opened: int
    """GPUs that were untouched."""
    left: int
    """Units left beside it on its GPUs."""
    takes: tuple[int, ...]
    """GPUs that it takes of those with so many units free, from none to all."""
    after: State


@lru_cache(maxsize=1 << 16)
def fit(state: State, shape: ReplicaShape, *, loose: bool = False) -> Fit | None:
    """The tightest fit of a replica: GPUs with least left over first, untouched ones last.

    A loose fit takes the GPUs with most free first, so that replicas of many GPUs do not lie on
    top of each other. None where it does not fit.
    """
    takes, after = [0] * len(state), list(state)
    wanted, left = shape.gpus, 0
    levels = range(shape.units, len(state))
    for free in reversed(levels) if loose else levels:
        n = min(wanted, state[free])
        takes[free] = n
        after[free] -= n
        after[free - shape.units] += n
        left += n * (free - shape.units)
        wanted -= n
        if not wanted:
            return Fit(takes[-1], left, tuple(takes), tuple(after))
    return None


class Domain:
    """One NVLink domain and what is free on it. Mutable: packing takes units away."""

    def __init__(self, domain: NvlinkDomain, units_per_gpu: int) -> None:
        self.type = domain.type
        self.gpus = domain.gpus
        self.spans_nodes = len({gpu.node for gpu in domain.gpus}) > 1
        self._by_free: list[list[int]] = [[] for _ in range(units_per_gpu + 1)]
        self._by_free[-1] = list(range(len(domain.gpus)))
        self._free = [units_per_gpu] * len(domain.gpus)
        self._free_units = units_per_gpu * len(domain.gpus)
        self.state: State = (0,) * units_per_gpu + (len(domain.gpus),)
        self.share = 0
        """Units that all replicas on it have; 0 where none sits, or where they may differ."""

    @property
    def free_units(self) -> int:
        """Units free on all its GPUs."""
        return self._free_units

    @property
    def free(self) -> Sequence[int]:
        """Units free on each of its GPUs."""
        return self._free

    def choose(self, found: Fit) -> tuple[int, ...]:
        """The GPUs of a fit, by number: of those equally free the first."""
        return tuple(
            at for free, n in enumerate(found.takes) if n for at in self._by_free[free][:n]
        )

    def choose_among(
        self, shape: ReplicaShape, allowed: Set[int], *, loose: bool = False
    ) -> tuple[int, ...] | None:
        """The GPUs of a fit on some of them; None where it does not fit there."""
        levels = range(shape.units, len(self.state))
        fitting = [
            at
            for free in (reversed(levels) if loose else levels)
            for at in self._by_free[free]
            if at in allowed
        ]
        return tuple(fitting[: shape.gpus]) if len(fitting) >= shape.gpus else None

    def take(self, at: Iterable[int], units: int) -> None:
        """Take units of each of these GPUs."""
        for gpu in at:
            free = self._free[gpu]
            self._by_free[free].remove(gpu)
            insort(self._by_free[free - units], gpu)
            self._free[gpu] = free - units
            self._free_units -= units
        self.state = tuple(map(len, self._by_free))

    def used_units(self) -> Iterator[int]:
        """Units taken of each of its GPUs."""
        whole = len(self._by_free) - 1
        return (whole - free for free in self._free)


def domains(cluster: Cluster, units_per_gpu: int) -> list[Domain]:
    """The NVLink domains of a cluster with all units free, in the cluster's order."""
    return [Domain(d, units_per_gpu) for d in cluster.domains]


def fraction_units(gpu_fraction: float, units_per_gpu: int) -> int:
    """A fraction of a GPU in whole units.

    Raises:
        InputError: it is not a whole number of units.
    """
    units = round(gpu_fraction * units_per_gpu)
    if units < 1 or abs(units - gpu_fraction * units_per_gpu) > 1e-6:
        raise InputError(
            f"GPU fraction {gpu_fraction:g} is not a multiple of 1/{units_per_gpu}",
            hint=f"GPUs are shared in units of 1/{units_per_gpu}",
        )
    return units


def shapes(allocation: Allocation, units_per_gpu: int) -> list[tuple[ReplicaShape, int]]:
    """The shape of each group's replicas, and how many there are."""
    return [
        (
            ReplicaShape(group.tensor_parallel, fraction_units(group.gpu_fraction, units_per_gpu)),
            group.replicas,
        )
        for group in allocation.groups
    ]


def largest_domain(cluster: Cluster, gpu_type: GpuTypeName | None = None) -> int:
    """GPUs of the largest NVLink domain, of a type if one is given."""
    return max(len(d.gpus) for d in cluster.domains if gpu_type in {None, d.type})


def resized(cluster: Cluster, gpus: int) -> Cluster:
    """A cluster of so many GPUs of the same type, in domains as large as its largest.

    Raises:
        InputError: the cluster has several GPU types.
    """
    if len({gpu.type for gpu in cluster.gpus}) > 1:
        raise InputError("a cluster of several GPU types has no one shape to resize")
    size = largest_domain(cluster)
    kind = cluster.gpus[0].type
    return Cluster(
        tuple(
            Gpu(
                id=GpuId(f"node-{n // size}/gpu-{n % size}"),
                type=kind,
                node=NodeName(f"node-{n // size}"),
                domain=DomainName(f"node-{n // size}"),
                rack=RackName("rack-0"),
            )
            for n in range(gpus)
        ),
        cluster.types,
    )
