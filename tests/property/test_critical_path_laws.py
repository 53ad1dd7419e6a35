"""Laws of re-timed executions and of the critical-path predictor."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowPrediction, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict import critical_path, pipeline
from scepsy.predict.critical_path import call_latencies_s, call_times
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.traces.call_table import CallTable
from scepsy.traces.demand import WorkflowDemand, demand

GPU, WORKFLOW = GpuTypeName("gpu"), WorkflowName("w")
ids = count()
quick = settings(max_examples=40, deadline=None)


def a_call(execution: str, llm: str, start_s: float, end_s: float, output: int = 10) -> Call:
    return Call(
        id=CallId(str(next(ids))),
        execution=ExecutionId(execution),
        workflow=WORKFLOW,
        llm=LlmName(llm),
        start_s=start_s,
        end_s=end_s,
        prompt_tokens=100,
        output_tokens=output,
    )


@st.composite
def executions(draw: st.DrawFn) -> list[Execution]:
    """Calls of two LLMs anywhere in time: in sequence, at once, overlapping."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        calls = []
        for _ in range(draw(st.integers(1, 8))):
            start_s = draw(st.integers(0, 60)) / 4
            length_s = draw(st.integers(1, 24)) / 4
            llm = draw(st.sampled_from("ab"))
            calls.append(
                a_call(f"e{number}", llm, start_s, start_s + length_s, draw(st.integers(0, 90)))
            )
        calls.sort(key=lambda call: call.start_s)
        made.append(Execution(ExecutionId(f"e{number}"), WORKFLOW, tuple(calls)))
    return made


def table_of(found: WorkflowDemand) -> CallTable:
    assert found.calls is not None
    return found.calls


def a_curve(stage: Stage, points: list[tuple[float, float, float]]) -> ProfileCurve:
    """From (utilization, time to the first token, time after it)."""
    return ProfileCurve(
        key=ProfileKey(stage=stage, gpu_type=GPU, tensor_parallel=1, gpu_fraction=1.0),
        capacity_per_s=4.0,
        points=tuple(
            ProfilePoint(
                utilization=u,
                latency_s_mean=first_s + rest_s,
                latency_s_p95=first_s + rest_s,
                ttft_s_mean=first_s,
            )
            for u, first_s, rest_s in points
        ),
        provenance=Provenance.MEASURED,
        source="made up",
    )


@st.composite
def curves(draw: st.DrawFn, stage: Stage) -> ProfileCurve:
    rising = st.lists(st.floats(0.01, 5.0), min_size=3, max_size=3).map(sorted)
    first_s, rest_s = draw(rising), draw(rising)
    return a_curve(stage, list(zip((0.05, 0.5, 0.9), first_s, rest_s, strict=True)))


def predicted(found: WorkflowDemand, profiles: ProfileSet, rate_per_s: float) -> WorkflowPrediction:
    llms = sorted({stage.stage.llm for stage in found.stages})
    groups = Allocation(
        tuple(ReplicaGroup(llm=llm, gpu_type=GPU, tensor_parallel=1) for llm in llms)
    )
    rated = RatedWorkflow(found, WorkflowRate(WORKFLOW, rate_per_s))
    return critical_path.predict([rated], groups, profiles).workflows[0]


@quick
@given(executions())
def test_the_recorded_latencies_give_the_recording_back(recorded: list[Execution]) -> None:
    table = table_of(demand(recorded))

    retimed_s = table.executions_s(table.recorded_s)

    assert retimed_s == pytest.approx([each.execution_s for each in recorded])


@quick
@given(executions(), st.data())
def test_an_execution_is_no_shorter_than_a_call_and_no_longer_than_all(
    recorded: list[Execution], data: st.DataObject
) -> None:
    """Whatever overlaps, it takes at least its longest call and at most everything in sequence."""
    table = table_of(demand(recorded))
    call_s = np.array([data.draw(st.floats(0.0, 9.0)) for _ in table.recorded_s])

    executions_s = table.executions_s(call_s)

    for at, execution_s in enumerate(executions_s):
        own = table.execution == at
        assert execution_s >= call_s[own].max() - 1e-9
        in_sequence_s = call_s[own].sum() + table.after_s[own].sum() + table.tail_s[at]
        assert execution_s <= in_sequence_s + 1e-9


@quick
@given(executions(), st.data())
def test_slower_calls_never_make_an_execution_faster(
    recorded: list[Execution], data: st.DataObject
) -> None:
    table = table_of(demand(recorded))
    slower_s = table.recorded_s + [data.draw(st.floats(0.0, 5.0)) for _ in table.recorded_s]

    assert (table.executions_s(slower_s) >= table.executions_s(table.recorded_s) - 1e-9).all()


@quick
@given(executions())
def test_calls_on_the_critical_path_and_gaps_make_up_the_execution(
    recorded: list[Execution],
) -> None:
    """The path is a chain: its calls do not overlap, and it ends with the last call."""
    table = table_of(demand(recorded))

    critical = table.critical_calls(table.recorded_s)

    ends_s = table.ends_s(table.recorded_s)
    for at, execution_s in enumerate(table.executions_s(table.recorded_s)):
        own = critical & (table.execution == at)
        waits_s = table.after_s[own].sum() + table.tail_s[at]
        assert table.recorded_s[own].sum() + waits_s == pytest.approx(execution_s)
        assert ends_s[own].max() == pytest.approx(execution_s - table.tail_s[at])


