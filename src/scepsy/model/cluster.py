"""What there is to run on: GPUs, who reaches whom at NVLink speed, and who fails together."""

from collections import Counter
from dataclasses import dataclass
from typing import NewType

from scepsy.errors import InputError

GpuId = NewType("GpuId", str)
NodeName = NewType("NodeName", str)
DomainName = NewType("DomainName", str)
RackName = NewType("RackName", str)
GpuTypeName = NewType("GpuTypeName", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """A GPU model and form."""

    name: GpuTypeName
    memory_bytes: int
    price_per_hour: float | None = None
    """Of one GPU, in any currency; None where it plays no part."""

    def __post_init__(self) -> None:
        if self.memory_bytes <= 0:
            raise InputError(f"GPU type {self.name}: memory must be > 0 bytes")
        if self.price_per_hour is not None and not 0 < self.price_per_hour < float("inf"):
            raise InputError(f"GPU type {self.name}: the price must be > 0 per hour")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU and where it sits."""

    id: GpuId
    type: GpuTypeName
    node: NodeName
    domain: DomainName
    rack: RackName


@dataclass(frozen=True, slots=True)
class NvlinkDomain:
    """GPUs that reach each other at NVLink speed: a pair, a node, or a rack."""

    name: DomainName
    type: GpuTypeName
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Cluster:
    """All GPUs, in a fixed order, with the types they are of."""

    gpus: tuple[Gpu, ...]
    types: tuple[GpuType, ...]

    def __post_init__(self) -> None:
        if not self.gpus:
            raise InputError("the cluster has no GPUs")
        if twice := [gpu for gpu, n in Counter(g.id for g in self.gpus).items() if n > 1]:
            raise InputError(f"GPU ids appear twice: {', '.join(sorted(twice))}")
        if unknown := {g.type for g in self.gpus} - {t.name for t in self.types}:
            raise InputError(f"GPU types are not described: {', '.join(sorted(unknown))}")
        if mixed := [d.name for d in self.domains if len({g.type for g in d.gpus}) > 1]:
            raise InputError(f"NVLink domains mix GPU types: {', '.join(sorted(mixed))}")

    @property
    def domains(self) -> tuple[NvlinkDomain, ...]:
        """The NVLink domains, in the order of their first GPU."""
        members: dict[DomainName, list[Gpu]] = {}
        for gpu in self.gpus:
            members.setdefault(gpu.domain, []).append(gpu)
        return tuple(NvlinkDomain(name, g[0].type, tuple(g)) for name, g in members.items())

    def gpu_type(self, name: GpuTypeName) -> GpuType:
        """The type of that name, which the cluster must have."""
        return next(t for t in self.types if t.name == name)


def regular_cluster(
    gpu_type: GpuType, *, nodes: int, gpus_per_node: int, nodes_per_rack: int = 8
) -> Cluster:
    """Equal nodes, each one NVLink domain, filled into racks."""
    if nodes < 1 or gpus_per_node < 1 or nodes_per_rack < 1:
        raise InputError(
            f"a cluster needs at least 1 node with 1 GPU, got {nodes} x {gpus_per_node}"
        )
    gpus = tuple(
        Gpu(
            id=GpuId(f"node-{n}/gpu-{g}"),
            type=gpu_type.name,
            node=NodeName(f"node-{n}"),
            domain=DomainName(f"node-{n}"),
            rack=RackName(f"rack-{n // nodes_per_rack}"),
        )
        for n in range(nodes)
        for g in range(gpus_per_node)
    )
    return Cluster(gpus, (gpu_type,))
