"""Laws of placement: what holds for whatever is placed on whatever cluster."""

from collections import Counter

from hypothesis import event, given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuType,
    GpuTypeName,
    NodeName,
    RackName,
    regular_cluster,
)
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.bounds import least_gpus
from scepsy.place.pack import Unplaced, pack
from scepsy.place.topology import fraction_units, shapes

TYPE = GpuType(name=GpuTypeName("gpu"), memory_bytes=1)


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Up to 5 nodes of up to 8 GPUs, each cut into domains of some size."""
    gpus = []
    for node in range(draw(st.integers(1, 5))):
        size, domain_size = draw(st.sampled_from([(1, 1), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8)]))
        gpus += [
            Gpu(
                id=GpuId(f"node-{node}/gpu-{n}"),
                type=TYPE.name,
                node=NodeName(f"node-{node}"),
                domain=DomainName(f"node-{node}/{n // domain_size}"),
                rack=RackName(f"rack-{node // 2}"),
            )
            for n in range(size)
        ]
    return Cluster(tuple(gpus), (TYPE,))


@st.composite
def allocations(draw: st.DrawFn) -> Allocation:
    return Allocation(
        tuple(
            ReplicaGroup(
                llm=LlmName(f"llm-{n}"),
                gpu_type=TYPE.name,
                tensor_parallel=draw(st.sampled_from([1, 1, 2, 3, 4, 8])),
                replicas=draw(st.integers(1, 6)),
                gpu_fraction=draw(st.integers(1, 10)) / 10,
            )
            for n in range(draw(st.integers(1, 5)))
        )
    )


@settings(max_examples=300, deadline=None)
@given(allocations(), clusters())
def test_a_placement_keeps_the_laws(groups: Allocation, cluster: Cluster) -> None:
    """All replicas sit on distinct GPUs of one domain, no GPU is over 1.0, none is touched idly."""
    placement = pack(groups, cluster)
    if isinstance(placement, Unplaced):
        event("unplaced")
        return
    event("placed")
    gpus = {gpu.id: gpu for gpu in cluster.gpus}

    units: Counter[GpuId] = Counter()
    for replica in placement.replicas:
        group = groups.group(replica.llm)
        assert replica.gpu_fraction == group.gpu_fraction
        assert len(set(replica.gpus)) == len(replica.gpus) == group.tensor_parallel
        assert len({gpus[gpu].domain for gpu in replica.gpus}) == 1
        units.update(dict.fromkeys(replica.gpus, fraction_units(replica.gpu_fraction, 10)))

    assert max(units.values()) <= 10
    assert Counter(r.llm for r in placement.replicas) == {g.llm: g.replicas for g in groups.groups}
    assert len({replica.name for replica in placement.replicas}) == len(placement.replicas)
    assert least_gpus(shapes(groups, 10), 10) <= len(units) <= len(cluster.gpus)
    assert max(placement.used.values()) <= 1 + 1e-9


@settings(max_examples=300, deadline=None)
@given(allocations(), clusters())
def test_a_failure_is_honest(groups: Allocation, cluster: Cluster) -> None:
    """What does not fit in sum, or in the largest domain, is never placed; the rest is tried."""
    widest = max(len(domain.gpus) for domain in cluster.domains)
    cannot = (
        least_gpus(shapes(groups, 10), 10) > len(cluster.gpus)
        or max(group.tensor_parallel for group in groups.groups) > widest
    )

    placement = pack(groups, cluster)

    if cannot:
        assert isinstance(placement, Unplaced)
    if isinstance(placement, Unplaced):
        assert placement.placed < placement.replicas
        assert placement.llm in placement.reason


@given(st.integers(1, 4), st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=16))
def test_whole_gpus_by_powers_of_two_always_fit(nodes: int, degrees: list[int]) -> None:
    """On nodes of 8: where the sum fits, so does every replica. The planner falls back on it."""
    cluster = regular_cluster(TYPE, nodes=nodes, gpus_per_node=8)
    groups = Allocation(
        tuple(
            ReplicaGroup(llm=LlmName(f"llm-{n:02}"), gpu_type=TYPE.name, tensor_parallel=degree)
            for n, degree in enumerate(degrees)
        )
    )

    placement = pack(groups, cluster)

    assert isinstance(placement, Unplaced) == (groups.gpus > len(cluster.gpus))
