"""Placement on cases that a person can check."""

import pytest

from scepsy.errors import InputError
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import Allocation, Placement, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.bounds import least_gpus
from scepsy.place.fill import fullest
from scepsy.place.pack import Unplaced, pack
from scepsy.place.topology import ReplicaShape, resized

H100 = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)


def groups(*wanted: tuple[str, int, int, float]) -> Allocation:
    """An allocation from (LLM, tensor_parallel, replicas, gpu_fraction)."""
    return Allocation(
        tuple(
            ReplicaGroup(
                llm=LlmName(llm),
                gpu_type=H100.name,
                tensor_parallel=degree,
                replicas=replicas,
                gpu_fraction=fraction,
            )
            for llm, degree, replicas, fraction in wanted
        )
    )


def placed(allocation: Allocation, *, nodes: int, gpus_per_node: int) -> Placement:
    cluster = regular_cluster(H100, nodes=nodes, gpus_per_node=gpus_per_node)
    placement = pack(allocation, cluster)
    assert isinstance(placement, Placement), placement.reason
    return placement


def test_fractions_share_few_gpus() -> None:
    """0.6 + 0.4, 0.5 + 0.3 + 0.2: two GPUs of eight."""
    wanted = groups(("a", 1, 1, 0.6), ("b", 1, 1, 0.5), ("c", 1, 1, 0.4), ("d", 1, 1, 0.3))
    wanted = groups(*((g.llm, 1, 1, g.gpu_fraction) for g in wanted.groups), ("e", 1, 1, 0.2))

    assert len(placed(wanted, nodes=1, gpus_per_node=8).used) == 2


def test_large_replicas_keep_their_domain_free() -> None:
    """Small replicas do not split the node that TP 8 needs, though their names come first."""
    wanted = groups(("a", 1, 4, 0.5), ("b", 8, 1, 1.0))

    placement = placed(wanted, nodes=2, gpus_per_node=8)

    nodes = {r.llm: {gpu.split("/")[0] for gpu in r.gpus} for r in placement.replicas}
    assert nodes[LlmName("a")].isdisjoint(nodes[LlmName("b")])


def test_replicas_of_one_llm_spread_over_nodes() -> None:
    """Where it costs no GPU, a node that fails takes one of two replicas with it, not both."""
    placement = placed(groups(("a", 2, 2, 1.0), ("b", 2, 2, 1.0)), nodes=2, gpus_per_node=4)

    where = [(r.llm, r.gpus[0].split("/")[0]) for r in placement.replicas]
    assert len(set(where)) == 4


def test_tensor_parallel_fractions_share_gpus() -> None:
    """Four halves of TP 4 sit two on each node's four GPUs."""
    placement = placed(groups(("a", 4, 4, 0.5)), nodes=2, gpus_per_node=4)

    assert set(placement.used.values()) == {1.0}


def test_gpus_are_filled_with_what_goes_into_them_best() -> None:
    """48 tenths on 5 GPUs: three of 4 + 3 + 3 and two of 3 + 3 + 3, not 4 + 4 first."""
    wanted = groups(("a", 1, 12, 0.3), ("b", 1, 3, 0.4))

    assert len(placed(wanted, nodes=8, gpus_per_node=1).used) == 5


def test_domains_are_repacked_together() -> None:
    """5 x TP 2 x 0.4 lie two on a pair of GPUs; that the fifth shares with others takes 3 GPUs."""
    wanted = groups(("a", 2, 5, 0.4), ("b", 1, 1, 0.1))

    assert len(placed(wanted, nodes=2, gpus_per_node=4).used) == 5


def test_one_domain_is_filled_to_the_brim() -> None:
    """249 of 250 tenths on 25 GPUs, though the widest replicas have 8 of them."""
    wanted = groups(
        ("a", 2, 10, 0.3),
        ("b", 8, 9, 0.2),
        ("c", 2, 3, 0.5),
        ("d", 1, 5, 0.1),
        ("e", 1, 1, 1.0),
    )

    assert len(placed(wanted, nodes=1, gpus_per_node=32).used) == 25


