"""For how long KV is worth its room."""

import pytest

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.learned_hold import AGES_S, Holds, indices
from scepsy.policy.program import NO_TENANT, Hints, Program
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


def test_an_index_is_the_best_ratio_of_chance_and_time() -> None:
    forecast = after(8.0, times=20).learned.gap(
        Program(
            execution=ExecutionId("e"),
            tenant=NO_TENANT,
            workflow=STAGE.workflow,
            start_s=0.0,
            stage=STAGE,
        ),
        0.0,
    )
    came = [forecast.returns_within(age) for age in AGES_S]
    held = [forecast.expected_wait(age) for age in AGES_S]
    for now, index in enumerate(indices(forecast)):
        later = range(now + 1, len(AGES_S))
        ratios = [(came[at] - came[now]) / (held[at] - held[now]) for at in later]
        assert index == pytest.approx(max(ratios, default=0.0))
