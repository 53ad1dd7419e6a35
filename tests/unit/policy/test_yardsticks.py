"""What the yardsticks decide in small scenes whose answer is plain."""

from math import log

import pytest

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatcher
from scepsy.policy.program import TenantName, ToolName
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.affinity import SessionAffinity
from scepsy.policy.yardsticks.continuum import Continuum, KeptLru
from scepsy.policy.yardsticks.fair_share import FairShare
from scepsy.policy.yardsticks.saga import EPOCH_S, MOVE_S, Saga
from scepsy.policy.yardsticks.scoring import KvRouter, LlmD
from scepsy.policy.yardsticks.thunder_agent import FORCED_S, INTERVAL_S, ThunderAgent
from scepsy.policy.yardsticks.time_to_live import Memory, TimeToLive

A, B = ReplicaName("a"), ReplicaName("b")
BLOCK = 100
TOOL = ToolName("tool")


def view(execution: int, blocks: int, step: int = 0, **more: object) -> CallView:
    return CallView(
        execution=ExecutionId(str(execution)),
        workflow=WorkflowName("w"),
        role=Role("r"),
        prompt_tokens=blocks * BLOCK,
        prefix_blocks=tuple(execution * 1000 + at for at in range(blocks)),
        id=f"{execution}-{step}",
        step=step,
        **more,  # type: ignore[arg-type]
    )


def with_replicas(dispatcher: Dispatcher, *names: ReplicaName, blocks: int = 100) -> None:
    capacity = Capacity(kv_tokens=blocks * BLOCK, seqs=100, prompt_token_s=0.01, block_tokens=BLOCK)
    for name in names:
        dispatcher.joined(0.0, name, capacity)


def sent(dispatcher: Dispatcher, now_s: float, *calls: CallView) -> dict[str, ReplicaName]:
    for call in calls:
        dispatcher.arrived(now_s, call)
    return {call.id: name for call, name, *_ in dispatcher.take(now_s)}


def ends(dispatcher: Dispatcher, now_s: float, call: CallView, tool: ToolName = TOOL) -> None:
    dispatcher.first_token(now_s, call)
    dispatcher.ended(now_s, call, CallResult(output_tokens=BLOCK, tool=tool))


def test_new_sessions_go_where_the_fewest_live() -> None:
    router = SessionAffinity()
    with_replicas(router, A, B)

    assert sent(router, 0.0, view(1, 5), view(2, 5)) == {"1-0": A, "2-0": B}
    router.over(1.0, ExecutionId("1"))
    assert sent(router, 1.0, view(3, 5), view(2, 6, 1)) == {"3-0": A, "2-1": B}


@pytest.mark.parametrize("make", [KvRouter, LlmD])
def test_a_prompt_goes_where_most_of_it_is_unless_that_is_busy(
    make: type[KvRouter] | type[LlmD],
) -> None:
    router = make()
    with_replicas(router, A, B)
    first = view(1, 20)
    assert sent(router, 0.0, first) == {"1-0": A}
    ends(router, 1.0, first)

    assert sent(router, 2.0, view(1, 21, 1)) == {"1-1": A}
    sent(router, 2.0, *(view(n, 20) for n in range(2, 6)))
    loads = sorted(len(worker.calls) for worker in router.workers.values())
    assert loads == [2, 3]


def test_dynamo_counts_what_waits_to_be_computed() -> None:
    router = KvRouter()
    with_replicas(router, A, B)
    long, short = view(1, 30), view(2, 10)
    assert sent(router, 0.0, long, short) == {"1-0": A, "2-0": B}
    router.first_token(1.0, short)

    assert sent(router, 1.0, view(3, 5)) == {"3-0": B}


def test_a_program_is_paused_at_its_tool_where_kv_is_short() -> None:
    dispatcher = ThunderAgent()
    with_replicas(dispatcher, A)
    small, large = view(1, 30), view(2, 50)
    assert sent(dispatcher, 0.0, small, large) == {"1-0": A, "2-0": A}
    ends(dispatcher, 1.0, small)
    ends(dispatcher, 1.0, large)
    assert sent(dispatcher, 2.0, view(2, 80, 1)) == {"2-1": A}  # 110 of 100 blocks in all
    dispatcher.take(INTERVAL_S)

    assert sent(dispatcher, 6.0, view(1, 35, 1)) == {}
    assert sent(dispatcher, 2 * INTERVAL_S) == {}
    dispatcher.over(11.0, ExecutionId("2"))
    assert sent(dispatcher, 3 * INTERVAL_S) == {"1-1": A}


