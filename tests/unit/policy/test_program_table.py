"""The table of live executions: what it keeps of them, learns from them, and lets go."""

import tracemalloc

import pytest

from scepsy.errors import InputError
from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.learned import Learned
from scepsy.policy.program import Hints, Program, Refusal, State, ToolName
from scepsy.policy.program_table import CallArrived, CallEnded, Limits, Programs

W = WorkflowName("w")
PLAN, ACT = Stage(W, LlmName("big"), Role("plan")), Stage(W, LlmName("small"))
E1 = ExecutionId("e1")


def call(
    programs: Programs,
    *,
    start_s: float,
    end_s: float,
    name: str = "e1",
    stage: Stage = PLAN,
    prompt: int = 100,
    output: int = 10,
    tool: str = "",
    hints: Hints | None = None,
) -> None:
    execution = ExecutionId(name)
    programs.arrived(
        CallArrived(execution=execution, stage=stage, prompt_tokens=prompt, hints=hints), start_s
    )
    programs.started(execution)
    programs.ended(
        CallEnded(
            execution=execution,
            stage=stage,
            output_tokens=output,
            kv_tokens=prompt + output,
            gpu_s=end_s - start_s,
            tool=ToolName(tool),
        ),
        end_s,
    )


def live(programs: Programs, name: str = "e1") -> Program:
    found = programs.get(ExecutionId(name))
    assert found is not None
    return found


def test_a_record_sums_up_its_calls() -> None:
    programs = Programs()
    call(programs, start_s=0.0, end_s=2.0, prompt=100, output=10, tool="grep")
    call(programs, start_s=5.0, end_s=6.0, prompt=150, output=20, stage=ACT, tool="edit")
    found = live(programs)
    assert (found.prompt_tokens, found.output_tokens, found.gpu_s) == (250, 30, 3.0)
    assert (found.steps, found.stage, found.stage_before) == (2, ACT, PLAN)
    assert found.kv_tokens == {"big": 110, "small": 170}
    assert (found.state, found.tool, found.gap_start_s) == (State.TOOL_GAP, "edit", 6.0)


def test_what_it_does_not_know_is_refused_by_name() -> None:
    programs = Programs()
    unknown = ExecutionId("nobody")
    over = CallEnded(execution=unknown, stage=PLAN, output_tokens=1, kv_tokens=1)
    answers = [
        programs.started(unknown),
        programs.ended(over, 0.0),
        programs.dropped(unknown, 0.0),
        programs.told_finished(unknown, 0.0),
        programs.client_gone(unknown, 0.0),
    ]
    assert set(answers) == {Refusal.UNKNOWN}
    programs.kv_lost(unknown)
    assert len(programs) == 0


def test_a_call_that_ends_without_having_run_changes_nothing() -> None:
    programs = Programs()
    programs.arrived(CallArrived(execution=E1, stage=PLAN, prompt_tokens=5), 0.0)
    over = CallEnded(execution=E1, stage=PLAN, output_tokens=7, kv_tokens=12)
    assert programs.ended(over, 1.0) is Refusal.NO_CALL_RUNS
    assert live(programs).output_tokens == 0


def test_what_is_over_leaves_the_table_and_may_come_back_as_new() -> None:
    programs = Programs()
    call(programs, start_s=0.0, end_s=1.0)
    assert programs.told_finished(E1, 2.0) is State.FINISHED
    assert (len(programs), programs.idle) == (0, 0)
    call(programs, start_s=3.0, end_s=4.0)
    assert live(programs).steps == 1


def test_last_words_before_the_last_call_ends() -> None:
    programs = Programs()
    programs.arrived(CallArrived(execution=E1, stage=PLAN, prompt_tokens=5), 0.0)
    programs.started(E1)
    assert programs.told_finished(E1, 0.5) is State.RUNNING
    over = CallEnded(execution=E1, stage=PLAN, output_tokens=7, kv_tokens=12)
    assert programs.ended(over, 1.0) is State.FINISHED
    assert len(programs) == 0


def test_silence_abandons_after_the_limit_and_not_before() -> None:
    programs = Programs(limits=Limits(gap_s=60.0))
    call(programs, start_s=0.0, end_s=1.0)
    call(programs, start_s=0.0, end_s=50.0, name="e2")
    assert programs.expire(60.9) == ()
    gone = programs.expire(61.0)
    assert [(program.execution, program.state) for program in gone] == [("e1", State.ABANDONED)]
    assert len(programs) == 1


def test_a_full_table_gives_up_the_longest_gap_and_never_one_with_a_call() -> None:
    programs = Programs(limits=Limits(programs=2))
    call(programs, start_s=0.0, end_s=9.0, name="old")
    call(programs, start_s=0.0, end_s=5.0, name="older")
    for name in ("new", "newer"):
        arrived = CallArrived(execution=ExecutionId(name), stage=PLAN, prompt_tokens=1)
        assert programs.arrived(arrived, 10.0) is State.WAITING
    assert [program.execution for program in programs] == ["new", "newer"]
    newest = CallArrived(execution=ExecutionId("newest"), stage=PLAN, prompt_tokens=1)
    assert programs.arrived(newest, 11.0) is Refusal.FULL
    assert len(programs) == 2


