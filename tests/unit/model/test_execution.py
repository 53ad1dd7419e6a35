"""Calls and executions refuse what cannot have happened."""

from dataclasses import replace

import pytest

from scepsy.errors import InputError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName

RUN = ExecutionId("run-1")
FLOW = WorkflowName("flow")
CALL = Call(
    id=CallId("c1"),
    execution=RUN,
    workflow=FLOW,
    llm=LlmName("qwen3-8b"),
    start_s=10.0,
    first_token_s=11.0,
    end_s=14.0,
    prompt_tokens=100,
    output_tokens=20,
)


def test_times_are_derived_from_instants() -> None:
    assert (CALL.e2e_s, CALL.ttft_s) == (4.0, 1.0)
    assert replace(CALL, first_token_s=None).ttft_s is None
    assert CALL.stage == Stage(FLOW, LlmName("qwen3-8b"))
    assert replace(CALL, role=Role("judge")).stage.label == "qwen3-8b:judge"


@pytest.mark.parametrize(
    ("start_s", "first_token_s", "end_s"),
    [(10, 9, 14), (10, 15, 14), (10, None, 9), (10, 0.0, 14), (float("nan"), None, 1)],
)
def test_refuses_instants_out_of_order(
    start_s: float, first_token_s: float | None, end_s: float
) -> None:
    """Zero is an instant like any other, not "none was seen"."""
    with pytest.raises(InputError, match="need start <= first token <= end"):
        replace(CALL, start_s=start_s, first_token_s=first_token_s, end_s=end_s)


@pytest.mark.parametrize("field", ["prompt_tokens", "output_tokens"])
def test_refuses_negative_tokens(field: str) -> None:
    with pytest.raises(InputError, match="tokens must be >= 0"):
        replace(CALL, **{field: -1})


def test_an_execution_lasts_until_its_last_call_ends() -> None:
    """Not the call that started last: the first one here outlives the second."""
    second = replace(CALL, id=CallId("c2"), start_s=11.0, first_token_s=None, end_s=12.0)
    execution = Execution(RUN, FLOW, (CALL, second))
    assert (execution.start_s, execution.end_s, execution.execution_s) == (10.0, 14.0, 4.0)


def test_refuses_an_execution_without_calls_or_out_of_order() -> None:
    with pytest.raises(InputError, match="has no calls"):
        Execution(RUN, FLOW, ())
    later = replace(CALL, start_s=10.5)
    with pytest.raises(InputError, match="sorted by start"):
        Execution(RUN, FLOW, (later, CALL))


def test_a_stage_has_a_workflow_and_an_llm() -> None:
    assert str(Stage(FLOW, LlmName("m"), Role("r"))) == "flow/m:r"
    assert str(Stage(FLOW, LlmName("m"))) == "flow/m"
    with pytest.raises(InputError, match="needs a workflow and an LLM"):
        Stage(FLOW, LlmName(""))
