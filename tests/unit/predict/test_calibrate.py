"""Corrections from traffic whose error is known."""

import pytest

from scepsy.errors import InputError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.calibrate import corrected, corrections
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.traces.demand import demand

GPU, WORKFLOW, LLM = GpuTypeName("h100"), WorkflowName("w"), LlmName("m")
GROUPS = Allocation((ReplicaGroup(llm=LLM, gpu_type=GPU, tensor_parallel=1),))


def served(executions: int, call_s: float, rate_per_s: float = 1.0) -> RatedWorkflow:
    """Executions of one call, which take ``call_s`` give or take a tenth."""
    found = []
    for number in range(executions):
        length_s = call_s * (0.9 if number % 2 else 1.1)
        call = Call(
            id=CallId(str(number)),
            execution=ExecutionId(str(number)),
            workflow=WORKFLOW,
            llm=LLM,
            start_s=float(number),
            end_s=number + length_s,
            prompt_tokens=10,
            output_tokens=10,
        )
        found.append(Execution(call.execution, WORKFLOW, (call,)))
    return RatedWorkflow(demand(found), WorkflowRate(WORKFLOW, rate_per_s))


def profiles() -> ProfileSet:
    """Latency 1 s without load to 3 s at 0.8, on two shapes, 4 calls/s."""
    return ProfileSet(
        tuple(
            ProfileCurve(
                key=ProfileKey(
                    stage=Stage(WORKFLOW, LLM),
                    gpu_type=GPU,
                    tensor_parallel=degree,
                    gpu_fraction=1.0,
                ),
                capacity_per_s=4.0,
                points=tuple(
                    ProfilePoint(
                        utilization=u, latency_s_mean=s, latency_s_p95=2 * s, ttft_s_mean=s / 10
                    )
                    for u, s in ((0.0, 1.0), (0.8, 3.0))
                ),
                provenance=Provenance.SIMULATED,
                source="made up",
            )
            for degree in (1, 2)
        )
    )


def test_a_stage_that_is_slower_than_thought_is_corrected_on_all_shapes() -> None:
    """At 1 of 4 calls/s the curve says 1.625 s; 2.4375 s were served: half as much again."""
    found = corrections([served(100, 2.4375)], GROUPS, profiles())

    better = corrected(profiles(), found)

    assert found[0].utilization == pytest.approx(0.25)
    assert found[0].factor == pytest.approx(1.5)
    assert [curve.latency_s(0.8) for curve in better.curves] == [pytest.approx(4.5)] * 2
    assert better.curves[0].points[0].latency_s_p95 == pytest.approx(3.0)
    assert "x 1.500 from 100 calls served at 25%" in better.curves[1].source
    assert corrections([served(100, 2.4375)], GROUPS, better)[0].factor == 1.0


@pytest.mark.parametrize(("executions", "call_s"), [(20, 2.4375), (100, 1.64)])
def test_too_few_calls_or_a_difference_within_the_error_change_nothing(
    executions: int, call_s: float
) -> None:
    found = corrections([served(executions, call_s)], GROUPS, profiles())

    assert found[0].factor == 1.0
    assert corrected(profiles(), found) == profiles()


def test_what_no_correction_explains_is_refused() -> None:
    with pytest.raises(InputError, match="no correction explains"):
        corrections([served(100, 50.0)], GROUPS, profiles())
    with pytest.raises(InputError, match="120% of its predicted capacity"):
        corrections([served(100, 1.0, rate_per_s=4.8)], GROUPS, profiles())
