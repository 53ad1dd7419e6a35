"""How long calls may be passed over, and that few may be for longer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch_bound import Bounds
from scepsy.policy.dispatch_call import Live, Means, Waiting
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.route import CallView


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=1, max_size=80),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([1.0, 4.0]),
)
def test_few_calls_wait_for_longer_only_some_kinds_and_each_once(
    kinds: list[tuple[bool, int]], fraction: float, ratio: float
) -> None:
    chosen = Settings(least_bound_s=40.0, late_fraction=fraction, late_ratio=ratio)
    bounds = Bounds(chosen)
    calls: list[tuple[Waiting, float]] = []
    late: list[Waiting] = []
    for number, (may_be_late, work) in enumerate(kinds):
        view = CallView(id="", execution=ExecutionId(""), workflow="w", role="r", prompt_tokens=1)
        call = Waiting(view, Live(), Means("w", "r"), float(number), number)
        call.may_be_late, call.cold_s = may_be_late, float(work)
        bounds.add(float(number), call, 1)
        calls.append((call, bounds.hard_s(call) - number))
        if bounds.let_wait(bounds.first()):
            late = [each for each, _ in calls if each.turn_s == 0.0]
    assert len(late) <= fraction * len(kinds)
    assert all(kinds[call.serial][0] for call in late)
    assert all(bound_s >= chosen.revoke_ratio * 60.0 for call, bound_s in calls if call in late)
    for call, bound_s in calls:
        factor = ratio if call in late else 1.0
        assert bounds.hard_s(call) - call.arrived_s <= factor * bound_s + 1e-6
    passed_s = bounds.bound_s(1) - chosen.least_bound_s
    of_many_s = bounds.bound_s(1, of_many=True) - chosen.least_bound_s
    assert of_many_s == pytest.approx(chosen.many_ratio * passed_s)
    due = [call for call, _ in calls]
    for _ in calls:
        first = bounds.first()
        assert first.due_s == min(call.due_s for call in due)
        due.remove(first)
        bounds.leave(first, is_last=not due)
    assert bounds.bound_s(1) == chosen.least_bound_s
