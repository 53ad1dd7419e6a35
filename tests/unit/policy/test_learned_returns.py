"""What is learned of gaps, as retention asks for it."""

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.learned_hold import AGES_S, Holds, indices
from scepsy.policy.learned_returns import LearnedReturns
from scepsy.policy.program import Hints
from scepsy.policy.program_table import CallArrived, CallEnded, Programs

STAGE = Stage(WorkflowName("w"), LlmName("llm"))


def after(gap_s: float, times: int = 200, hints: Hints | None = None) -> Programs:
    """A table whose only execution came back each time after that long, and waits since 0 s."""
    programs, execution = Programs(), ExecutionId("e")
    for number in range(times + 1):
        at_s = (number - times) * gap_s
        arrived = CallArrived(execution=execution, stage=STAGE, prompt_tokens=10, hints=hints)
        programs.arrived(arrived, at_s)
        programs.started(execution)
        programs.ended(
            CallEnded(execution=execution, stage=STAGE, output_tokens=1, kv_tokens=11), at_s
        )
    return programs


def test_an_agent_returns_when_its_execution_did_so_far() -> None:
    found = LearnedReturns(after(8.0)).ended(0.0, "e/agent", "w/agent")

    assert found.probability(0.0, 4.0) < 0.1
    assert found.probability(0.0, 16.0) > 0.9
    assert 0 <= found.probability(0.0, 4.0) <= found.probability(0.0, 8.0) <= 1


def test_an_execution_that_is_over_does_not_return() -> None:
    programs = after(8.0)
    found = LearnedReturns(programs).ended(0.0, "e/agent", "w/agent")
    programs.told_finished(ExecutionId("e"), 0.0)

    assert found.probability(0.0, 1e4) == 0.0


def test_an_unknown_one_is_taken_to_return_as_its_workflow_does() -> None:
    found = LearnedReturns(after(8.0)).ended(0.0, "another/agent", "w/agent")

    assert found.probability(0.0, 4.0) < 0.2
    assert found.probability(0.0, 20.0) > 0.8


def test_kv_is_held_for_as_long_as_the_call_may_be_about_to_come() -> None:
    """With a return after 8 s in nearly all cases, room is worth 1/8 per s at first, and more
    later; after 8 s it is worth little."""
    programs = after(8.0)
    program = programs.get(ExecutionId("e"))
    assert program is not None
    holds = Holds(programs.learned)

    assert 6.0 <= holds.hold_s(program, 0.08) <= 16.0
    assert holds.hold_s(program, 10.0) == 0.0
    assert holds.hold_s(program, 0.0) == AGES_S[-1]


def test_a_hint_of_a_source_that_was_right_moves_what_is_held() -> None:
    programs = after(8.0, hints=Hints(gap_s=8.0))
    program = programs.get(ExecutionId("e"))
    assert program is not None
    as_hinted = indices(programs.learned.gap(program, 0.0))[0]
    program.hints = Hints(gap_s=800.0)

    assert indices(programs.learned.gap(program, 0.0))[0] < as_hinted
