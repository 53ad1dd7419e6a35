from dataclasses import dataclass

import pytest

from scepsy.errors import InputError
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, Finished, FirstToken, Preempted


@dataclass(frozen=True)
class SecondSteps:
    """Every step takes 1 s, and each prompt token 1 s more."""

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


def engine(**changes: int) -> Engine:
    shape = {"kv_blocks": 100, "block_tokens": 4, "max_seqs": 8, "chunk_tokens": 16, **changes}
    return Engine(EngineSpec(times=SecondSteps(), **shape))


def call(name: str, prompt: int, output: int, prefix: tuple[int, ...] = ()) -> EngineCall:
    return EngineCall(id=name, prompt_tokens=prompt, output_tokens=output, prefix_blocks=prefix)


def test_a_call_alone_takes_a_prefill_and_a_step_for_each_further_token() -> None:
    one = engine()
    one.submit(10.0, call("a", 4, 3))
    assert one.advance(100.0) == [
        FirstToken(15.0, "a", 0),
        Finished(17.0, "a", 3, 0, 10.0),
    ]
    assert one.next_event_s() == float("inf")


def test_an_embedding_ends_with_its_prefill() -> None:
    one = engine()
    one.submit(0.0, call("a", 4, 0))
    assert one.advance(100.0) == [Finished(5.0, "a", 0, 0, 0.0)]
    assert one.statistics().generated_tokens == 0


def test_a_long_prompt_takes_several_steps() -> None:
    one = engine(chunk_tokens=4)
    one.submit(0.0, call("a", 10, 1))
    assert one.advance(100.0)[0] == FirstToken(13.0, "a", 0)  # 4, 4 and 2 tokens
    assert one.statistics().steps == 3


def test_a_call_that_comes_during_a_step_joins_the_next() -> None:
    one = engine()
    one.submit(0.0, call("a", 4, 100))
    one.submit(10.5, call("b", 2, 1))
    events = one.advance(20.0)
    assert events[-2:] == [FirstToken(14.0, "b", 0), Finished(14.0, "b", 1, 0, 11.0)]
    assert one.generated_tokens("a") == 14  # first at 5 s, then 6 to 11, 14, 15 to 20


def test_calls_beyond_the_batch_wait_their_turn() -> None:
    one = engine(max_seqs=1)
    one.submit(0.0, call("a", 1, 2))
    one.submit(0.0, call("b", 1, 1))
    assert one.statistics().waiting == 1
    ends = [event for event in one.advance(100.0) if isinstance(event, Finished)]
    assert [(event.at_s, event.call_id) for event in ends] == [(3.0, "a"), (5.0, "b")]


def test_a_prompt_seen_before_is_computed_but_for_its_last_block() -> None:
    one = engine()
    one.submit(0.0, call("a", 8, 1, (1, 2)))
    one.submit(50.0, call("b", 8, 1, (1, 2)))
    events = one.advance(100.0)
    assert events[-2] == FirstToken(55.0, "b", 4)
    assert one.statistics().cached_tokens == 4


def test_an_answer_is_part_of_the_next_prompt() -> None:
    one = engine()
    first = EngineCall(
        id="a", prompt_tokens=4, output_tokens=5, prefix_blocks=(1,), output_blocks=(2,)
    )
    one.submit(0.0, first)
    one.advance(50.0)
    one.submit(50.0, call("b", 12, 1, (1, 2, 3)))
    assert one.advance(100.0)[0] == FirstToken(55.0, "b", 8)


def test_the_last_to_come_is_preempted_when_blocks_run_out() -> None:
    one = engine(kv_blocks=3)
    one.submit(0.0, call("a", 4, 6))
    one.submit(0.0, call("b", 4, 6))
    events = one.advance(100.0)
    assert [event.call_id for event in events if isinstance(event, Preempted)] == ["b"]
    ends = [event for event in events if isinstance(event, Finished)]
    assert [event.call_id for event in ends] == ["a", "b"]
    assert one.statistics().preemptions == 1


def test_a_call_that_is_withdrawn_frees_its_place_after_the_step() -> None:
    one = engine(max_seqs=1)
    one.submit(0.0, call("a", 1, 300))
    one.submit(0.0, call("b", 1, 1))
    one.cancel(10.5, "a")
    assert one.advance(100.0) == [
        FirstToken(2.0, "a", 0),
        FirstToken(13.0, "b", 0),
        Finished(13.0, "b", 1, 0, 11.0),
    ]
    with pytest.raises(InputError, match="not in the engine"):
        one.generated_tokens("a")


def test_a_withdrawal_that_comes_too_late_changes_nothing() -> None:
    one = engine()
    one.submit(0.0, call("a", 1, 1))
    one.cancel(50.0, "a")
    assert [type(event) for event in one.advance(60.0)] == [FirstToken, Finished]


def test_a_call_that_can_never_fit_is_refused() -> None:
    one = engine(kv_blocks=2)
    with pytest.raises(InputError, match="needs 3 KV blocks of 4 tokens, the engine has 2"):
        one.submit(0.0, call("a", 8, 2))
    assert one.next_event_s() == float("inf")
    one.submit(0.0, call("a", 8, 1))


def test_bad_use_is_refused() -> None:
    one = engine()
    one.submit(5.0, call("a", 1, 1))
    with pytest.raises(InputError, match="in the engine already"):
        one.submit(5.0, call("a", 1, 1))
    with pytest.raises(InputError, match="time ran back"):
        one.advance(4.0)
    with pytest.raises(InputError, match="prompt_tokens >= 1"):
        call("b", 0, 1)


def test_statistics_inside_a_run_are_those_of_its_steps() -> None:
    one = engine()
    one.submit(0.0, call("a", 4, 50))
    one.advance(5.0)
    assert one.statistics().kv_used_blocks == 2  # the step under way writes the fifth token
    one.advance(12.5)
    now = one.statistics()
    assert (now.generated_tokens, now.steps, now.kv_used_blocks) == (8, 8, 3)
    assert now.kv_used_fraction == pytest.approx(0.03)
    assert one.next_token_s() == 13.0
    assert one.next_event_s() == 54.0
