"""Laws of deadlines at the door of a dispatcher."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch import CallResult
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import Hints
from scepsy.policy.route import CallView
from tests.property.made_up_calls import MOST_S, Harness, MadeUp, the_calls, the_settings

pytestmark = pytest.mark.no_cover

FAR_S = 1e6


@st.composite
def calls_with_deadlines(draw: st.DrawFn) -> list[MadeUp]:
    """Some past already when the call comes, some that cannot be kept, some far away."""
    found = []
    for call in draw(the_calls()):
        ahead_s = draw(st.sampled_from([None, None, -1.0, 0.5, 8.0, 60.0, FAR_S]))
        deadline_s = None if ahead_s is None else call.at_s + ahead_s
        hints = replace(call.view.hints, deadline_s=deadline_s)
        found.append(call._replace(view=call.view._replace(hints=hints)))
    return found


@given(calls_with_deadlines(), the_settings(), st.integers(1, 3))
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_call_is_passed_over_beyond_the_bound_for_others_deadlines(
    calls: list[MadeUp], chosen: Settings, replicas: int
) -> None:
    """Who has waited for the bound, and longest of all, goes within the time of one call."""
    harness = Harness(calls, replace(chosen, patience=0.0, shares=False), replicas)
    for _ in harness.run():
        pass

    free_s = 0.0
    for number, call in enumerate(calls):  # by arrival
        due_s = max(free_s, call.at_s + chosen.revoke_ratio * chosen.least_bound_s)
        assert harness.sent_s[number] <= due_s + MOST_S + 1e-9
        free_s = max(free_s, harness.sent_s[number])


@given(the_calls(), the_settings(), st.integers(1, 3), st.sampled_from([-FAR_S, FAR_S]))
@hypothesis_settings(max_examples=30, deadline=None)
def test_deadlines_that_all_are_past_or_equal_change_nothing(
    calls: list[MadeUp], chosen: Settings, replicas: int, deadline_s: float
) -> None:
    """Equal for all, with equal work of all at one level: nobody must begin sooner."""
    flat = replace(chosen, level_ratio=1.0)
    alike = [call._replace(view=call.view._replace(prompt_tokens=100)) for call in calls]
    if deadline_s > 0:
        flat = replace(flat, routes=False)
    plain, hinted = (
        [
            call._replace(
                view=call.view._replace(hints=replace(call.view.hints, deadline_s=deadline))
            )
            for call in alike
        ]
        for deadline in (None, deadline_s)
    )
    found = []
    for each in (plain, hinted):
        harness = Harness(each, flat, replicas)
        for _ in harness.run():
            pass
        found.append(harness.sent_s)
    assert found[0] == found[1]


@given(st.integers(1, 3), st.sampled_from([1.25, 2.0, 3.0]), st.sampled_from([2.0, 20.0, FAR_S]))
def test_a_stream_of_calls_with_deadlines_does_not_keep_one_without_out(
    replicas: int, took_s: float, ahead_s: float
) -> None:
    """Twice as many come as can be served, so that there is always one who must begin sooner."""

    def made(at: int, at_s: float, deadline_s: float | None) -> MadeUp:
        view = CallView(
            id=str(at),
            execution=ExecutionId(str(at)),
            workflow="w",
            role="r",
            prompt_tokens=900,
            hints=Hints(deadline_s=deadline_s),
        )
        return MadeUp(at_s, view, took_s, CallResult(output_tokens=1))

    every_s = took_s / replicas / 2
    calls = [made(at, at * every_s, at * every_s + 30.0 + ahead_s) for at in range(60)]
    plain_s = 10 * every_s
    calls.insert(11, made(60, plain_s, None))
    calls = [call._replace(view=call.view._replace(id=str(at))) for at, call in enumerate(calls)]
    harness = Harness(calls, Settings(patience=0.0, least_bound_s=4.0), replicas)
    for _ in harness.run():
        pass

    before_s = max(harness.sent_s[at] for at in range(11))  # who are due no later
    assert harness.sent_s[11] <= max(before_s, plain_s + 4.0) + took_s
