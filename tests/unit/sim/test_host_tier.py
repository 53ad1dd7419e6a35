"""Blocks that the GPU dropped, or that another replica has, come back at a cost."""

from hypothesis import given
from hypothesis import strategies as st

from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, Finished
from scepsy.sim.host_tier import HostTier

BLOCK = 4


class PerToken:
    """A step takes 1 s, and 1 s for each prompt token."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 1.0 + prefill_tokens

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return float(steps)


def an_engine(*, kv_blocks: int = 6, host_blocks: int = 100, host_block_s: float = 0.5) -> Engine:
    return Engine(
        EngineSpec(
            times=PerToken(),
            kv_blocks=kv_blocks,
            block_tokens=BLOCK,
            host_blocks=host_blocks,
            host_block_s=host_block_s,
        )
    )


def a_call(
    name: str, first: int, *, tokens: int = 1, fetched: int = 0, fetch_s: float = 0.0
) -> EngineCall:
    """Four blocks and a token more."""
    return EngineCall(
        id=name,
        prompt_tokens=4 * BLOCK + 1,
        output_tokens=tokens,
        prefix_blocks=tuple(range(first, first + 4)),
        fetched_blocks=fetched,
        fetch_s=fetch_s,
    )


def ends(engine: Engine, until_s: float) -> dict[str, Finished]:
    return {e.call_id: e for e in engine.advance(until_s) if isinstance(e, Finished)}


def test_blocks_that_were_dropped_come_back_from_host_memory() -> None:
    """17 tokens take 18 s; the second prompt drops blocks of the first; 0.5 s brings one back."""
    engine = an_engine()
    engine.submit(0, a_call("first", 0))
    engine.submit(100, a_call("second", 10))
    engine.submit(200, a_call("again", 0))

    again = ends(engine, 300)["again"]

    assert again.cached_tokens == 16
    loaded = again.at_s - 200 - 2  # what is left is one token
    assert 0.5 <= loaded <= 2
    assert loaded % 0.5 == 0


def test_without_host_memory_they_are_computed_again() -> None:
    engine = an_engine(host_blocks=0)
    engine.submit(0, a_call("first", 0))
    engine.submit(100, a_call("second", 10))
    engine.submit(200, a_call("again", 0))

    assert ends(engine, 300)["again"].at_s > 200 + 2 + 4


def test_blocks_come_from_another_replica_when_that_has_more() -> None:
    engine = an_engine()
    engine.submit(0, a_call("moved", 0, fetched=3, fetch_s=1.5))

    moved = ends(engine, 100)["moved"]

    assert moved.cached_tokens == 12
    assert moved.at_s == 1.5 + 1 + 5  # three blocks come, five tokens are computed


def test_the_engine_goes_on_while_blocks_come() -> None:
    engine = an_engine(kv_blocks=20)
    engine.submit(0, a_call("decodes", 50, tokens=30))
    engine.submit(18, a_call("moved", 0, fetched=4, fetch_s=5))

    found = ends(engine, 200)

    assert found["moved"].at_s == 18 + 5 + 2  # comes at 23, between two steps, then one token
    assert found["decodes"].at_s == 18 + 29 + 1  # one of its steps had a prompt token beside it


def test_a_call_that_comes_while_only_blocks_are_awaited_starts_at_once() -> None:
    engine = an_engine(kv_blocks=20)
    engine.submit(0, a_call("moved", 0, fetched=4, fetch_s=50))
    engine.submit(3, a_call("prompt", 10))

    found = ends(engine, 200)

    assert found["prompt"].at_s == 3 + 18
    assert found["moved"].at_s == 52


def test_a_call_that_waits_for_blocks_can_be_withdrawn() -> None:
    engine = an_engine(kv_blocks=20)
    engine.submit(0, a_call("moved", 0, fetched=4, fetch_s=50))
    engine.cancel(3, "moved")
    engine.submit(5, a_call("prompt", 10))

    assert ends(engine, 200).keys() == {"prompt"}
    assert engine.statistics().kv_used_blocks == 0


def test_loads_take_the_link_one_after_the_other() -> None:
    tier = HostTier(10, 0.5)
    for block in range(6):
        tier.put(block)

    assert tier.load(10, range(0, 4)) == 12
    assert tier.load(11, range(4, 6)) == 13
    assert tier.loaded_blocks == 6


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 5))
def test_the_tier_keeps_the_blocks_put_last(blocks: list[int], room: int) -> None:
    tier = HostTier(room, 1.0)
    for block in blocks:
        tier.put(block)

    last = list(dict.fromkeys(reversed(blocks)))[:room]
    assert len(tier) == len(last)
    for block in range(10):
        assert tier.hits([block]) == (block in last)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=20
    ),
    st.integers(5, 12),
    st.sampled_from([0.0, 0.25, 3.0]),
)
def test_calls_and_blocks_are_conserved(
    calls: list[tuple[int, int, int]], kv_blocks: int, block_s: float
) -> None:
    """(gap, which prompt, output tokens): all end, in order of time, and no block stays held."""
    engine = an_engine(kv_blocks=kv_blocks + 2, host_block_s=block_s)
    now_s = 0.0
    for number, (gap_s, which, tokens) in enumerate(calls):
        now_s += gap_s
        engine.submit(now_s, a_call(str(number), 10 * which, tokens=tokens))
        assert engine.statistics().kv_used_blocks <= kv_blocks + 2

    events = engine.advance(now_s + 100_000)

    found = [event for event in events if isinstance(event, Finished)]
    assert len(found) == len(calls)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    assert all(event.scheduled_s <= event.at_s for event in found)
    statistics = engine.statistics()
    assert (statistics.running, statistics.waiting, statistics.kv_used_blocks) == (0, 0, 0)
    assert engine.next_event_s() == float("inf")
