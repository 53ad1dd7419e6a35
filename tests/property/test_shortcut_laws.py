"""What a dispatcher keeps to decide soon says what a look at everything would say."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy import dispatch_door
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import NO_HINTS, Hints, TenantName
from scepsy.policy.route import CallView

CAPACITY = Capacity(kv_tokens=4_000, seqs=4, prompt_token_s=1e-3, decode_s=0.01, block_tokens=10)


class Call:
    def __init__(self, need_tokens: int) -> None:
        self.need_tokens = need_tokens


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2_000)), max_size=40))
@settings(max_examples=100, deadline=None)
def test_free_room_is_what_is_neither_used_nor_claimed(steps: list[tuple[int, int]]) -> None:
    replica = Replica(ReplicaName("r"), CAPACITY, fill_fraction=0.9)
    kept: list[Context] = []
    assert replica.free_tokens == float("inf")
    replica.start(0.0, "first", Call(1), 1.0)
    for number, (step, tokens) in enumerate(steps):
        if step == 0:
            replica.start(0.0, str(number), Call(tokens), 1.0)
        elif step == 1 and len(replica.running) > 1:
            replica.end(next(reversed(replica.running)))
        elif step == 2:
            context = Context()
            context.tokens = tokens
            replica.keep(context)
            replica.claim(context, 9.0)
            kept.append(context)
        elif kept:
            replica.unclaim(kept.pop(0))
        for need_tokens in range(1, 4_000, 50):
            used_tokens = replica.running_tokens + replica.claimed_tokens + need_tokens
            fits = used_tokens <= 3_600 and len(replica.running) < CAPACITY.seqs
            assert (need_tokens <= replica.free_tokens) == fits


@given(st.lists(st.integers(1, 500), max_size=8), st.integers(1, 3_000), st.integers(0, 8))
@settings(max_examples=100, deadline=None)
def test_claims_are_taken_from_the_oldest_on_until_a_call_fits(
    claimed: list[int], need_tokens: int, spared: int
) -> None:
    replica = Replica(ReplicaName("r"), CAPACITY)
    replica.start(0.0, "first", Call(400), 1.0)
    kept = [Context() for _ in claimed]
    for context, tokens in zip(kept, claimed, strict=True):
        context.tokens = tokens
        replica.keep(context)
        replica.claim(context, 9.0)
    without = kept[spared] if spared < len(kept) else None
    replica.revoke(need_tokens, 3_600.0, without)
    others = [context for context in kept if context is not without]
    left = [context.claim_until_s >= 0 for context in others]
    assert left == sorted(left)
    assert without is None or without.claim_until_s >= 0
    held = sum(context.tokens for context in kept if context.claim_until_s >= 0)
    assert (replica.claimed_tokens, replica.used_tokens) == (held, 400 + held)
    assert 400 + held + need_tokens <= 3_600 or not any(left)
    last = next((context.tokens for context in reversed(others) if context.claim_until_s < 0), 0)
    assert last == 0 or 400 + held + last + need_tokens > 3_600


def sent(chosen: Settings, seed: int, ahead_s: float = 0.0) -> list[tuple[str, str]]:
    """What goes where, of calls of a dozen executions that come and end by chance."""
    chance, dispatcher = random.Random(seed), ByProgram(chosen)
    for number in range(3):
        dispatcher.joined(0.0, ReplicaName(f"replica-{number}"), CAPACITY)
    now_s, idle, running, found = 0.0, list(range(12)), list[CallView](), list[tuple[str, str]]()
    for number in range(150):
        now_s += chance.expovariate(4.0)
        if idle and (not running or chance.random() < 0.6):
            execution = idle.pop(chance.randrange(len(idle)))
            blocks = chance.randrange(1, 300)
            call = CallView(
                execution=ExecutionId(str(execution)),
                workflow=WorkflowName("w"),
                role=Role(str(execution % 2)),
                prompt_tokens=10 * blocks + 1,
                prefix_blocks=tuple(range(execution << 32, (execution << 32) + blocks)),
                id=str(number),
                tenant=TenantName(str(execution % 3)),
                hints=Hints(deadline_s=now_s + ahead_s * chance.random()) if ahead_s else NO_HINTS,
            )
            dispatcher.arrived(now_s, call)
        elif running:
            call = running.pop(chance.randrange(len(running)))
            idle.append(int(call.execution))
            # Engines do not say what was cached: what all share, and so all room, is believed to
            # stay as it was. Where it changes a call may be looked at a change later.
            dispatcher.ended(now_s, call, CallResult(output_tokens=20))
        for gone in dispatcher.take(now_s):
            running.append(gone.call)
            found.append((gone.call.id, gone.replica))
    return found


@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([0.0, 1.25, 100.0]),
    st.sampled_from([0.0, 5.0, 60.0]),
)
@settings(max_examples=40, deadline=None)
@pytest.mark.no_cover
def test_a_look_at_the_door_that_is_saved_would_have_found_nobody(
    seed: int, shares: bool, patience: float, ahead_s: float
) -> None:
    chosen = Settings(shares=shares, patience=patience, least_bound_s=1.0)
    found = sent(chosen, seed, ahead_s)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch_door, "fit_nowhere", lambda *_: False)
        patch.setattr(ByProgram, "_among", lambda self, _: self.replicas)
        assert sent(chosen, seed, ahead_s) == found
