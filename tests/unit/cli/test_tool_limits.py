import pytest

from scepsy.cli.tool_limits import limited
from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.traces.demand import WorkflowDemand, demand

WORKFLOW = WorkflowName("w")


@pytest.fixture
def recorded() -> WorkflowDemand:
    """Two calls with 2 s of a tool between them."""
    calls = tuple(
        Call(
            id=CallId(str(at)),
            execution=ExecutionId("e"),
            workflow=WORKFLOW,
            llm=LlmName("m"),
            start_s=3.0 * at,
            end_s=3.0 * at + 1,
            prompt_tokens=1,
            output_tokens=1,
        )
        for at in range(2)
    )
    return demand([Execution(ExecutionId("e"), WORKFLOW, calls)])


def test_a_limit_lengthens_the_gaps_of_its_workflow(recorded: WorkflowDemand) -> None:
    rates = [WorkflowRate(WORKFLOW, 0.25)]

    (same,) = limited([recorded], rates, [])
    (longer,) = limited([recorded], rates, ["w/m=1"])

    assert same == recorded
    assert longer.executions[0].gap_s == pytest.approx(2 + 2 * 0.5 / 0.5 / 2)


def test_what_is_no_limit_is_refused(recorded: WorkflowDemand) -> None:
    rates = [WorkflowRate(WORKFLOW, 0.25)]

    with pytest.raises(InputError, match="gives no number"):
        limited([recorded], rates, ["w/m"])
    with pytest.raises(UnknownNameError, match="w/x"):
        limited([recorded], rates, ["w/x=2"])
