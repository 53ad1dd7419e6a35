"""Laws of the pipeline predictor."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, Prediction, ReplicaGroup, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.pipeline import RatedWorkflow, predict, scaled_executions_s
from scepsy.predict.surface import StageSurface
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

GPU, WORKFLOW = GpuTypeName("gpu"), WorkflowName("w")
SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
durations_s = st.floats(0.01, 50.0)


@st.composite
def demands(draw: st.DrawFn) -> WorkflowDemand:
    """A workflow whose n, p and call latency are those of its executions' calls.

    In each execution a stage makes some equally long calls, some of them at a time.
    """
    stages = [Stage(WORKFLOW, LlmName(f"llm-{n}")) for n in range(draw(st.integers(1, 3)))]
    recorded = draw(
        st.lists(
            st.lists(
                st.tuples(st.integers(0, 9), durations_s, st.floats(1.0, 4.0)),
                min_size=len(stages),
                max_size=len(stages),
            ),
            min_size=1,
            max_size=6,
        ).filter(lambda rows: all(any(row[at][0] for row in rows) for at in range(len(stages))))
    )
    gaps_s = [draw(st.floats(0.0, 20.0)) for _ in recorded]
    busy_s = [tuple(calls * s / fan_out for calls, s, fan_out in row) for row in recorded]
    return WorkflowDemand(
        workflow=WORKFLOW,
        stages=tuple(
            _stage(stage, [row[at] for row in recorded], [row[at] for row in busy_s])
            for at, stage in enumerate(stages)
        ),
        executions=tuple(
            ExecutionDemand(busy, gap_s, sum(busy) + gap_s)
            for busy, gap_s in zip(busy_s, gaps_s, strict=True)
        ),
    )


def _stage(stage: Stage, rows: list[tuple[int, float, float]], busy_s: list[float]) -> StageDemand:
    calls = sum(n for n, _, _ in rows)
    total_s = sum(n * s for n, s, _ in rows)
    return StageDemand(
        stage=stage,
        calls_per_execution=calls / len(rows),
        calls=SPREAD,
        fan_out=total_s / sum(busy_s),
        time_share=SPREAD,
        call_s_mean=total_s / calls,
        prompt_tokens_mean=100.0,
        output_tokens_mean=10.0,
        cached_fraction=None,
    )


def curve(stage: Stage, replicas: int, points: list[tuple[float, float]]) -> ProfileCurve:
    loads = sorted({round(u, 3) for u, _ in points})
    latencies = sorted(s for _, s in points)[: len(loads)]
    return ProfileCurve(
        key=ProfileKey(
            stage=stage, gpu_type=GPU, tensor_parallel=1, gpu_fraction=1.0, replicas=replicas
        ),
        capacity_per_s=3.0,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=s)
            for u, s in zip(loads, latencies, strict=True)
        ),
        provenance=Provenance.MEASURED,
        source="made up",
    )


points = st.lists(st.tuples(st.floats(0.0, 0.95), durations_s), min_size=1, max_size=5)


@given(demands(), st.data())
def test_executions_scaled_one_by_one_have_the_pipelines_mean(
    demand: WorkflowDemand, data: st.DataObject
) -> None:
    """The mean over recorded executions is the sum of n x latency / p, plus the mean gap."""
    call_s = [data.draw(durations_s) for _ in demand.stages]

    executions_s = scaled_executions_s(demand, call_s)

    gap_s = np.mean([execution.gap_s for execution in demand.executions])
    parts = zip(demand.stages, call_s, strict=True)
    pipeline_s = sum(s.calls_per_execution * latency / s.fan_out for s, latency in parts)
    assert executions_s.mean() == pytest.approx(pipeline_s + gap_s, rel=1e-9)


@given(demands())
def test_the_recorded_latencies_give_the_recording_back(demand: WorkflowDemand) -> None:
    """Calls as slow as recorded make each execution as long as its stages in sequence."""
    recorded_s = [sum(e.busy_s) + e.gap_s for e in demand.executions]

    executions_s = scaled_executions_s(demand, [stage.call_s_mean for stage in demand.stages])

    assert executions_s == pytest.approx(recorded_s)


@settings(max_examples=60)
@given(demands(), points, st.floats(0.01, 2.0), st.floats(1.0, 4.0))
def test_more_load_is_never_faster_and_capacity_is_where_latency_ends(
    demand: WorkflowDemand, loads: list[tuple[float, float]], rate_per_s: float, growth: float
) -> None:
    """Every statistic rises with the rate; capacity does not; below it latency is finite."""
    profiles = ProfileSet(tuple(curve(stage.stage, 1, loads) for stage in demand.stages))
    llms = sorted({stage.stage.llm for stage in demand.stages})
    groups = Allocation(
        tuple(ReplicaGroup(llm=llm, gpu_type=GPU, tensor_parallel=1) for llm in llms)
    )

    def at(rate_per_s: float) -> Prediction:
        rated = RatedWorkflow(demand, WorkflowRate(WORKFLOW, rate_per_s))
        return predict([rated], groups, profiles)

    slow, fast = at(rate_per_s).workflows[0], at(rate_per_s * growth).workflows[0]

    assert fast.execution_s_mean >= slow.execution_s_mean * (1 - 1e-9)
    assert fast.execution_s_p95 >= slow.execution_s_p95 * (1 - 1e-9)
    assert fast.capacity_per_s == pytest.approx(slow.capacity_per_s)
    assert slow.execution_s_p50 <= slow.execution_s_p95 <= slow.execution_s_p99
    assert math.isfinite(at(slow.capacity_per_s * 0.999).workflows[0].execution_s_mean)
    assert math.isinf(at(slow.capacity_per_s * 1.001).workflows[0].execution_s_mean)


@given(st.lists(points, min_size=1, max_size=4), st.lists(st.floats(0.0, 1.2), min_size=1))
def test_the_surface_says_what_the_curves_say(
    knots: list[list[tuple[float, float]]], utilizations: list[float]
) -> None:
    """Also between and beyond profiled replica counts."""
    stage = Stage(WORKFLOW, LlmName("llm"))
    profiles = ProfileSet(tuple(curve(stage, 2**n, knot) for n, knot in enumerate(knots)))
    replicas = np.arange(1, len(utilizations) + 1)

    rows = StageSurface(profiles.curves).rows([(1, 1.0)], [replicas])
    found = rows.latency_s(np.array(utilizations))

    for at, utilization in enumerate(utilizations):
        told = profiles.curve(stage, GPU, 1, 1.0, at + 1)
        assert told is not None
        assert found[at] == pytest.approx(told.latency_s(utilization), rel=1e-9)
        assert rows.call_s[at] == pytest.approx(1 / told.capacity_per_s)
