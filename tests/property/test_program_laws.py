"""Whatever happens to executions, their calls are conserved and their table keeps its bounds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.learned import Learned
from scepsy.policy.program import (
    TABLE,
    Event,
    Hints,
    Program,
    Refusal,
    State,
    TenantName,
    ToolName,
)
from scepsy.policy.program_table import CallArrived, CallEnded, Limits, Programs

quick = settings(max_examples=60, deadline=None)
CALLS = [Event.CALL_ARRIVED, Event.CALL_STARTED, Event.CALL_ENDED]
EVENTS = st.sampled_from([*CALLS * 6, *Event])  # else most end before a call has
STAGES = [
    Stage(WorkflowName(workflow), LlmName(llm), Role(role))
    for workflow, llm, role in [("a", "x", ""), ("a", "y", "judge"), ("b", "x", "")]
]
HINTS = st.none() | st.builds(
    Hints,
    next_tool=st.none() | st.sampled_from([ToolName("t"), ToolName("u")]),
    gap_s=st.none() | st.floats(1e-6, 1e9),
    output_tokens=st.none() | st.floats(1e-6, 1e9),
)


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, str, float, int, Hints | None]]:
    """What happens to which execution, how much later than before."""
    kinds = ["arrived", "started", "ended", "dropped", "paused", "resumed", "told", "gone", "wait"]
    one = st.tuples(
        st.sampled_from([*kinds, "arrived", "started", "ended"]),
        st.sampled_from("123456"),
        st.sampled_from([0.0, 0.1, 1.0, 40.0, 90.0]),
        st.integers(0, 100_000),
        HINTS,
    )
    return draw(st.lists(one, max_size=60))


def play(
    programs: Programs, happened: list[tuple[str, str, float, int, Hints | None]]
) -> list[str]:
    """Let it happen; give the answers."""
    now_s, answers = 0.0, []
    for kind, name, later_s, tokens, hints in happened:
        now_s += later_s
        execution, stage = ExecutionId(name), STAGES[tokens % len(STAGES)]
        if kind == "arrived":
            call = CallArrived(execution=execution, stage=stage, prompt_tokens=tokens, hints=hints)
            answers.append(programs.arrived(call, now_s))
        elif kind == "ended":
            over = CallEnded(
                execution=execution,
                stage=stage,
                output_tokens=tokens // 9,
                kv_tokens=tokens,
                tool=ToolName("tu"[tokens % 2]),
                gpu_s=0.5,
            )
            answers.append(programs.ended(over, now_s))
        elif kind == "wait":
            answers += [program.state for program in programs.expire(now_s)]
        else:
            answers.append(other(programs, kind, execution, now_s))
    return list(map(str, answers))


def other(programs: Programs, kind: str, execution: ExecutionId, now_s: float) -> str:
    if kind == "started":
        return programs.started(execution)
    if kind == "dropped":
        return programs.dropped(execution, now_s)
    if kind == "paused":
        return programs.paused(execution)
    if kind == "resumed":
        return programs.resumed(execution)
    if kind == "told":
        return programs.told_finished(execution, now_s)
    return programs.client_gone(execution, now_s)


@given(st.lists(EVENTS, min_size=10, max_size=40))
@quick
def test_an_execution_follows_its_table_and_conserves_its_calls(events: list[Event]) -> None:
    program = Program(
        execution=ExecutionId("e"), tenant=TenantName("t"), workflow=WorkflowName("w"), start_s=0.0
    )
    arrived = 0
    for event in events:
        before, counts = program.state, (program.waiting_calls, program.running_calls)
        found = program.handle(event)
        if isinstance(found, Refusal):
            unchanged = (program.waiting_calls, program.running_calls)
            assert (program.state, unchanged) == (before, counts)
        else:
            allowed = TABLE[before][event]
            assert not isinstance(allowed, Refusal)
            assert found is program.state
            assert found in allowed
            arrived += event is Event.CALL_ARRIVED
        parts = (program.waiting_calls, program.running_calls)
        assert min(*parts, program.ended_calls, program.dropped_calls) >= 0
        assert sum(parts) + program.ended_calls + program.dropped_calls == arrived
        if program.state is not State.PAUSED:
            assert (program.state is State.RUNNING) == (program.running_calls > 0)
        if program.is_over or program.state is State.TOOL_GAP:
            assert program.calls_in_flight == 0


@given(happenings(), st.integers(1, 4))
@quick
def test_the_table_keeps_its_bounds_and_knows_who_is_in_a_gap(
    happened: list[tuple[str, str, float, int, Hints | None]], most: int
) -> None:
    for length in range(1, len(happened) + 1, 7):
        programs = Programs(Learned(), Limits(programs=most, gap_s=100.0))
        play(programs, happened[:length])
        assert len(programs) <= most
        assert programs.idle == sum(not program.calls_in_flight for program in programs)
        assert not any(program.is_over for program in programs)


@given(happenings())
@quick
def test_the_same_events_give_the_same_forecasts(
    happened: list[tuple[str, str, float, int, Hints | None]],
) -> None:
    one, two = Programs(), Programs()
    assert play(one, happened) == play(two, happened)
    for a, b in zip(one, two, strict=True):
        assert one.learned.gap(a, 1e4).returns_within(9.0) == two.learned.gap(
            b, 1e4
        ).returns_within(9.0)


@given(happenings())
@quick
def test_silence_ends_every_execution_without_a_call(
    happened: list[tuple[str, str, float, int, Hints | None]],
) -> None:
    programs = Programs(limits=Limits(gap_s=100.0))
    play(programs, happened)
    idle = {program.execution for program in programs if not program.calls_in_flight}
    gone = programs.expire(1e9)
    assert {program.execution for program in gone} == idle
    assert {program.state for program in gone} <= {State.ABANDONED}
    assert programs.idle == 0
