"""A cluster as placement sees it: domains of numbered GPUs, each with some units free."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from scepsy.errors import InputError
from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuTypeName,
    NodeName,
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


@dataclass(slots=True)
class Domain:
    """One NVLink domain and what is free on it. Mutable: packing takes units away."""

    type: GpuTypeName
    gpus: tuple[Gpu, ...]
    units_per_gpu: int
    free: list[int] = field(init=False)
    """Units free on each GPU."""

    def __post_init__(self) -> None:
        self.free = [self.units_per_gpu] * len(self.gpus)

    def fit(self, shape: ReplicaShape) -> tuple[int, ...] | None:
        """The GPUs that a replica fits on most tightly, touched ones first; None if it does not.

        GPUs with least left over come first; an untouched GPU is the last resort.
        """
        fitting = sorted((free, at) for at, free in enumerate(self.free) if free >= shape.units)
        if len(fitting) < shape.gpus:
            return None
        return tuple(at for _, at in fitting[: shape.gpus])

    def opened(self, at: Iterable[int]) -> int:
        """How many of these GPUs are untouched so far."""
        return sum(self.free[i] == self.units_per_gpu for i in at)

    def take(self, at: Iterable[int], units: int) -> None:
        """Take units of each of these GPUs."""
        for i in at:
            self.free[i] -= units


def domains(cluster: Cluster, units_per_gpu: int) -> list[Domain]:
    """The NVLink domains of a cluster with all units free, in the cluster's order."""
    return [Domain(d.type, d.gpus, units_per_gpu) for d in cluster.domains]


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


def shapes(allocation: Allocation, units_per_gpu: int) -> list[ReplicaShape]:
    """The shape of every replica of an allocation, group by group."""
    return [
        ReplicaShape(group.tensor_parallel, fraction_units(group.gpu_fraction, units_per_gpu))
        for group in allocation.groups
        for _ in range(group.replicas)
    ]


def largest_domain(cluster: Cluster) -> int:
    """GPUs of the largest NVLink domain."""
    return max(len(domain.gpus) for domain in cluster.domains)


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