@quick
@given(executions(), st.data())
def test_the_mean_over_a_stages_calls_is_the_curves(
    recorded: list[Execution], data: st.DataObject
) -> None:
    found = demand(recorded)
    table = table_of(found)
    of_stages = [data.draw(curves(stage.stage)) for stage in found.stages]
    utilization = data.draw(st.floats(0.0, 0.9))

    call_s = call_latencies_s(table, [call_times(c, utilization) for c in of_stages])

    for at, curve in enumerate(of_stages):
        mean_s = call_s[table.stage == at].mean()
        assert mean_s == pytest.approx(curve.latency_s(utilization), rel=1e-6)


@quick
@given(executions(), st.data())
def test_more_load_is_never_faster(recorded: list[Execution], data: st.DataObject) -> None:
    """Each call rises with the load, and so does the mean of what is predicted."""
    found = demand(recorded)
    of_stages = [data.draw(curves(stage.stage)) for stage in found.stages]
    profiles = ProfileSet(tuple(of_stages))
    fullest = max(stage.calls_per_execution for stage in found.stages)
    low = data.draw(st.floats(0.01, 0.9))
    high = data.draw(st.floats(low, 0.9))

    slow = predicted(found, profiles, high * 4.0 / fullest)
    fast = predicted(found, profiles, low * 4.0 / fullest)

    for curve in of_stages:
        calls = [
            call_latencies_s(table_of(found), [call_times(curve, u)] * len(of_stages))
            for u in (low, high)
        ]
        assert (calls[1] >= calls[0] - 1e-9).all()
    assert slow.execution_s_mean >= fast.execution_s_mean * (1 - 1e-6)
    assert slow.execution_s_p50 <= slow.execution_s_p95 <= slow.execution_s_p99
    parts_s = sum(stage.contribution_s for stage in slow.stages) + slow.gap_s_mean
    assert parts_s == pytest.approx(slow.execution_s_mean, rel=0.2)


@quick
@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.0, 3.0), st.floats(0.1, 0.8))
def test_equal_calls_in_sequence_are_a_pipeline(
    first: int, second: int, gap_s: float, load: float
) -> None:
    """Where the published model is exact both predictors say the same."""
    recorded = []
    for number in range(3):
        at_s, calls = 0.0, []
        for llm in "a" * first + "b" * second:
            calls.append(a_call(f"e{number}", llm, at_s, at_s + 1.0))
            at_s += 1.0 + gap_s
        recorded.append(Execution(ExecutionId(f"e{number}"), WORKFLOW, tuple(calls)))
    found = demand(recorded)
    profiles = ProfileSet(
        tuple(a_curve(s.stage, [(0.0, 0.1, 0.5), (0.9, 0.3, 1.5)]) for s in found.stages)
    )
    rate_per_s = load * 4.0 / max(first, second)
    rated = RatedWorkflow(found, WorkflowRate(WORKFLOW, rate_per_s))
    groups = Allocation(
        tuple(ReplicaGroup(llm=LlmName(n), gpu_type=GPU, tensor_parallel=1) for n in "ab")
    )

    by_path = critical_path.predict([rated], groups, profiles).workflows[0]
    by_pipeline = pipeline.predict([rated], groups, profiles).workflows[0]

    assert by_path.execution_s_mean == pytest.approx(by_pipeline.execution_s_mean, rel=1e-6)
    assert by_path.gap_s_mean == pytest.approx(by_pipeline.gap_s_mean, abs=1e-6)


@quick
@given(executions(), st.floats(0.1, 3.0), st.floats(0.0, 0.9))
def test_curves_like_the_recording_give_the_recording_back(
    recorded: list[Execution], per_token_s: float, load: float
) -> None:
    """Calls that were as long as their tokens say, and curves that say so at any load."""
    timed = []
    for each in recorded:
        at_s, calls = 0.0, []
        for call in each.calls:
            length_s = 0.5 + per_token_s * (call.output_tokens + 1)
            calls.append(a_call(each.id, "a", at_s, at_s + length_s, call.output_tokens + 1))
            at_s += length_s if call.output_tokens % 2 else 0.0
        timed.append(Execution(each.id, WORKFLOW, tuple(calls)))
    found = demand(timed)
    rest_s = per_token_s * found.stages[0].output_tokens_mean
    flat = a_curve(found.stages[0].stage, [(0.0, 0.5, rest_s), (0.95, 0.5, rest_s)])
    rate_per_s = max(load, 1e-3) * 4.0 / found.stages[0].calls_per_execution

    told = predicted(found, ProfileSet((flat,)), rate_per_s)

    recorded_s = np.array([each.execution_s for each in timed])
    assert told.execution_s_mean == pytest.approx(recorded_s.mean())
    assert told.execution_s_p95 <= recorded_s.max() * (1 + 1e-9)