def test_a_program_that_never_fits_goes_on_after_half_an_hour() -> None:
    dispatcher = ThunderAgent()
    with_replicas(dispatcher, A)
    assert sent(dispatcher, 0.0, view(1, 100)) == {}
    assert sent(dispatcher, FORCED_S - 1) == {}
    assert sent(dispatcher, FORCED_S + INTERVAL_S) == {"1-0": A}


def test_a_program_that_is_kept_goes_first_and_others_wait_for_its_time_to_end() -> None:
    dispatcher = Continuum()
    with_replicas(dispatcher, A, blocks=100)
    kept, other = view(1, 60), view(2, 10)
    sent(dispatcher, 0.0, kept, other, view(3, 10))
    ends(dispatcher, 1.0, kept)
    assert dispatcher.is_kept("1/r")

    assert sent(dispatcher, 1.0, view(4, 50)) == {}
    ttl_s = log(61 * BLOCK * 0.01)
    assert dispatcher.next_s == pytest.approx(1.0 + ttl_s)
    assert sent(dispatcher, 2.0, view(1, 65, 1)) == {"1-1": A}
    assert not dispatcher.is_kept("1/r")


def test_where_nothing_runs_what_is_kept_gives_way() -> None:
    dispatcher = Continuum()
    with_replicas(dispatcher, A)
    kept = view(1, 60)
    sent(dispatcher, 0.0, kept)
    ends(dispatcher, 1.0, kept)

    assert sent(dispatcher, 1.0, view(2, 80)) == {"2-0": A}
    assert not dispatcher.is_kept("1/r")


def test_programs_that_have_fewer_calls_left_the_more_they_made_are_remembered() -> None:
    memory = Memory()
    assert memory.eta == 1.0
    memory.ended(10)
    assert memory.eta == pytest.approx(1.0)
    memory.ended(100)
    assert 0.0 < memory.eta < 1.0


def test_a_tool_is_waited_for_by_what_was_seen_of_it() -> None:
    times = TimeToLive()
    assert times.of(TOOL, prefill_s=0.5) == 0.0
    for _ in range(101):
        times.tool_took(TOOL, 2.0)
    assert times.of(TOOL, prefill_s=3.0) == 2.0
    assert times.of(TOOL, prefill_s=1.0) == 0.0
    times.waited(4.0)
    assert times.of(TOOL, prefill_s=1.0) == 2.0


def test_an_idle_replica_steals_the_oldest_that_waits_and_its_kv() -> None:
    dispatcher = Saga()
    with_replicas(dispatcher, A, B)
    first = {name: view(name, 60) for name in (1, 2, 3, 4)}
    sent(dispatcher, 0.0, *first.values())  # two on each, of which one fits
    for name in (2, 4):
        dispatcher.dropped(1.0, first[name])
    homes = {call.id: name for call, name, *_ in dispatcher.take(1.0)}
    assert not homes
    assert dispatcher.next_s == pytest.approx(1.0 + EPOCH_S)

    assert [(d.call.id, d.replica) for d in dispatcher.take(1.0 + EPOCH_S)] == [("3-0", B)]

    ends(dispatcher, 2.0, first[1])
    dispatcher.arrived(2.0, view(5, 50))
    dispatcher.arrived(2.0, view(1, 61, 1))
    dispatcher.dropped(2.0, first[3])
    assert [(d.call.id, d.replica) for d in dispatcher.take(2.0)] == [("5-0", A)]
    stolen = dispatcher.take(2.0 + 2 * EPOCH_S)
    # Of its 60 blocks 10 have gone for the call that took its place.
    assert [tuple(d[1:]) for d in stolen] == [(B, 50, MOVE_S)]


