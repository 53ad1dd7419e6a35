"""Laws of retention policies, on random programs through a small KV cache."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.retention_replay import (
    Oracle,
    Program,
    Step,
    Turn,
    next_uses,
    replay,
    timeline,
)
from scepsy.policy.retain import Lru, Retention
from scepsy.policy.retain_saga import WaLruTtl
from scepsy.policy.retain_value import ByValue, RecomputeCost
from scepsy.policy.retain_yardsticks import Belady, FixedTtl, PrefixLru
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, Finished
from scepsy.sim.kv_cache import KvCache

BLOCKS = 24
POLICIES: dict[str, Callable[[], Retention]] = {
    "lru": Lru,
    "prefix-lru": PrefixLru,
    "ttl": lambda: FixedTtl(20.0),
    "wa-lru-ttl": lambda: WaLruTtl(BLOCKS),
    "value": ByValue,
    "value-by-seconds": lambda: ByValue(cost=RecomputeCost(1.0, 0.5)),
}


@st.composite
def programs(draw: st.DrawFn) -> tuple[Program, ...]:
    """Agents whose contexts grow, are cut back at times, and begin with one of two prefixes."""
    found: list[Program] = []
    for name in range(draw(st.integers(1, 5))):
        family, shared = draw(st.integers(0, 1)), draw(st.integers(0, 4))
        chain = tuple(-1 - 100 * family - at for at in range(shared))
        turns: list[Turn] = []
        fresh = 1000 * (name + 1)
        for _ in range(draw(st.integers(1, 6))):
            if len(chain) > shared and draw(st.booleans()):
                chain = chain[: draw(st.integers(shared, len(chain)))]
            grown = draw(st.integers(1, 5))
            chain = (*chain, *range(fresh, fresh + grown))[:20]
            fresh += grown
            answer = draw(st.integers(0, 3))
            gap_s, held_s = draw(st.integers(0, 40)), draw(st.integers(1, 9))
            kind = draw(st.sampled_from(["tool", "user"]))
            turns.append(Turn(gap_s, held_s, chain, len(chain) + answer, kind))
        found.append(Program(str(name), tuple(turns), shared))
    return tuple(found)


@st.composite
def timelines(draw: st.DrawFn) -> list[Step]:
    return timeline(
        draw(programs()),
        live=draw(st.integers(1, 4)),
        cache_blocks=BLOCKS,
        calls=draw(st.integers(1, 30)),
        seed=draw(st.integers(0, 9)),
    )


class Watched(KvCache):
    """A cache that checks what must hold after everything that is done to it."""

    policy: Retention

    def check(self, chains: list[tuple[int, ...]], *, prefixes: bool) -> None:
        held = set(self._holders)
        kept = {block for chain in chains for block in chain if block in self.retention}
        assert not held & kept
        assert self.used_blocks + self.idle_blocks <= self.blocks
        assert len(self.retention) == len(kept)
        for chain in chains if prefixes else ():
            cached = [block in held or block in kept for block in chain]
            assert cached == sorted(cached, reverse=True), "a head went before its tail"


@pytest.mark.no_cover
@pytest.mark.parametrize("name", POLICIES)
@given(steps=timelines())
@settings(max_examples=40, deadline=None)
def test_what_is_held_is_not_forgotten_and_heads_outlive_their_tails(
    name: str, steps: list[Step]
) -> None:
    forgotten: list[int] = []
    cache = Watched(BLOCKS, forgotten.append, POLICIES[name]())
    chains: list[tuple[int, ...]] = []
    held: dict[int, list[int]] = {}
    for step in steps:
        cache.now_s = step.at_s
        chain = step.turn.chain
        if step.what == "arrives":
            chains.append(chain)
            cache.retention.arrived(step.at_s, step.name, chain)
        elif step.what == "starts":
            hits = cache.hold(chain, step.turn.blocks, step.name)
            assert hits is not None  # the same calls fit, whatever was forgotten
            held[step.number] = [*chain[:hits], *cache.share(chain[hits:])]
        else:
            blocks = held.pop(step.number)
            cache.retention.ended(step.at_s, step.name, step.turn.kind, blocks)
            cache.release(blocks, step.turn.blocks - len(blocks))
        in_use = {block for blocks in held.values() for block in blocks}
        assert not in_use & set(forgotten)
        forgotten.clear()
        # By tiers or by whole programs, a shared head may go before another program's tail.
        cache.check(chains, prefixes=name in {"lru", "value", "value-by-seconds"})


@pytest.mark.no_cover
@given(steps=timelines())
@settings(max_examples=100, deadline=None)
def test_nobody_misses_less_than_belady(steps: list[Step]) -> None:
    cost = RecomputeCost()
    oracle = Oracle(next_uses(steps))
    best = replay(steps, Belady(oracle), cache_blocks=BLOCKS, cost=cost, skip=0, oracle=oracle)
    assert best.blocks >= best.first_blocks
    for make in POLICIES.values():
        got = replay(steps, make(), cache_blocks=BLOCKS, cost=cost, skip=0)
        assert got.blocks >= best.blocks
        assert got.first_blocks == best.first_blocks


@pytest.mark.no_cover
@given(steps=timelines())
@settings(max_examples=40, deadline=None)
def test_with_room_for_all_only_first_uses_miss(steps: list[Step]) -> None:
    for make in (Lru, PrefixLru, lambda: WaLruTtl(BLOCKS), ByValue):
        got = replay(steps, make(), cache_blocks=10_000, cost=RecomputeCost(), skip=0)
        assert got.blocks == got.first_blocks


class Times:
    def step_s(self, *, prefill_tokens: int, decodes: int, **_: int) -> float:
        return 0.01 + 0.001 * prefill_tokens + 0.001 * decodes

    def decode_run_s(self, *, decodes: int, steps: int, **_: int) -> float:
        return steps * (0.01 + 0.001 * decodes)


@pytest.mark.no_cover
@given(found=programs(), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_engine_that_keeps_by_value_ends_every_call(
    found: tuple[Program, ...], seed: int
) -> None:
    """Preemption, cancellation and blocks computed twice included."""
    spec = EngineSpec(times=Times(), kv_blocks=BLOCKS, block_tokens=4, max_seqs=3, chunk_tokens=16)
    policy = ByValue()
    engine = Engine(spec, policy)
    calls = [
        (turn.gap_s / 10 + at, EngineCall(
            id=f"{program.name}-{at}",
            prompt_tokens=4 * len(turn.chain) + 1,
            output_tokens=8,
            prefix_blocks=turn.chain,
            program=program.name,
            kind=turn.kind,
        ))
        for program in found
        for at, turn in enumerate(program.turns)
    ]  # fmt: skip
    calls.sort(key=lambda entry: (entry[0], entry[1].id))
    events = []
    withdrawn: set[str] = set()
    for number, (at_s, call) in enumerate(calls):
        events += engine.advance(at_s)
        engine.submit(at_s, call)
        if (number + seed) % 4 == 0:
            engine.cancel(at_s, call.id)
            withdrawn.add(call.id)
    events += engine.advance(1e6)
    ended = {event.call_id for event in events if isinstance(event, Finished)}
    assert ended == {call.id for _, call in calls} - withdrawn
    assert engine.statistics().kv_used_blocks == 0
    assert len(policy) <= BLOCKS