@pytest.mark.parametrize(
    ("room", "most", "counts"),
    [
        (10, (9, 9, 9), (1, 0, 1)),  # 7 + 3
        (8, (9, 9, 9), (0, 2, 0)),  # 4 + 4 is full, 7 is not
        (10, (0, 9, 9), (0, 1, 2)),
        (10, (0, 9, 1), (0, 2, 0)),  # 8: nothing fills more
        (2, (9, 9, 9), (0, 0, 0)),
    ],
)
def test_the_fullest_choice(room: int, most: tuple[int, ...], counts: tuple[int, ...]) -> None:
    assert fullest(room, (7, 4, 3), most) == counts


def test_what_finds_no_place_is_named() -> None:
    cluster = regular_cluster(H100, nodes=2, gpus_per_node=2)

    unplaced = pack(groups(("a", 2, 1, 1.0), ("b", 4, 1, 0.5)), cluster)

    assert isinstance(unplaced, Unplaced)
    assert unplaced.reason == (
        "after 1 of 2 replicas no NVLink domain has 4 GPUs with 0.5 free for a replica of `b`"
    )


def test_a_fraction_must_be_whole_units() -> None:
    cluster = regular_cluster(H100, nodes=1, gpus_per_node=1)

    with pytest.raises(InputError, match=r"0\.25 is not a multiple of 1/10"):
        pack(groups(("a", 1, 1, 0.25)), cluster)
    assert isinstance(pack(groups(("a", 1, 1, 0.25)), cluster, units_per_gpu=4), Placement)


def test_repeated_packing_gives_the_same() -> None:
    wanted = groups(("a", 2, 3, 0.4), ("b", 1, 5, 0.3), ("c", 4, 1, 1.0))
    cluster = regular_cluster(H100, nodes=2, gpus_per_node=8)

    assert pack(wanted, cluster) == pack(wanted, cluster)


@pytest.mark.parametrize(
    ("shapes", "gpus"),
    [
        ([], 0),
        ([(1, 6), (1, 6)], 2),  # no two share
        ([(1, 5), (1, 5), (1, 1)], 2),
        ([(1, 4)] * 4, 2),  # two on a GPU, whatever the sum
        ([(8, 1)], 8),  # distinct GPUs
        ([(1, 7), (1, 7), (1, 7), (1, 4), (1, 4)], 4),  # 4 beside no 7
    ],
)
def test_the_bound_sees_what_cannot_share(shapes: list[tuple[int, int]], gpus: int) -> None:
    assert least_gpus([(ReplicaShape(*shape), 1) for shape in shapes], 10) == gpus


def test_a_resized_cluster_keeps_its_domains() -> None:
    cluster = resized(regular_cluster(H100, nodes=2, gpus_per_node=4), 10)

    assert [len(domain.gpus) for domain in cluster.domains] == [4, 4, 2]


def test_llms_that_take_turns_sit_together_and_alone() -> None:
    """Two instances of 2 GPUs; the narrow LLM is on the first GPU of each, nobody else is."""
    apart = groups(("a", 2, 2, 0.6), ("b", 1, 2, 0.3), ("c", 1, 2, 0.5))
    wanted = Allocation(apart.groups, ((LlmName("a"), LlmName("b")),))

    placement = placed(wanted, nodes=1, gpus_per_node=5)

    where = {str(r.name): r.gpus for r in placement.replicas}
    assert {where["b-0"], where["b-1"]} == {where["a-0"][:1], where["a-1"][:1]}
    assert where["c-0"] == where["c-1"]
    assert not {*where["a-0"], *where["a-1"]} & {*where["c-0"]}
    assert wanted.gpus == 5.0
    assert placement.used[where["a-0"][0]] == pytest.approx(0.9)


def test_turns_without_room_are_refused() -> None:
    apart = groups(("a", 2, 2, 0.6), ("b", 2, 2, 0.4))
    wanted = Allocation(apart.groups, ((LlmName("a"), LlmName("b")),))

    assert isinstance(pack(wanted, regular_cluster(H100, nodes=1, gpus_per_node=3)), Unplaced)
