"""Deadlines at the door of a dispatcher of programs."""

from dataclasses import replace

import pytest

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import Hints, TenantName
from scepsy.policy.route import CallView

REPLICA = ReplicaName("r")
CAPACITY = Capacity(kv_tokens=10_000, seqs=1, prompt_token_s=0.01, decode_s=0.001)
"""One call at a time; a prompt of 100 tokens takes 1 s, an answer of as many 0.1 s."""


def call(name: str, deadline_s: float | None = None, **given: object) -> CallView:
    view = CallView(
        id=name,
        execution=ExecutionId(name),
        workflow=WorkflowName("w"),
        role=Role("r"),
        prompt_tokens=100,
        hints=Hints(deadline_s=deadline_s),
    )
    return view._replace(**given)  # type: ignore[arg-type]


def served(*calls: CallView, takes_s: float = 1.0, bound_s: float = 1e6) -> str:
    """The order in which calls go that come while another one runs."""
    dispatcher = ByProgram(Settings(least_bound_s=bound_s, patience=0.0))
    dispatcher.joined(0.0, REPLICA, CAPACITY)
    runs = call("0")
    dispatcher.arrived(0.0, runs)
    assert [each.call for each in dispatcher.take(0.0)] == [runs]
    for view in calls:
        dispatcher.arrived(0.0, view)
    order, now_s = "", 0.0
    while len(order) < len(calls):
        assert dispatcher.take(now_s) == []
        now_s += takes_s
        dispatcher.ended(now_s, runs, CallResult(output_tokens=1))
        dispatcher.over(now_s, runs.execution)
        (sent,) = dispatcher.take(now_s)
        runs = sent.call
        order += runs.id
    return order


def test_who_has_the_nearest_deadline_goes_first_then_who_has_none() -> None:
    assert served(call("a"), call("b", 90.0), call("c", 50.0), call("d")) == "cbad"


@pytest.mark.parametrize("deadline_s", [-5.0, 0.5, 1.9])
def test_a_deadline_that_cannot_be_kept_gives_no_place(deadline_s: float) -> None:
    """The first goes at 1 s, and takes 1 s at least."""
    assert served(call("a"), call("b", deadline_s), call("c", 50.0)) == "cab"


def test_a_deadline_that_passes_meanwhile_gives_no_place_any_more() -> None:
    late = call("c", 6.0)  # at 4 s it might have been kept
    assert served(call("a"), call("b", 5.0), late, takes_s=4.0) == "cab"
    assert served(call("a"), call("b", 3.0), call("c", 5.9), takes_s=1.0) == "bca"


def test_a_deadline_holds_for_later_calls_of_the_execution() -> None:
    again = call("b", execution=ExecutionId("c"))  # says nothing itself
    assert served(call("a"), call("c", 50.0), again, takes_s=0.5) == "cba"


def test_levels_and_priorities_go_before_deadlines() -> None:
    long = call("b", 60.0, prompt_tokens=2000)
    assert served(call("a"), long, call("c", 70.0)) == "cab"
    sooner = call("d", hints=Hints(priority=1))
    assert served(call("a"), call("c", 70.0), sooner) == "dca"


def test_tenants_have_their_shares_whatever_deadlines_they_tell() -> None:
    """The one with deadlines goes before its own calls alone."""
    b = TenantName("b")
    order = served(
        *(call(name, tenant=b) for name in "ab"),
        *(call(name, 30.0, tenant=TenantName("c")) for name in "cd"),
        call("e", 90.0, tenant=b),
    )
    assert order[:4].count("a") + order[:4].count("b") + order[:4].count("e") == 2
    assert order.index("e") < order.index("a") < order.index("b")


def test_who_is_due_goes_first_whatever_deadlines_others_have() -> None:
    calls = [call("a"), *(call(name, 50.0) for name in "bcd")]
    assert served(*calls) == "bcda"
    assert served(*calls, bound_s=2.5) == "bcad"


def test_who_comes_to_the_front_as_a_deadline_has_passed_is_looked_at() -> None:
    dispatcher = ByProgram(Settings(least_bound_s=1e6, level_ratio=1.0))
    dispatcher.joined(0.0, REPLICA, replace(CAPACITY, seqs=9))
    long, short = call("x", prompt_tokens=5500), call("y", prompt_tokens=3000)
    for view in (long, short):
        dispatcher.arrived(0.0, view)
    assert len(dispatcher.take(0.0)) == 2
    fits = call("e", prompt_tokens=1000)
    for view in (*(call(name, prompt_tokens=5000) for name in "bcd"), fits):
        dispatcher.arrived(0.0, view)
    assert dispatcher.take(0.0) == []
    dispatcher.arrived(0.0, call("a", 300.0, prompt_tokens=5000))
    assert dispatcher.take(0.0) == []

    dispatcher.ended(1.0, short, CallResult(output_tokens=1))
    dispatcher.over(1.0, short.execution)
    assert dispatcher.take(1.0) == []  # there are four before it, none of which fits
    dispatcher.first_token(400.0, long)

    assert [sent.call for sent in dispatcher.take(400.0)] == [fits]
