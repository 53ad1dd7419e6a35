"""How long calls may be passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch_bound import Bounds
from scepsy.policy.dispatch_call import Live, Means, Waiting
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.route import CallView


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=1, max_size=80))
def test_a_bound_is_that_of_what_waits_and_the_first_that_is_due_is_told(
    kinds: list[tuple[bool, int]],
) -> None:
    chosen = Settings(least_bound_s=40.0, patience=2.0, many_ratio=1.5)
    bounds, calls, work_s = Bounds(chosen), list[Waiting](), 0.0
    for number, (of_many, work) in enumerate(kinds):
        view = CallView(id="", execution=ExecutionId(""), workflow="w", role="r", prompt_tokens=1)
        call = Waiting(view, Live(), Means("w", "r"), float(number), number)
        call.cold_s = float(work)
        bounds.add(float(number), call, 4, of_many=of_many)
        work_s += work
        bound_s = 40 + 2 * (1.5 if of_many else 1) * work_s / 4
        assert call.due_s - number == pytest.approx(bound_s)
        assert bounds.hard_s(call) - number == pytest.approx(chosen.revoke_ratio * bound_s)
        calls.append(call)
    while calls:
        first = bounds.first()
        assert first.due_s == min(call.due_s for call in calls)
        calls.remove(first)
        bounds.leave(first, is_last=not calls)
    assert bounds.bound_s(4) == chosen.least_bound_s
