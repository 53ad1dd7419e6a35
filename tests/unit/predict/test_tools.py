"""Waiting for tools of limited concurrency."""

import pytest

from scepsy.errors import InfeasibleError, InputError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import WorkflowRate
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.predict.tools import ToolLimit, tool_wait_s, with_tool_limits
from scepsy.traces.demand import demand
from scepsy.traces.gaps import GapDemand

WORKFLOW, LLM = WorkflowName("w"), LlmName("m")
STAGE = Stage(WORKFLOW, LLM)


def a_gap(cv: float) -> GapDemand:
    return GapDemand(
        after=STAGE,
        gaps_per_execution=2.0,
        gap_s_mean=0.25,
        gap_s_p50=0.25,
        gap_s_p95=0.25,
        gap_s_cv=cv,
        execution_fraction=0.5,
    )


def workflow(rate_per_s: float) -> RatedWorkflow:
    """Three calls of 1 s with 2 s of tools between them."""
    calls = tuple(
        Call(
            id=CallId(str(at)),
            execution=ExecutionId("e"),
            workflow=WORKFLOW,
            llm=LLM,
            start_s=3.0 * at,
            end_s=3.0 * at + 1,
            prompt_tokens=1,
            output_tokens=1,
        )
        for at in range(3)
    )
    recorded = [Execution(ExecutionId("e"), WORKFLOW, calls)]
    return RatedWorkflow(demand(recorded), WorkflowRate(WORKFLOW, rate_per_s))


@pytest.mark.parametrize(
    ("servers", "cv", "wait_s"),
    [
        (1, 1.0, 0.25),  # M/M/1 at 0.5: service x 0.5 / 0.5
        (1, 0.0, 0.125),  # M/D/1: half of it
        (2, 1.0, 0.25 / 15),  # M/M/2 at 0.25: service x u^2 / (1 - u^2)
    ],
)
def test_waits_are_those_of_queueing_theory(servers: int, cv: float, wait_s: float) -> None:
    assert tool_wait_s(a_gap(cv), 1.0, servers) == pytest.approx(wait_s)


def test_every_gap_of_an_execution_grows_and_llm_time_stays() -> None:
    """0.1 x 2 x 2 s keep one tool 40 % busy; constant times wait 2 x 0.4 / 0.6 / 2."""
    before = workflow(0.1)

    after = with_tool_limits(before, [ToolLimit(STAGE, 1)])

    wait_s = 2 * 0.4 / 0.6 / 2
    assert after.demand.executions[0].gap_s == pytest.approx(4 + 2 * wait_s)
    assert after.demand.stages == before.demand.stages
    assert after.demand.calls is not None
    retimed_s = after.demand.calls.executions_s(after.demand.calls.recorded_s)
    assert retimed_s.tolist() == pytest.approx([7 + 2 * wait_s])
    assert retimed_s[0] == pytest.approx(after.demand.executions[0].execution_s)


def test_a_tool_that_cannot_keep_up_is_an_answer() -> None:
    with pytest.raises(InfeasibleError, match=r"4\.0 executions busy.*2 are allowed") as caught:
        with_tool_limits(workflow(1.0), [ToolLimit(STAGE, 2)])

    assert caught.value.hint is not None
    assert "at least 5" in caught.value.hint
    assert "0.5 executions/s" in caught.value.hint


def test_limits_must_make_sense() -> None:
    with pytest.raises(InputError, match="at least 1"):
        ToolLimit(STAGE, 0)
    with pytest.raises(InputError, match="no tool runs after w/other"):
        with_tool_limits(workflow(1.0), [ToolLimit(Stage(WORKFLOW, LlmName("other")), 2)])
