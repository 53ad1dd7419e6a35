"""Laws of waiting at a dispatcher of programs: who may be passed over, and by how much."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.programs.shares import Shares
from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch import CallResult
from scepsy.policy.dispatch_call import work_s
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import TenantName
from scepsy.policy.route import CallView
from tests.property.made_up_calls import CAPACITY, MOST_S, Harness, MadeUp, the_calls, the_settings

pytestmark = pytest.mark.no_cover


@given(the_calls(), the_settings(), st.integers(1, 3), st.sampled_from([0, 0, 2000]))
@settings(max_examples=60, deadline=None)
def test_no_call_is_passed_over_beyond_the_bound(
    calls: list[MadeUp], chosen: Settings, replicas: int, host_tokens: int
) -> None:
    """Who has waited for the bound, and longest of all, goes within the time of one call."""
    chosen = replace(chosen, patience=0.0, shares=False)
    harness = Harness(calls, chosen, replicas, host_tokens)
    for _ in harness.run():
        pass

    free_s = 0.0
    for number, call in enumerate(calls):  # by arrival
        due_s = max(free_s, call.at_s + chosen.revoke_ratio * chosen.least_bound_s)
        assert harness.sent_s[number] <= due_s + MOST_S + 1e-9
        free_s = max(free_s, harness.sent_s[number])


@given(the_calls(), the_settings(), st.integers(1, 3), st.sampled_from([0, 0, 2000]))
@settings(max_examples=60, deadline=None)
def test_of_the_tenant_that_was_served_least_nobody_is_passed_over_beyond_the_bound(
    calls: list[MadeUp], chosen: Settings, replicas: int, host_tokens: int
) -> None:
    """Who has waited for the bound, and longest of its tenant, goes within the time of one call, or
    of two where a replica was being emptied for another's: if no tenant of whom calls wait was
    served less in the meantime."""
    chosen = replace(chosen, patience=0.0, shares=True)
    harness = Harness(calls, chosen, replicas, host_tokens)
    since: dict[int, float] = {}
    for now_s in harness.run():
        for number, since_s in since.items():
            assert harness.sent_s.get(number, now_s) <= since_s + 2 * MOST_S + 1e-9
        waited = [at for at, sent_s in harness.sent_s.items() if sent_s == now_s]
        waited += harness.waiting
        door = harness.dispatcher._door
        served = {
            tenant: door.served(tenant) for tenant in {calls[at].view.tenant for at in waited}
        }
        first = {calls[at].view.tenant: at for at in sorted(harness.waiting, reverse=True)}
        since = {
            at: since.get(at, now_s)
            for tenant, at in first.items()
            if now_s >= calls[at].at_s + chosen.revoke_ratio * chosen.least_bound_s
            and all(served[tenant] < had for other, had in served.items() if other != tenant)
        }


@st.composite
def the_floods(draw: st.DrawFn) -> list[MadeUp]:
    """Of three tenants, one has by far the most calls; all come about at once, none goes on."""
    found: list[MadeUp] = []
    for tenant, most in (("a", 40), ("b", 10), ("c", 10)):
        for _ in range(draw(st.integers(most // 2, most))):
            view = CallView(
                id="",
                execution=ExecutionId(""),
                workflow="w",
                role="r",
                prompt_tokens=draw(st.integers(100, 900)),
                tenant=TenantName(tenant),
            )
            at_s, took_s = draw(st.integers(0, 80)) / 16, draw(st.integers(1, 64)) / 16
            found.append(
                MadeUp(at_s, view, took_s, CallResult(output_tokens=draw(st.integers(0, 50))))
            )
    found.sort(key=lambda call: call.at_s)
    return [
        call._replace(view=call.view._replace(id=str(at), execution=ExecutionId(str(at))))
        for at, call in enumerate(found)
    ]


def shares_of(calls: Sequence[MadeUp], sent_s: Mapping[int, float], chosen: Settings) -> Shares:
    """What tenants got for their weights, and while they waited side by side."""
    shares, arrive, end, go = Shares(), 0, 1, 2
    events = [(call.at_s, arrive, at) for at, call in enumerate(calls)]
    events += [(sent_s[at] + call.took_s, end, at) for at, call in enumerate(calls)]
    events += [(sent_s[at], go, at) for at in sent_s]
    for now_s, what, at in sorted(events):
        view = calls[at].view
        if what == arrive:
            shares.waits(view.tenant)
        elif what == go:
            shares.goes(view.tenant)
        else:
            worked_s = work_s(CAPACITY, view, calls[at].result)
            for_weight_s = worked_s / chosen.weights.get(view.tenant, 1.0)
            shares.served(view.tenant, sent_s[at], now_s, for_weight_s)
    return shares


@given(
    the_floods(),
    st.sampled_from([1.0, 1e9]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.5, 2.0])),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_in_overload_tenants_that_wait_get_their_shares_but_for_what_is_under_way(
    calls: list[MadeUp], revoke_ratio: float, weights: dict[TenantName, float], replicas: int
) -> None:
    """All calls wait for longer than their bound, at once or for good."""
    chosen = Settings(patience=0.0, least_bound_s=1e-6, revoke_ratio=revoke_ratio, weights=weights)
    harness = Harness(calls, chosen, replicas)
    for _ in harness.run():
        pass

    shares = shares_of(calls, harness.sent_s, chosen)
    call_s = max(
        work_s(CAPACITY, each.view, each.result) / weights.get(each.view.tenant, 1.0)
        for each in calls
    )
    assert shares.largest_s <= 2 * (shares.in_flight_s + call_s) + 1e-6


@given(st.integers(2, 4), st.sampled_from([1.25, 1.5, 3.0]))
def test_a_stream_of_calls_to_their_contexts_does_not_keep_a_large_one_out(
    agents: int, took_s: float
) -> None:
    """Without a bound it would wait until the stream ends, as the replica is never empty."""
    calls = [
        MadeUp(
            float(at),
            CallView(
                id=str(at),
                execution=ExecutionId(str(at % agents)),
                workflow="w",
                role="r",
                prompt_tokens=200,
                prefix_blocks=tuple(1000 * (at % agents) + block for block in range(20)),
            ),
            took_s,
            CallResult(output_tokens=1, cached_tokens=190),
        )
        for at in range(60)
    ]
    large = CallView(
        id="60", execution=ExecutionId("large"), workflow="w", role="r", prompt_tokens=900
    )
    calls.append(MadeUp(10.0, large, 1.0, CallResult(output_tokens=1)))
    chosen = Settings(patience=0.0, least_bound_s=4.0)
    harness = Harness(calls, chosen, 1)
    for _ in harness.run():
        pass

    before_s = max(harness.sent_s[at] for at in range(11))  # those may have had to wait too
    assert harness.sent_s[60] <= max(before_s, 10.0 + chosen.revoke_ratio * 4.0) + took_s
