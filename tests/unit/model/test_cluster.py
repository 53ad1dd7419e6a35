"""Clusters: domains and types are consistent, or refused."""

from dataclasses import replace

import pytest

from scepsy.errors import InputError
from scepsy.model.cluster import Cluster, GpuType, GpuTypeName, regular_cluster
from scepsy.units import GIB

H100 = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * GIB)
A100 = GpuType(name=GpuTypeName("a100"), memory_bytes=40 * GIB)


def test_each_node_of_a_regular_cluster_is_one_domain() -> None:
    cluster = regular_cluster(H100, nodes=3, gpus_per_node=8, nodes_per_rack=2)
    assert [(d.name, len(d.gpus), d.type) for d in cluster.domains] == [
        ("node-0", 8, "h100"),
        ("node-1", 8, "h100"),
        ("node-2", 8, "h100"),
    ]
    assert [gpu.rack for gpu in cluster.gpus[::8]] == ["rack-0", "rack-0", "rack-1"]
    assert len({gpu.id for gpu in cluster.gpus}) == 24
    assert cluster.gpu_type(H100.name) == H100


@pytest.mark.parametrize(("nodes", "gpus", "rack"), [(0, 8, 8), (1, 0, 8), (1, 8, 0), (-2, 8, 8)])
def test_refuses_an_empty_regular_cluster(nodes: int, gpus: int, rack: int) -> None:
    with pytest.raises(InputError, match="at least 1 node with 1 GPU"):
        regular_cluster(H100, nodes=nodes, gpus_per_node=gpus, nodes_per_rack=rack)


def test_refuses_memory_that_is_not_positive() -> None:
    with pytest.raises(InputError, match="memory must be > 0"):
        GpuType(name=GpuTypeName("none"), memory_bytes=0)


def test_refuses_inconsistent_clusters() -> None:
    pair = regular_cluster(H100, nodes=1, gpus_per_node=2).gpus
    with pytest.raises(InputError, match="has no GPUs"):
        Cluster((), (H100,))
    with pytest.raises(InputError, match="ids appear twice: node-0/gpu-0"):
        Cluster((pair[0], pair[0]), (H100,))
    with pytest.raises(InputError, match="types are not described: h100"):
        Cluster(pair, (A100,))
    with pytest.raises(InputError, match="domains mix GPU types: node-0"):
        Cluster((pair[0], replace(pair[1], type=A100.name)), (H100, A100))
