"""``cluster.yaml``: what there is to run on, written by a person.

    nodes:
      - gpu: h100
        gpus: 8
        count: 2

See ``docs/guides/plan.md`` for every key.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from scepsy.errors import InputError
from scepsy.files.strict_yaml import load_yaml
from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuType,
    GpuTypeName,
    NodeName,
    RackName,
)
from scepsy.units import GIB

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _GpuTypeEntry(BaseModel):
    """A GPU type that Scepsy does not know by itself."""

    model_config = _STRICT
    name: _Name
    memory_gib: Annotated[float, Field(gt=0)]


class _NodeEntry(BaseModel):
    """Some equal nodes."""

    model_config = _STRICT
    gpu: _Name
    """Type of all its GPUs."""
    gpus: Annotated[int, Field(ge=1)]
    """GPUs on each node."""
    count: Annotated[int, Field(ge=1)] = 1
    name: _Name = "node"
    """Each node is called this and a number."""
    rack: _Name = "rack-0"
    gpus_per_nvlink_domain: Annotated[int, Field(ge=1)] | None = None
    """All GPUs of a node when None. A multiple of ``gpus`` joins nodes, as in rack-scale NVLink."""


class _ClusterFile(BaseModel):
    model_config = _STRICT
    nodes: Annotated[list[_NodeEntry], Field(min_length=1)]
    gpu_types: list[_GpuTypeEntry] = Field(default_factory=list)
    prices_per_hour: dict[_Name, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of one GPU, by type, in any one currency."""


def load_cluster(path: Path, find_gpu_type: Callable[[str], GpuType]) -> Cluster:
    """Read a cluster file.

    Args:
        path: the file.
        find_gpu_type: gives the types that the file does not describe itself.

    Raises:
        MissingError: there is no such file.
        InputError: it is not YAML, has an unknown key, a count below 1 or a GPU type that
            nobody knows; with the line and key.
    """
    content = load_yaml(path, _ClusterFile, what="cluster file")
    own = {
        entry.name: GpuType(
            name=GpuTypeName(entry.name), memory_bytes=round(entry.memory_gib * GIB)
        )
        for entry in content.gpu_types
    }
    try:
        types = {e.gpu: own.get(e.gpu) or find_gpu_type(e.gpu) for e in content.nodes}
    except InputError as error:
        raise InputError(
            f"{path}: {error}",
            hint=f"{error.hint}; or describe it under `gpu_types` with `name` and `memory_gib`",
        ) from None
    if idle := sorted(content.prices_per_hour.keys() - types.keys()):
        raise InputError(
            f"{path}: `prices_per_hour` names GPU types that no node has: {', '.join(idle)}",
            hint=f"nodes have: {', '.join(sorted(types))}",
        )
    gpus = _gpus(path, content, types)
    priced = {
        t.name: replace(t, price_per_hour=content.prices_per_hour.get(given))
        for given, t in types.items()
    }
    return Cluster(gpus, tuple(priced.values()))


def _gpus(path: Path, content: _ClusterFile, types: Mapping[str, GpuType]) -> tuple[Gpu, ...]:
    gpus: list[Gpu] = []
    numbers: dict[str, count[int]] = {}
    for at, entry in enumerate(content.nodes):
        size = entry.gpus_per_nvlink_domain or entry.gpus
        if entry.gpus % size and size % entry.gpus:
            raise InputError(
                f"{path}: `nodes[{at}].gpus_per_nvlink_domain` is {size}, which neither divides "
                f"the node's {entry.gpus} GPUs nor is a multiple of them",
                hint="leave it out if each node is one NVLink domain",
            )
        if entry.gpus * entry.count % size:
            raise InputError(
                f"{path}: `nodes[{at}]` has {entry.gpus * entry.count} GPUs, which do not fill "
                f"NVLink domains of {size}"
            )
        number = numbers.setdefault(entry.name, count())
        names = [NodeName(f"{entry.name}-{next(number)}") for _ in range(entry.count)]
        gpus.extend(_entry_gpus(entry, names, size, types[entry.gpu].name))
    return tuple(gpus)


def _entry_gpus(
    entry: _NodeEntry, nodes: list[NodeName], domain_size: int, gpu_type: GpuTypeName
) -> list[Gpu]:
    """GPUs of equal nodes; a domain is called by its first node, and its part of it if smaller."""
    gpus = []
    for n in range(entry.gpus * len(nodes)):
        node, first = nodes[n // entry.gpus], n - n % domain_size
        domain = str(nodes[first // entry.gpus])
        if domain_size < entry.gpus:
            domain += f"/nvlink-{first % entry.gpus // domain_size}"
        gpus.append(
            Gpu(
                id=GpuId(f"{node}/gpu-{n % entry.gpus}"),
                type=gpu_type,
                node=node,
                domain=DomainName(domain),
                rack=RackName(entry.rack),
            )
        )
    return gpus
