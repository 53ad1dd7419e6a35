"""Plans: groups, allocations, what a placement uses of each GPU."""

from dataclasses import replace

import pytest

from scepsy.errors import InputError
from scepsy.model.cluster import GpuId, GpuTypeName
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import (
    Allocation,
    PlacedReplica,
    Placement,
    Prediction,
    ReplicaGroup,
    WorkflowPrediction,
    WorkflowRate,
    WorkflowWeight,
)
from scepsy.model.provenance import Provenance, worst
from scepsy.model.workflow import LlmName, WorkflowName

H100 = GpuTypeName("h100")


def group(llm: str, **more: float) -> ReplicaGroup:
    fields = {"tensor_parallel": 1, **more}
    return ReplicaGroup(llm=LlmName(llm), gpu_type=H100, **fields)  # type: ignore[arg-type]


def test_gpus_are_replicas_times_degree_times_fraction() -> None:
    a, b = group("a", tensor_parallel=2, replicas=3, gpu_fraction=0.5), group("b")
    allocation = Allocation((a, b))
    assert (a.gpus, allocation.gpus) == (3.0, 4.0)
    assert allocation.group(LlmName("b")) is b


@pytest.mark.parametrize(
    "wrong",
    [
        {"tensor_parallel": 0},
        {"replicas": 0},
        {"gpu_fraction": 0.0},
        {"gpu_fraction": 1.1},
        {"gpu_fraction": float("nan")},
    ],
)
def test_refuses_impossible_groups(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        group("a", **wrong)


def test_refuses_an_allocation_out_of_order_or_with_an_llm_twice() -> None:
    for groups in ((group("b"), group("a")), (group("a"), group("a"))):
        with pytest.raises(InputError, match="one group for each LLM"):
            Allocation(groups)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_and_weights_are_positive_and_finite(number: float) -> None:
    with pytest.raises(InputError, match="rate must be > 0"):
        WorkflowRate(WorkflowName("w"), number)
    with pytest.raises(InputError, match="weight must be > 0"):
        WorkflowWeight(WorkflowName("w"), number)


def test_a_placement_adds_up_what_it_uses() -> None:
    g0, g1 = GpuId("n/0"), GpuId("n/1")
    placement = Placement(
        (
            PlacedReplica(ReplicaName("a-0"), LlmName("a"), (g0, g1), 0.5),
            PlacedReplica(ReplicaName("b-0"), LlmName("b"), (g0,), 0.25),
        )
    )
    assert placement.used == {g0: 0.75, g1: 0.5}


def test_a_prediction_is_found_by_workflow() -> None:
    name = WorkflowName("w")
    expected = WorkflowPrediction(
        workflow=name,
        rate_per_s=1.0,
        execution_s_mean=2.0,
        execution_s_p50=2.0,
        execution_s_p95=3.0,
        execution_s_p99=4.0,
        gap_s_mean=0.0,
        capacity_per_s=5.0,
        capacity_alone_per_s=6.0,
        bottleneck=LlmName("a"),
        bottleneck_alone=LlmName("a"),
        stages=(),
    )
    assert Prediction("pipeline", (expected,)).workflow(name) is expected


def test_a_number_is_as_good_as_the_worst_it_is_made_of() -> None:
    assert worst([]) is Provenance.MEASURED
    assert worst([Provenance.MEASURED, Provenance.ASSUMED, Provenance.SIMULATED]) is (
        Provenance.ASSUMED
    )
    assert [p.rank for p in Provenance] == [0, 1, 2, 3, 4]


def test_llms_that_take_turns_have_equal_replicas_and_no_more_than_all_memory() -> None:
    a = ReplicaGroup(llm=LlmName("a"), gpu_type=GpuTypeName("h100"), tensor_parallel=2)
    b = replace(a, llm=LlmName("b"), tensor_parallel=1)
    half = [replace(group, gpu_fraction=0.5) for group in (a, b)]

    together = Allocation(tuple(half), ((a.llm, b.llm),))

    assert together.gpus == 2
    assert together.turns_of(b.llm) == (a.llm, b.llm)
    for groups, turns in (
        ((a, b), ((a.llm, b.llm),)),  # twice the memory
        ((half[0], replace(half[1], replicas=2)), ((a.llm, b.llm),)),
        (tuple(half), ((a.llm,),)),
        (tuple(half), ((b.llm, a.llm),)),
        (tuple(half), ((a.llm, LlmName("c")),)),
        (tuple(half), ((a.llm, b.llm), (a.llm, b.llm))),
    ):
        with pytest.raises(InputError, match="turns"):
            Allocation(groups, turns)