def test_pausing_is_of_the_execution_and_its_gap_goes_on() -> None:
    programs = Programs()
    call(programs, start_s=0.0, end_s=1.0)
    assert programs.paused(E1) is State.PAUSED
    arrived = CallArrived(execution=E1, stage=PLAN, prompt_tokens=1)
    assert programs.arrived(arrived, 5.0) is State.PAUSED
    assert programs.idle == 0
    assert programs.resumed(E1) is State.WAITING


def test_a_call_that_was_dropped_starts_a_gap_of_another_kind() -> None:
    programs = Programs()
    programs.arrived(CallArrived(execution=E1, stage=PLAN, prompt_tokens=1), 0.0)
    assert programs.dropped(E1, 3.0) is State.TOOL_GAP
    assert (live(programs).tool, live(programs).gap_start_s) == ("(dropped)", 3.0)
    assert programs.client_gone(E1, 4.0) is State.ABANDONED


def test_what_is_known_is_used_from_the_first_executions_on() -> None:
    programs = Programs()
    for i in range(20):
        at_s = 100.0 * i
        call(programs, name=str(i), start_s=at_s, end_s=at_s + 1, prompt=100, tool="fast")
        call(
            programs,
            name=str(i),
            start_s=at_s + 1.5,
            end_s=at_s + 3,
            prompt=300,
            stage=ACT,
            output=1_000,
            tool="slow",
        )
        call(programs, name=str(i), start_s=at_s + 63, end_s=at_s + 64)
        programs.told_finished(ExecutionId(str(i)), at_s + 64)
    call(programs, start_s=3_000.0, end_s=3_001.0, tool="fast")
    found, learned = live(programs), programs.learned
    assert learned.gap(found, 3_001.0).returns_within(1.0) > 0.8
    assert learned.output(found, ACT).expected_wait(1e5) == pytest.approx(1_000, rel=0.5)
    assert learned.output(found, PLAN).expected_wait(1e5) < 200
    assert 250 < learned.new_tokens(found).quantile(0.5) < 350
    assert learned.steps_left(found) > 1.5
    call(programs, start_s=3_001.5, end_s=3_003.0, stage=ACT, tool="slow")
    assert learned.gap(found, 3_003.0).returns_within(10.0) < 0.2
    assert learned.gap(found, 3_033.0).returns_within(60.0) > 0.8


def test_an_answers_expected_length_is_checked_like_its_gap() -> None:
    programs = Programs()
    for i in range(60):
        output = 10 if i % 2 else 5_000
        told = Hints(output_tokens=output * 2.0)
        call(programs, start_s=float(i), end_s=i + 0.5, output=output, hints=told)
    programs.arrived(
        CallArrived(execution=E1, stage=PLAN, prompt_tokens=1, hints=Hints(output_tokens=20.0)),
        99.0,
    )
    forecast = programs.learned.output(live(programs), PLAN)
    assert forecast.returns_within(15.0) > 0.7


def test_wishes_stay_and_forecasts_go() -> None:
    programs = Programs()
    call(programs, start_s=0.0, end_s=1.0, hints=Hints(gap_s=3.0, deadline_s=50.0))
    assert live(programs).hints.gap_s == 3.0
    call(programs, start_s=2.0, end_s=3.0)
    assert live(programs).hints == Hints(deadline_s=50.0)


def test_kv_that_is_lost_is_new_again() -> None:
    programs = Programs()
    call(programs, start_s=0.0, end_s=1.0)
    programs.kv_lost(E1)
    assert live(programs).kv_tokens == {}


@pytest.mark.parametrize("limits", [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_limits_that_hold_nothing_are_refused(limits: tuple[int, float]) -> None:
    with pytest.raises(InputError, match="limits"):
        Limits(programs=limits[0], gap_s=limits[1])


def test_a_live_execution_takes_less_than_8_kib() -> None:
    programs = Programs(Learned())
    call(programs, start_s=0.0, end_s=0.0, name="warm", tool="t")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(1_000):
        for stage in (PLAN, ACT):
            call(programs, name=f"execution-{i}", start_s=i, end_s=i, stage=stage, tool="t")
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(programs) == 1_001
    assert taken / 1_000 < 8 * 1024


def test_memory_is_bounded_whatever_clients_call_their_tools() -> None:
    programs = Programs(Learned(most_nodes=50), Limits(programs=50))
    for i in range(2_000):
        call(programs, name=str(i), start_s=i, end_s=i, tool=f"tool-{i}", hints=Hints(gap_s=1.0))
    assert len(programs) == 50
    assert programs.learned.nodes <= 7 * 50