def test_the_tenant_that_had_least_for_its_urgency_is_next() -> None:
    shares = FairShare()
    calls = [view(n, 1, tenant=TenantName(name)) for n, name in enumerate("xxy")]
    for call in calls:
        shares.arrived(0.0, call)
    assert shares.first(0.0, calls) == calls[0]
    shares.used(calls[0], 3.0)
    shares.used(calls[2], 1.0)

    assert shares.first(1.0, calls) == calls[2]
    shares.used(calls[2], 1.0)
    assert shares.first(1.0, calls) == calls[0]  # two tasks are twice as urgent
    assert shares.first(1.0, calls[1:2]) == calls[1]


MAKERS = [SessionAffinity, KvRouter, LlmD, ThunderAgent, Continuum, Saga]


@pytest.mark.parametrize("make", MAKERS)
def test_calls_of_a_lost_replica_arrive_again_and_are_sent_elsewhere(
    make: type[SessionAffinity | KvRouter | LlmD | ThunderAgent | Continuum | Saga],
) -> None:
    dispatcher = make()
    calls = [view(n, 40) for n in range(1, 7)]
    for call in calls:
        dispatcher.arrived(0.0, call)
    assert not dispatcher.take(0.0)  # no replica is up
    with_replicas(dispatcher, A, B)
    dispatcher.dropped(0.0, calls.pop())
    looks = [INTERVAL_S * n for n in range(1, 20)]
    went = {d.call.id: d.replica for now_s in looks for d in dispatcher.take(now_s)}
    assert A in went.values()

    dispatcher.lost(100.0, A)
    for call in calls:
        if went.get(call.id) == A:
            dispatcher.arrived(100.0, call)
    for now_s in (100.0 + INTERVAL_S * n for n in range(20)):
        for call, name, *_ in dispatcher.take(now_s):
            went[call.id] = name
        for call in calls:
            if went.get(call.id) == B:
                ends(dispatcher, now_s, call)
                dispatcher.over(now_s, call.execution)
                went[call.id] = ReplicaName("done")
    assert set(went.values()) == {"done"}
    assert len(went) == len(calls)


def test_a_replica_that_is_lost_keeps_nothing() -> None:
    dispatcher = Continuum()
    with_replicas(dispatcher, A, B)
    call = view(1, 60)
    sent(dispatcher, 0.0, call)
    ends(dispatcher, 1.0, call)
    assert dispatcher.is_kept("1/r")
    dispatcher.lost(2.0, A)
    assert not dispatcher.is_kept("1/r")
    assert sent(dispatcher, 3.0, view(1, 61, 1)) == {"1-1": B}


def test_a_program_that_runs_is_marked_and_paused_when_its_call_ends() -> None:
    dispatcher = ThunderAgent(acting_decays=True)
    with_replicas(dispatcher, A)
    calls = [view(1, 40), view(2, 45)]
    sent(dispatcher, 0.0, *calls)
    grown = [view(1, 55, 1), view(2, 60, 1)]
    for call in calls:
        ends(dispatcher, 1.0, call)
    assert len(sent(dispatcher, 2.0, *grown)) == 2  # 115 of 100 blocks
    dispatcher.take(INTERVAL_S)
    ends(dispatcher, 6.0, grown[0])

    assert sent(dispatcher, 7.0, view(1, 57, 2)) == {}
    ends(dispatcher, 8.0, grown[1])
    assert sent(dispatcher, 60.0) == {"1-2": A}  # what acts has decayed


def test_what_a_program_keeps_is_forgotten_last_and_what_it_gives_back_in_order() -> None:
    kept = {"a"}
    policy = KeptLru(kept.__contains__)
    for program, blocks in (("a", [1, 2]), ("b", [3, 4])):
        policy.ended(0.0, program, "", blocks)
        policy.keep(blocks[::-1])
    assert [policy.evict(0.0), policy.evict(0.0)] == [4, 3]
    kept.clear()
    policy.wake([1])
    assert (len(policy), 1 in policy, policy.evict(0.0)) == (1, False, 2)


def test_engines_that_are_full_of_kept_blocks_forget_some() -> None:
    policy = KeptLru(lambda _: True)
    policy.ended(0.0, "a", "", [1, 2])
    policy.keep([2, 1])
    assert [policy.evict(0.0), policy.evict(0.0)] == [2, 1]
    assert not policy
