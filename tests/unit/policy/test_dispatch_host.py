"""What a dispatcher of programs does with host memory, and that it does nothing without."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_call import Live, Means, Waiting
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import NO_TOOL, Hints, ToolName
from scepsy.policy.route import CallView

CAPACITY = Capacity(
    kv_tokens=1000,
    seqs=8,
    prompt_token_s=0.01,
    host_tokens=2000,
    host_token_s=0.001,
    block_tokens=10,
)
SETTINGS = Settings(fill_fraction=1.0)


def a_call(
    execution: int, step: int = 0, tokens: int = 400, gap_s: float | None = None
) -> CallView:
    return CallView(
        id=f"{execution}/{step}",
        execution=ExecutionId(str(execution)),
        workflow="w",
        role="r",
        prompt_tokens=tokens,
        prefix_blocks=tuple(1000 * execution + at for at in range(tokens // 10)),
        hints=Hints(gap_s=gap_s),
    )


def a_dispatcher(capacity: Capacity = CAPACITY) -> ByProgram:
    dispatcher = ByProgram(SETTINGS)
    dispatcher.joined(0.0, ReplicaName("r"), capacity)
    return dispatcher


def the_replica(dispatcher: ByProgram) -> Replica:
    (found,) = dispatcher.replicas
    return found


def sent(dispatcher: ByProgram, now_s: float) -> list[str]:
    return [each.call.id for each in dispatcher.take(now_s)]


def serve(dispatcher: ByProgram, now_s: float, call: CallView, tool: ToolName = NO_TOOL) -> None:
    """It arrives, goes, and ends half a second later."""
    dispatcher.arrived(now_s, call)
    assert sent(dispatcher, now_s) == [call.id]
    result = CallResult(output_tokens=1, cached_tokens=0, tool=tool)
    dispatcher.ended(now_s + 0.5, call, result)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 90), st.integers(0, 40)), max_size=40),
    st.sampled_from([0.001, 0.05, 100.0]),
)
@settings(deadline=None)
def test_without_host_memory_decisions_do_not_depend_on_what_it_would_cost(
    steps: list[tuple[int, int, int]], token_s: float
) -> None:
    decided = []
    for capacity in (
        replace(CAPACITY, host_tokens=0, host_token_s=0.0),
        replace(CAPACITY, host_tokens=0, host_token_s=token_s),
        replace(CAPACITY, host_tokens=1, host_token_s=token_s),  # where no context fits
    ):
        dispatcher, now_s, found = a_dispatcher(capacity), 0.0, []
        running: list[CallView] = []
        for number, (execution, tens, wait) in enumerate(steps):
            now_s += wait
            call = a_call(execution, number, 10 * tens)
            dispatcher.arrived(now_s, call)
            running += (taken := [each.call for each in dispatcher.take(now_s)])
            found.append(([each.id for each in taken], dispatcher.next_s))
            if running and wait % 2:
                result = CallResult(output_tokens=1, cached_tokens=0)
                dispatcher.ended(now_s, running.pop(0), result)
            replica = the_replica(dispatcher)
            if capacity.host_tokens == 0:
                assert (replica.live_tokens, replica.host_tokens) == (0, 0)
        if capacity.host_tokens == 0:
            decided.append(found)
    assert decided[0] == decided[1]


@pytest.mark.parametrize("gap_s", [1.0, 30.0, 1000.0])
def test_what_is_soon_restored_has_a_claim_on_the_gpu_for_no_longer_than_what_is_lost(
    gap_s: float,
) -> None:
    until_s = []
    for token_s, host_tokens in ((0.01, 0), (0.005, 2000), (0.001, 2000), (0.0, 2000)):
        capacity = replace(CAPACITY, host_tokens=host_tokens, host_token_s=token_s)
        dispatcher = a_dispatcher(capacity)
        serve(dispatcher, 0.0, a_call(0, gap_s=gap_s))
        (context,) = the_replica(dispatcher).idle
        until_s.append(context.claim_until_s)
    assert until_s == sorted(until_s, reverse=True)
    assert until_s[-1] < 0  # what costs nothing to bring back is worth no room


def test_a_context_that_made_room_is_restored_before_the_door_is_opened() -> None:
    dispatcher = a_dispatcher()
    serve(dispatcher, 0.0, a_call(0))
    dispatcher.arrived(100.0, a_call(1, tokens=900))
    assert sent(dispatcher, 100.0) == ["1/0"]
    replica = the_replica(dispatcher)
    assert replica.host_tokens == 401

    dispatcher.arrived(101.0, a_call(2))
    dispatcher.arrived(102.0, a_call(0, 1, tokens=410))
    assert sent(dispatcher, 102.0) == []  # the replica is full
    dispatcher.ended(103.0, a_call(1, tokens=900), CallResult(output_tokens=1, cached_tokens=0))
    assert sent(dispatcher, 103.0)[0] == "0/1"
    assert replica.host_tokens == 901  # of the one that had to make room in turn


@pytest.mark.parametrize(("engines_ask", "room_tokens"), [(True, 2700), (False, 1800)])
def test_no_more_is_taken_on_than_fits_beside_what_runs_and_waits(
    engines_ask: bool, room_tokens: int
) -> None:
    """Where engines forget what was unused for longest, what runs has copies in host memory."""
    replica = Replica(ReplicaName("r"), CAPACITY, claimed_last=engines_ask)
    assert replica.takes_on(10_000)  # nothing runs: it could wait for nothing
    context = Context()
    context.tokens = 600
    replica.keep(context)
    replica.claim_host(context)
    running = Waiting(a_call(1), Live(), Means("w", "r"), 0.0, 0)
    replica.start(0.0, "1/0", running, 1.0)
    assert replica.takes_on(room_tokens - 600 - 400)
    assert not replica.takes_on(room_tokens - 600 - 399)
    replica.push_out(room_tokens - 600 - 399)  # who is in a gap gives way
    assert replica.live_tokens == 0


def test_a_client_that_leaves_gives_up_what_it_waited_for() -> None:
    dispatcher = a_dispatcher()
    serve(dispatcher, 0.0, a_call(0))
    dispatcher.arrived(1.0, a_call(1, tokens=900))
    dispatcher.take(1.0)
    dispatcher.arrived(2.0, call := a_call(0, 1))
    assert the_replica(dispatcher).live_tokens == 401
    dispatcher.dropped(3.0, call)
    assert the_replica(dispatcher).live_tokens == 0
    assert not dispatcher.is_live("0/r")


def test_who_is_due_takes_the_room_in_host_memory_of_who_is_in_a_gap() -> None:
    settings = Settings(patience=0.0, least_bound_s=1.0, fill_fraction=1.0)
    dispatcher = ByProgram(settings)
    capacity = replace(CAPACITY, kv_tokens=3000, host_tokens=2020)
    dispatcher.joined(0.0, ReplicaName("r"), capacity)
    for execution in (0, 1):
        serve(dispatcher, 8.0 + execution, a_call(execution, tokens=1000, gap_s=12.0))
    dispatcher.arrived(10.0, a_call(9, tokens=1000))
    assert sent(dispatcher, 10.0) == ["9/0"]
    dispatcher.arrived(10.5, a_call(2, tokens=1000))
    assert sent(dispatcher, 10.5) == []  # the GPU has room for it, both memories have not
    dispatcher.arrived(10.5, a_call(0, 1, tokens=1500))
    assert sent(dispatcher, 11.25) == []
    assert dispatcher.is_live("0/r")
    assert dispatcher.is_live("1/r")

    assert dispatcher.next_s == 10.5 + 1.0
    assert "2/0" in sent(dispatcher, 11.5)
    assert dispatcher.is_live("0/r")  # its call waits for it
    assert not dispatcher.is_live("1/r")
