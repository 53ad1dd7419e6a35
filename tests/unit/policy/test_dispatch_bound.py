"""How long calls may be passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch_bound import Bounds
from scepsy.policy.dispatch_call import Live, Means, Place, Waiting
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import TenantName
from scepsy.policy.route import CallView

INF = float("inf")


def waiting(number: int, work_s: float, tenant: str = "a") -> Waiting:
    name = TenantName(tenant)
    view = CallView(
        id="", execution=ExecutionId(""), workflow="w", role="r", prompt_tokens=1, tenant=name
    )
    call = Waiting(view, Live(), Means("w", "r"), float(number), number)
    call.cold_s = work_s
    return call


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=1, max_size=80))
def test_a_bound_is_that_of_what_waits_and_the_first_that_is_due_is_told(
    kinds: list[tuple[bool, int]],
) -> None:
    chosen = Settings(least_bound_s=40.0, patience=2.0, many_ratio=1.5)
    bounds, calls, work_s = Bounds(chosen), list[Waiting](), 0.0
    for number, (of_many, work) in enumerate(kinds):
        call = waiting(number, float(work))
        bounds.add(float(number), call, 4, of_many=of_many)
        work_s += work
        bound_s = 40 + 2 * (1.5 if of_many else 1) * work_s / 4
        assert call.due_s - number == pytest.approx(bound_s)
        assert call.hard_s - number == pytest.approx(chosen.revoke_ratio * bound_s)
        calls.append(call)
    (tenant,) = bounds.tenants
    while calls:
        first = bounds.first(tenant)
        assert first.due_s == min(call.due_s for call in calls)
        assert bounds.next_s(0.0) == first.due_s
        assert bounds.next_s(first.due_s) == first.hard_s
        assert bounds.next_s(first.hard_s) == INF
        assert bounds.due_at_door(tenant, first.due_s - 0.5) is None
        assert bounds.due_at_door(tenant, first.due_s) is first
        first.place = Place.REPLICA
        assert bounds.due_at_door(tenant, first.due_s) is None
        calls.remove(first)
        bounds.leave(first, is_last=not calls)
    assert not bounds.tenants
    assert bounds.due_at_door(tenant, INF) is None
    assert bounds.next_s(0.0) == INF


def test_a_bound_is_by_what_the_tenants_own_calls_take_in_turn_with_the_others() -> None:
    chosen = Settings(
        least_bound_s=0.0, patience=1.0, weights={TenantName("b"): 3.0, TenantName("c"): 0.5}
    )
    bounds = Bounds(chosen)
    first = waiting(0, 60.0)
    bounds.add(0.0, first, 2)
    assert first.due_s == 30.0
    calls = [first]
    # b has three quarters, then 3 of 4.5; of a flood's own bound all that wait is the most
    for tenant, work_s, due_s in (("b", 9.0, 6.0), ("c", 2.0, 9.0), ("c", 100.0, 85.5)):
        calls.append(waiting(len(calls), work_s, tenant))
        bounds.add(0.0, calls[-1], 2)
        assert calls[-1].due_s == due_s

    for call in calls[1:]:
        bounds.leave(call, is_last=False)
    assert list(bounds.tenants) == ["a"]
    last = waiting(9, 4.0)
    bounds.add(0.0, last, 2)
    assert last.due_s == 32.0
