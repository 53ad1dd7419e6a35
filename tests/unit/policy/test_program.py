"""The state machine of an execution: every pair of state and event has an answer."""

from pathlib import Path

import pytest

from scepsy.errors import InputError
from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import WorkflowName
from scepsy.policy.program import (
    TABLE,
    Event,
    Hints,
    Program,
    Refusal,
    State,
    Step,
    TenantName,
    ToolName,
)


def program() -> Program:
    return Program(
        execution=ExecutionId("e"), tenant=TenantName("t"), workflow=WorkflowName("w"), start_s=0.0
    )


def after(*events: Event) -> Program:
    found = program()
    for event in events:
        assert not isinstance(found.handle(event), Refusal)
    return found


ARRIVED, STARTED, ENDED = Event.CALL_ARRIVED, Event.CALL_STARTED, Event.CALL_ENDED


def test_every_state_answers_every_event() -> None:
    assert set(TABLE) == set(State)
    assert all(set(row) == set(Event) for row in TABLE.values())


def described(step: Step) -> str:
    if isinstance(step, Refusal):
        return f"*{step}*"
    return " / ".join(state for state in State if state in step)


def test_the_page_shows_the_table() -> None:
    live = [state for state in State if state not in {State.FINISHED, State.ABANDONED}]
    rows = [f"| event | {' | '.join(live)} |", "|---|---|---|---|---|"]
    for event in Event:
        rows.append(f"| {event} | {' | '.join(described(TABLE[s][event]) for s in live)} |")
    page = Path(__file__).parents[3] / "docs" / "concepts" / "programs.md"
    assert "\n".join(rows) in page.read_text()


def test_nothing_happens_to_an_execution_that_is_over() -> None:
    for state in (State.FINISHED, State.ABANDONED):
        assert set(TABLE[state].values()) == {Refusal.IS_OVER}


def test_it_runs_while_any_of_its_calls_runs() -> None:
    found = after(ARRIVED, ARRIVED, STARTED, STARTED, ENDED)
    assert found.state is State.RUNNING
    assert found.handle(ENDED) is State.TOOL_GAP


def test_calls_that_wait_when_the_last_one_that_runs_ends_wait_on() -> None:
    assert after(ARRIVED, ARRIVED, STARTED, ENDED).state is State.WAITING


def test_a_call_that_starts_must_have_waited() -> None:
    found = after(ARRIVED, STARTED)
    assert found.handle(STARTED) is Refusal.NO_CALL_WAITS
    assert (found.state, found.running_calls) == (State.RUNNING, 1)


def test_a_pause_holds_calls_until_it_is_resumed() -> None:
    found = after(ARRIVED, STARTED, ENDED, Event.PAUSED, ARRIVED)
    assert found.handle(STARTED) is Refusal.IS_PAUSED
    assert found.handle(Event.RESUMED) is State.WAITING
    assert found.handle(STARTED) is State.RUNNING


def test_it_is_not_paused_between_tool_boundaries() -> None:
    assert after(ARRIVED, STARTED).handle(Event.PAUSED) is Refusal.CALLS_RUN


def test_last_words_let_the_calls_in_flight_end() -> None:
    found = after(ARRIVED, STARTED, Event.TOLD_FINISHED)
    assert found.state is State.RUNNING
    assert found.handle(ENDED) is State.FINISHED


def test_a_client_that_leaves_takes_its_calls_along() -> None:
    found = after(ARRIVED, ARRIVED, STARTED, Event.CLIENT_GONE)
    assert found.state is State.ABANDONED
    assert (found.calls_in_flight, found.dropped_calls, found.steps) == (0, 2, 2)


@pytest.mark.parametrize("before", [(ARRIVED,), (ARRIVED, STARTED), (Event.PAUSED, ARRIVED)])
def test_an_execution_with_a_call_does_not_time_out(before: tuple[Event, ...]) -> None:
    found = after(*before)
    assert isinstance(found.handle(Event.TIMED_OUT), Refusal)
    assert not found.is_over


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_hint_that_is_no_duration_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="gap_s"):
        Hints(gap_s=value)
    with pytest.raises(InputError, match="output_tokens"):
        Hints(output_tokens=value)


def test_a_deadline_is_a_time() -> None:
    with pytest.raises(InputError, match="deadline_s"):
        Hints(deadline_s=float("nan"))


def test_wishes_outlast_forecasts() -> None:
    hints = Hints(next_tool=ToolName("x"), gap_s=3.0, deadline_s=9.0, priority=2)
    assert hints.wishes() == Hints(deadline_s=9.0, priority=2)
    assert hints.wishes().wishes() is not None
