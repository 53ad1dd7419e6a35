"""Constraint programming: proofs that a person can check, and the laws that it keeps."""

import random
from collections import Counter

import pytest

from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import Allocation, Placement, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.exact import place_exactly
from scepsy.place.pack import pack
from scepsy.place.rules import PlaceRules

GPU = GpuType(name=GpuTypeName("gpu"), memory_bytes=1)
LIMIT_S = 5.0


def groups(*wanted: tuple[int, int, int]) -> Allocation:
    """(tensor_parallel, tenths, replicas) of each LLM."""
    return Allocation(
        tuple(
            ReplicaGroup(
                llm=LlmName(f"llm-{n}"),
                gpu_type=GPU.name,
                tensor_parallel=degree,
                replicas=replicas,
                gpu_fraction=tenths / 10,
            )
            for n, (degree, tenths, replicas) in enumerate(wanted)
        )
    )


def check(wanted: Allocation, placement: Placement) -> None:
    """All replicas are there, on distinct GPUs of one node each, and no GPU is over 1.0."""
    assert Counter(r.llm for r in placement.replicas) == {g.llm: g.replicas for g in wanted.groups}
    for replica in placement.replicas:
        assert len(set(replica.gpus)) == wanted.group(replica.llm).tensor_parallel
        assert len({gpu.split("/")[0] for gpu in replica.gpus}) == 1
    assert max(placement.used.values()) <= 1 + 1e-9


def test_wide_replicas_are_dealt_out_over_few_gpus() -> None:
    """11 x TP 8 of a tenth, with 7 whole GPUs and small ones: 19 GPUs, all but full."""
    wanted = groups((8, 1, 11), (1, 2, 8), (1, 10, 7), (1, 5, 3))
    cluster = regular_cluster(GPU, nodes=1, gpus_per_node=32)

    proof = place_exactly(wanted, cluster, limit_s=LIMIT_S)

    assert proof.placement is not None
    check(wanted, proof.placement)
    assert proof.proven
    assert proof.touched == proof.touched_bound == len(proof.placement.used) == 19
    assert len(pack(wanted, cluster).used) == 19


def test_that_there_is_no_placement_is_proven() -> None:
    """Two halves on each of three GPUs hold no TP 4."""
    cluster = regular_cluster(GPU, nodes=2, gpus_per_node=2)

    proof = place_exactly(groups((2, 10, 1), (1, 6, 3)), cluster, limit_s=LIMIT_S)

    assert proof.infeasible
    assert proof.placement is None


@pytest.mark.parametrize("seed", range(12))
def test_the_heuristic_comes_within_one_gpu(seed: int) -> None:
    rng = random.Random(seed)
    cluster = regular_cluster(GPU, nodes=rng.randint(1, 4), gpus_per_node=4)
    wanted = groups(
        *(
            (rng.choice([1, 1, 2, 4]), rng.randint(1, 10), rng.randint(1, 3))
            for _ in range(rng.randint(1, 4))
        )
    )
    found = pack(wanted, cluster)

    start = found if isinstance(found, Placement) else None
    proof = place_exactly(wanted, cluster, limit_s=LIMIT_S, start=start)

    assert isinstance(found, Placement) == (proof.placement is not None)
    if proof.placement is not None and isinstance(found, Placement):
        check(wanted, proof.placement)
        assert proof.touched_bound <= len(proof.placement.used) <= len(found.used)
        assert len(found.used) - proof.touched_bound <= 1


def test_rules_hold_in_both() -> None:
    """At most one replica on a node, equal shares on a node, and a node left untouched."""
    cluster = regular_cluster(GPU, nodes=4, gpus_per_node=2)
    wanted = groups((1, 5, 3), (1, 10, 2))
    llm = wanted.groups[0].llm
    rules = PlaceRules(max_together={llm: 2}, equal_shares=True, max_gpus={GPU.name: 5})

    for placement in (
        pack(wanted, cluster, rules=rules),
        place_exactly(wanted, cluster, limit_s=LIMIT_S, rules=rules).placement,
    ):
        assert isinstance(placement, Placement)
        check(wanted, placement)
        nodes: dict[str, Counter[str]] = {}
        for replica in placement.replicas:
            node = replica.gpus[0].split("/")[0]
            nodes.setdefault(node, Counter())[str(replica.gpu_fraction)] += 1
            if replica.llm == llm:
                assert nodes[node]["0.5"] <= 2
        assert all(len(shares) == 1 for shares in nodes.values())
        assert len(placement.used) <= 5


def test_replicas_stay_where_they_can() -> None:
    cluster = regular_cluster(GPU, nodes=2, gpus_per_node=2)
    one_node = regular_cluster(GPU, nodes=1, gpus_per_node=2)
    before = place_exactly(groups((1, 5, 3)), one_node, limit_s=LIMIT_S).placement
    assert before is not None

    proof = place_exactly(
        groups((1, 5, 4), (2, 10, 1)), cluster, limit_s=LIMIT_S, stay=before.replicas
    )

    assert proof.placement is not None
    check(groups((1, 5, 4), (2, 10, 1)), proof.placement)
    assert set(before.replicas) <= set(proof.placement.replicas)
