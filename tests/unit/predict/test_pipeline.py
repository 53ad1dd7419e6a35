"""The pipeline predictor on figures small enough to check by hand."""

import math

import pytest

from scepsy.errors import MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.pipeline import RatedWorkflow, predict
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

GPU = GpuTypeName("h100")
BIG, SMALL = LlmName("big"), LlmName("small")
SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)


def stage_demand(stage: Stage, *, calls: float, fan_out: float, call_s: float) -> StageDemand:
    return StageDemand(
        stage=stage,
        calls_per_execution=calls,
        calls=SPREAD,
        fan_out=fan_out,
        time_share=SPREAD,
        call_s_mean=call_s,
        prompt_tokens_mean=100.0,
        output_tokens_mean=10.0,
        cached_fraction=None,
    )


def curve(stage: Stage, *, capacity_per_s: float, idle_s: float, busy_s: float) -> ProfileCurve:
    """Latency rises from ``idle_s`` without load to ``busy_s`` at 0.8."""
    return ProfileCurve(
        key=ProfileKey(stage=stage, gpu_type=GPU, tensor_parallel=1, gpu_fraction=1.0),
        capacity_per_s=capacity_per_s,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=s)
            for u, s in ((0.0, idle_s), (0.8, busy_s))
        ),
        provenance=Provenance.SIMULATED,
        source="made up",
    )


def workflow(name: str, rate_per_s: float) -> RatedWorkflow:
    """Four calls of `big`, two at a time, one of `small`; 1 s of gap; three executions."""
    stages = (
        stage_demand(Stage(WorkflowName(name), BIG), calls=4.0, fan_out=2.0, call_s=0.5),
        stage_demand(Stage(WorkflowName(name), SMALL), calls=1.0, fan_out=1.0, call_s=1.0),
    )
    executions = tuple(
        ExecutionDemand((1.0 * x, 1.0 * x), 1.0, 1.0 + 2.0 * x) for x in (0.5, 1.0, 1.5)
    )
    demand = WorkflowDemand(workflow=WorkflowName(name), stages=stages, executions=executions)
    return RatedWorkflow(demand, WorkflowRate(WorkflowName(name), rate_per_s))


def profiles(*names: str) -> ProfileSet:
    return ProfileSet(
        tuple(
            made
            for name in names
            for made in (
                curve(Stage(WorkflowName(name), BIG), capacity_per_s=10, idle_s=1.0, busy_s=3.0),
                curve(Stage(WorkflowName(name), SMALL), capacity_per_s=8, idle_s=0.5, busy_s=0.5),
            )
        )
    )


def groups(*, big: int, small: int) -> Allocation:
    return Allocation(
        tuple(
            ReplicaGroup(llm=llm, gpu_type=GPU, tensor_parallel=1, replicas=n)
            for llm, n in ((BIG, big), (SMALL, small))
        )
    )


def test_one_workflow_is_the_sum_of_its_stages() -> None:
    """At 2/s, two replicas of 10/s serve 8 calls/s of `big`: utilization 0.4, 2 s a call."""
    found = predict([workflow("w", 2.0)], groups(big=2, small=1), profiles("w")).workflows[0]

    big, small = found.stages
    assert (big.utilization, small.utilization) == pytest.approx((0.4, 0.25))
    assert (big.call_s, small.call_s) == pytest.approx((2.0, 0.5))
    assert (big.contribution_s, small.contribution_s) == pytest.approx((4.0, 0.5))
    assert found.execution_s_mean == pytest.approx(4.0 + 0.5 + 1.0)
    assert found.execution_s_p50 == pytest.approx(5.5)
    assert found.execution_s_p99 == pytest.approx(5.5 + 2.25)  # the longest of three
    assert found.capacity_per_s == found.capacity_alone_per_s == pytest.approx(5.0)
    assert found.bottleneck == BIG


def test_workflows_that_share_an_llm_share_its_capacity() -> None:
    """A second workflow doubles the utilization and halves the capacity, but not that alone."""
    both = [workflow("a", 2.0), workflow("b", 2.0)]

    found = predict(both, groups(big=4, small=1), profiles("a", "b")).workflows[0]

    assert [stage.utilization for stage in found.stages] == pytest.approx([0.4, 0.5])
    assert (found.bottleneck, found.bottleneck_alone) == (SMALL, SMALL)
    assert found.capacity_per_s == pytest.approx(4.0)
    assert found.capacity_alone_per_s == pytest.approx(8.0)


def test_a_saturated_stage_has_no_latency() -> None:
    found = predict([workflow("w", 6.0)], groups(big=2, small=1), profiles("w")).workflows[0]

    assert found.stages[0].utilization == pytest.approx(1.2)
    assert math.isinf(found.execution_s_mean)
    assert math.isinf(found.execution_s_p95)
    assert found.capacity_per_s == pytest.approx(5.0)


@pytest.mark.parametrize(("rate_per_s", "provenance"), [(1.0, "simulated"), (2.25, "extrapolated")])
def test_a_figure_says_where_it_comes_from(rate_per_s: float, provenance: str) -> None:
    """Utilization 0.4 lies within the profiled loads; 0.9 lies beyond the last, 0.8."""
    found = predict([workflow("w", rate_per_s)], groups(big=1, small=1), profiles("w"))

    assert found.workflow(WorkflowName("w")).stages[0].provenance == Provenance(provenance)


def test_a_stage_without_a_profile_is_named() -> None:
    with pytest.raises(MissingError, match="stage `b/big` has no profile on 1 x h100") as error:
        predict([workflow("b", 1.0)], groups(big=1, small=1), profiles("a"))
    assert "scepsy profile" in (error.value.hint or "")
