"""The critical-path predictor on executions small enough to time by hand."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from scepsy.errors import MissingError, UnknownNameError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict import critical_path, pipeline
from scepsy.predict.attainment import attainment
from scepsy.predict.error import CURVE_ERROR
from scepsy.predict.load_noise import LlmActivity, elasticity, load_spread
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.predict.predictor import PREDICTORS, find_predictor
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.traces.demand import WorkflowDemand, demand

GPU, WORKFLOW = GpuTypeName("h100"), WorkflowName("w")
BIG, SMALL = LlmName("big"), LlmName("small")
GROUPS = Allocation(
    tuple(ReplicaGroup(llm=llm, gpu_type=GPU, tensor_parallel=1) for llm in (BIG, SMALL))
)
ids = count()


def execution(*calls: tuple[str, float, float, int]) -> Execution:
    """From (LLM, start, end, output tokens)."""
    name = ExecutionId(f"e{next(ids)}")
    return Execution(
        name,
        WORKFLOW,
        tuple(
            Call(
                id=CallId(f"{name}/{at}"),
                execution=name,
                workflow=WORKFLOW,
                llm=LlmName(llm),
                start_s=start_s,
                end_s=end_s,
                prompt_tokens=100,
                output_tokens=output_tokens,
            )
            for at, (llm, start_s, end_s, output_tokens) in enumerate(calls)
        ),
    )


def flat(llm: LlmName, call_s: float, **fields: object) -> ProfileCurve:
    """The same latency at any load, all of it after the first token."""
    point = ProfilePoint(
        utilization=0.0, latency_s_mean=call_s, latency_s_p95=call_s, ttft_s_mean=0.0
    )
    values: dict[str, object] = {
        "capacity_per_s": 10.0,
        "points": (point, ProfilePoint(**{**_fields(point), "utilization": 0.9})),
        "provenance": Provenance.MEASURED,
        "source": "made up",
    }
    key = ProfileKey(stage=Stage(WORKFLOW, llm), gpu_type=GPU, tensor_parallel=1, gpu_fraction=1.0)
    return ProfileCurve(key=key, **{**values, **fields})  # type: ignore[arg-type]


def _fields(point: ProfilePoint) -> dict[str, float]:
    return {name: getattr(point, name) for name in ProfilePoint.__slots__}


def rated(found: WorkflowDemand, rate_per_s: float = 0.1) -> RatedWorkflow:
    return RatedWorkflow(found, WorkflowRate(WORKFLOW, rate_per_s))


def test_llms_that_run_at_once_are_not_added_up() -> None:
    """Both start together: 4 s beside 3 s is 4 s, where the pipeline says 7 s."""
    found = demand([execution(("big", 0, 2, 10), ("small", 0, 1, 10))])
    profiles = ProfileSet((flat(BIG, 4.0), flat(SMALL, 3.0)))

    by_path = critical_path.predict([rated(found)], GROUPS, profiles).workflows[0]
    by_pipeline = pipeline.predict([rated(found)], GROUPS, profiles).workflows[0]

    assert by_path.execution_s_mean == pytest.approx(4.0)
    assert by_pipeline.execution_s_mean == pytest.approx(7.0)
    assert [stage.contribution_s for stage in by_path.stages] == [pytest.approx(4.0), 0.0]
    assert by_path.capacity_per_s == by_pipeline.capacity_per_s


def test_the_longest_call_of_a_burst_holds_up_the_rest() -> None:
    """Three calls of 10, 10 and 40 tokens, then a join: the straggler is twice the mean."""
    found = demand(
        [execution(("big", 0, 1, 10), ("big", 0, 1, 10), ("big", 0, 4, 40), ("small", 5, 6, 10))]
    )
    profiles = ProfileSet((flat(BIG, 1.0), flat(SMALL, 0.5)))

    told = critical_path.predict([rated(found)], GROUPS, profiles).workflows[0]

    assert told.execution_s_mean == pytest.approx(2.0 + 1.0 + 0.5)
    assert told.gap_s_mean == pytest.approx(1.0)


def test_prompts_in_the_cache_take_no_prefill() -> None:
    """The time to the first token is shared out by the tokens that are not cached."""
    calls = execution(("big", 0, 1, 0), ("big", 2, 3, 0))
    cached = tuple(
        Call(**{**{n: getattr(c, n) for n in Call.__slots__}, "cached_tokens": k})
        for c, k in zip(calls.calls, (0, 100), strict=True)
    )
    found = demand([Execution(calls.id, WORKFLOW, cached)])
    assert found.calls is not None
    curve = flat(BIG, 0.5)
    point = ProfilePoint(utilization=0.0, latency_s_mean=0.5, latency_s_p95=0.5, ttft_s_mean=0.5)
    curve = flat(BIG, 0.5, points=(point,))

    latencies_s = critical_path.call_latencies_s(
        found.calls, [critical_path.call_times(curve, 0.0)]
    )

    assert latencies_s.tolist() == [1.0, 0.0]


def test_what_another_llm_has_in_its_cache_is_computed_anew() -> None:
    calls = execution(("big", 0, 1, 0), ("small", 2, 3, 0), ("big", 4, 5, 0))
    same_prompt = tuple(
        Call(**{**{n: getattr(c, n) for n in Call.__slots__}, "prefix_blocks": (7,)})
        for c in calls.calls
    )
    found = demand([Execution(calls.id, WORKFLOW, same_prompt)])
    assert found.calls is not None
    assert found.calls.fresh_tokens.tolist() == [100.0, 100.0, 36.0]


def test_the_tail_rises_with_the_load_and_the_number_of_executions_tames_it() -> None:
    """Latency that grows with load spreads; more executions at a time average the load out."""
    found = demand([execution(("big", 0, 2, 10), ("small", 2, 3, 10))])
    steep = tuple(
        ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=0.0)
        for u, s in ((0.0, 1.0), (0.9, 4.0))
    )

    def tail(capacity_per_s: float) -> float:
        profiles = ProfileSet(
            (flat(BIG, 1.0, points=steep, capacity_per_s=capacity_per_s), flat(SMALL, 0.1))
        )
        rate_per_s = 0.7 * capacity_per_s
        told = critical_path.predict([rated(found, rate_per_s)], GROUPS, profiles).workflows[0]
        return told.execution_s_p95 / told.execution_s_mean

    assert 1.0 < tail(8.0) < tail(2.0)


def test_it_abstains_far_beyond_the_profiled_loads() -> None:
    found = demand([execution(("big", 0, 2, 10), ("small", 2, 3, 10))])
    profiles = ProfileSet((flat(BIG, 1.0), flat(SMALL, 1.0)))

    with pytest.raises(MissingError, match=r"utilization 0\.97.*profiled up to 0\.90") as caught:
        critical_path.predict([rated(found, 9.7)], GROUPS, profiles)

    assert caught.value.hint is not None
    assert "profile it at a utilization of about 0.97" in caught.value.hint


def test_past_saturation_latency_has_no_bound() -> None:
    found = demand([execution(("big", 0, 2, 10), ("small", 2, 3, 10))])
    profiles = ProfileSet((flat(BIG, 1.0), flat(SMALL, 1.0)))

    retimed = critical_path.retime([rated(found, 10.5)], GROUPS, profiles)[0]

    assert retimed.prediction.execution_s_mean == float("inf")
    assert retimed.attainment(1e9).goodput_per_s == 0.0


def test_demand_without_calls_is_refused() -> None:
    found = demand([execution(("big", 0, 2, 10), ("small", 2, 3, 10))])
    bare = WorkflowDemand(workflow=WORKFLOW, stages=found.stages, executions=found.executions)
    profiles = ProfileSet((flat(BIG, 1.0), flat(SMALL, 1.0)))

    with pytest.raises(MissingError, match="no recorded calls"):
        critical_path.predict([rated(bare)], GROUPS, profiles)


def test_attainment_and_goodput() -> None:
    kept = attainment(np.array([[1.0, 2.0], [3.0, 4.0]]), 3.0, rate_per_s=2.0)

    assert (kept.attainment, kept.goodput_per_s) == (0.75, 1.5)


def test_elasticity_is_that_of_a_queue() -> None:
    """Latency 1 / (1 - u) gives u / (1 - u) calls in flight: growth by u for each part more."""
    points = tuple(
        ProfilePoint(utilization=u, latency_s_mean=1 / (1 - u), latency_s_p95=2.0, ttft_s_mean=0.0)
        for u in np.linspace(0.0, 0.9, 91)
    )
    curve = flat(BIG, 1.0, points=points)

    assert elasticity(curve, 0.5) == pytest.approx(0.5, abs=0.01)
    assert elasticity(flat(BIG, 1.0), 0.5) == 0.0
    assert elasticity(flat(BIG, 0.0), 0.5) == 0.0


def test_a_load_without_feedback_spreads_like_poisson() -> None:
    """For a moment an execution meets 100 +- 10 others; over a long time their mean."""
    activity = LlmActivity(executions=100.0, active=100.0, execution_s=1.0, call_s=1.0)

    spread = load_spread(activity, 0.0, np.array([1e-3, 1e3]), np.array([1e-3, 1e3]))

    assert spread[0] == pytest.approx(0.1, rel=1e-2)
    assert spread[1] < 0.01


def test_predictors_are_found_by_name_and_carry_error_bars() -> None:
    found = demand([execution(("big", 0, 2, 10), ("small", 2, 3, 10)) for _ in range(3)])
    assumed = flat(SMALL, 1.0, provenance=Provenance.ASSUMED)
    profiles = ProfileSet((flat(BIG, 1.0), assumed))

    for name in PREDICTORS:
        told = find_predictor(name)([rated(found)], GROUPS, profiles)
        assert told.predictor == name
        big, small = told.workflows[0].stages
        assert big.error_fraction == pytest.approx(CURVE_ERROR[Provenance.MEASURED])
        assert small.error_fraction == pytest.approx(CURVE_ERROR[Provenance.ASSUMED])
        assert told.workflows[0].error_fraction == pytest.approx((0.05 + 0.35) / 2)

    with pytest.raises(UnknownNameError, match="critical-pat"):
        find_predictor("critical-pat")


def test_a_curve_that_knows_its_own_error_brings_it() -> None:
    found = demand([execution(("big", 0, 2, 10)) for _ in range(3)])
    fitted = replace(flat(BIG, 1.0, provenance=Provenance.EXTRAPOLATED), error_fraction=0.8)

    for name in PREDICTORS:
        told = find_predictor(name)([rated(found)], GROUPS, ProfileSet((fitted,)))
        assert told.workflows[0].error_fraction == pytest.approx(0.8)
