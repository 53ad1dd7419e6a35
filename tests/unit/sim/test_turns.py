"""Engines that take turns: who computes when, to the step."""

from math import nextafter

import pytest

from scepsy.errors import InputError
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.turns import LONGEST_TURN_S, SharedGpus, TurnTaker
from tests.property.made_up_times import EqualSteps

STEP_S = 1 / 128
TURN_STEPS = 7
"""The first that end after half of a round."""
CHUNK = 100
LOST = TURN_COST_FRACTION / (1 - TURN_COST_FRACTION)
"""Of each second of a turn while others wait."""


SPEC = EngineSpec(times=EqualSteps(STEP_S), kv_blocks=2000, chunk_tokens=CHUNK)


def engines(members: int) -> tuple[SharedGpus, list[TurnTaker]]:
    gpus = SharedGpus()
    return gpus, [gpus.add(Engine(SPEC)) for _ in range(members)]


def call(name: str, *, prompt: int = 10, output: int = 10) -> EngineCall:
    return EngineCall(id=name, prompt_tokens=prompt, output_tokens=output)


def ends(events: list[EngineEvent]) -> dict[str, float]:
    return {event.call_id: event.at_s for event in events if isinstance(event, Finished)}


def firsts(events: list[EngineEvent]) -> dict[str, float]:
    return {event.call_id: event.at_s for event in events if isinstance(event, FirstToken)}


def test_a_turn_is_a_part_of_the_round_and_ends_with_a_step() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a", output=30))
    b.submit(0.001, call("b", output=30))
    began_s = firsts(b.advance(1.0))["b"] - STEP_S
    assert began_s == pytest.approx(TURN_STEPS * STEP_S + LOST * (TURN_STEPS * STEP_S - 0.001))
    assert ends(a.advance(1.0))["a"] == pytest.approx(58 * STEP_S, rel=1.05 * LOST)


def test_tokens_come_while_its_turn_lasts_and_no_others() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a", output=50))
    b.submit(0.0, call("b", output=50))
    a.advance(3.5 * STEP_S)
    assert (a.generated_tokens("a"), b.generated_tokens("b")) == (3, 0)
    assert a.next_token_s() == 4 * STEP_S
    assert b.next_token_s() == float("inf")
    began_s = TURN_STEPS * STEP_S * (1 + LOST)
    b.advance(began_s + 2.5 * STEP_S)
    assert (a.generated_tokens("a"), b.generated_tokens("b")) == (TURN_STEPS, 2)
    assert a.statistics().generated_tokens == TURN_STEPS
    assert b.statistics().running == 1
    assert b.next_token_s() == pytest.approx(began_s + 3 * STEP_S)


def test_when_its_last_call_is_withdrawn_the_step_under_way_ends_and_the_next_begins() -> None:
    gpus, (a, b) = engines(2)
    a.submit(0.0, call("a"))
    b.submit(0.25 * STEP_S, call("b"))
    a.advance(1.5 * STEP_S)
    a.cancel(1.5 * STEP_S, "a")
    assert a.next_event_s() == 2 * STEP_S
    assert firsts(b.advance(1.0))["b"] == pytest.approx(3 * STEP_S + gpus.switching_s)
    assert gpus.switching_s == pytest.approx(LOST * 1.75 * STEP_S)
    assert a.advance(1.0) == []


def test_a_step_of_withdrawn_calls_keeps_the_gpus_from_whoever_comes() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a"))
    a.cancel(1.25 * STEP_S, "a")
    b.submit(1.5 * STEP_S, call("b"))
    assert firsts(b.advance(1.0))["b"] == pytest.approx(3 * STEP_S, abs=LOST * STEP_S)


def test_its_next_call_joins_after_a_step_of_withdrawn_calls() -> None:
    gpus, (a, b) = engines(2)
    b.submit(0.0, call("b", output=2))  # so that a's clock is behind
    a.submit(0.0, call("a", output=100))
    assert firsts(a.advance(0.25))["a"] == pytest.approx(3 * STEP_S + gpus.switching_s)
    a.cancel(40.25 * STEP_S + gpus.switching_s, "a")
    a.submit(40.5 * STEP_S + gpus.switching_s, call("c"))
    assert firsts(a.advance(1.0))["c"] == pytest.approx(42 * STEP_S + gpus.switching_s)


def test_a_turn_does_not_wait_for_prompts_that_were_withdrawn() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a", prompt=60 * CHUNK))
    a.submit(0.0, call("a2", output=400))
    b.submit(0.0, call("b"))
    a.cancel(0.1, "a")
    assert firsts(b.advance(5.0))["b"] < 0.1 + 3 * STEP_S


def test_a_prompt_ends_with_its_turn_only_if_that_becomes_too_long() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a", prompt=60 * CHUNK))
    b.submit(0.0, call("b"))
    assert firsts(b.advance(9.0))["b"] > firsts(a.advance(9.0))["a"] == 60 * STEP_S
    a.submit(9.0, call("long", prompt=900 * CHUNK))
    b.submit(9.0, call("b2"))
    waited_s = firsts(b.advance(30.0))["b2"] - 9.0
    assert LONGEST_TURN_S < waited_s < LONGEST_TURN_S * (1 + LOST) + 3 * STEP_S


def test_prompts_that_keep_coming_do_not_starve_who_decodes() -> None:
    _, (a, b, c) = engines(3)
    c.submit(0.0, call("c", output=20))
    for number in range(300):
        at_s = 0.01 * number
        a.submit(at_s, call(f"a{number}", output=2))
        b.submit(at_s, call(f"b{number}", output=2))
    assert ends(c.advance(3.0))["c"] < 1.5


def test_what_was_shared_before_all_went_idle_costs_nothing_later() -> None:
    gpus, (a, b) = engines(2)
    a.submit(0.0, call("a", output=3))
    b.submit(0.0, call("b"))
    b.leave(0.001)
    assert ends(a.advance(9.0))["a"] == 3 * STEP_S
    c = gpus.add(Engine(SPEC))
    c.submit(9.0, call("c"))
    assert firsts(c.advance(10.0))["c"] == pytest.approx(9.0 + STEP_S)


def test_who_comes_after_another_was_withdrawn_does_not_cut_a_step() -> None:
    gpus, (a, b) = engines(2)
    a.submit(0.0, call("a", output=50))
    b.submit(0.0, call("b"))
    b.cancel((TURN_STEPS - 0.25) * STEP_S, "b")
    b.submit((TURN_STEPS + 4.25) * STEP_S, call("b2"))
    last_s = max(*ends(a.advance(2.0)).values(), *ends(b.advance(2.0)).values())
    assert last_s == pytest.approx((50 + 10) * STEP_S + gpus.switching_s)


def test_it_is_too_late_to_withdraw_what_has_ended() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a", output=2))
    b.submit(0.0, call("b", output=2))
    a.cancel(0.5, "a")
    a.cancel(0.5, "nobody's")
    assert ends(a.advance(0.5)) == {"a": 2 * STEP_S}
    assert list(ends(b.advance(0.5))) == ["b"]


def test_a_call_that_is_not_there_has_no_tokens() -> None:
    _, (a, b) = engines(2)
    a.submit(0.0, call("a"))
    with pytest.raises(InputError, match="call a is not in the engine"):
        b.generated_tokens("a")


@pytest.mark.parametrize("at_s", [0.1491, 0.1492, 0.1493, 0.1494])
def test_rounding_brings_no_event_before_its_time(at_s: float) -> None:
    _, (a, _) = engines(2)
    a.submit(at_s, call("a", output=1))
    due_s = a.engine.next_event_s()
    for offset_s in (number / 7000 for number in range(1, 1000)):
        a.offset_s = offset_s
        now_s = nextafter(due_s + a.offset_s, 0.0)
        assert a.own_at(now_s) < due_s


MOVE_S = 1 / 1024


def crowded(kv_blocks: int) -> tuple[SharedGpus, list[TurnTaker]]:
    """Two engines with room for so many blocks of either; each gets a call of six."""
    gpus = SharedGpus()
    spec = EngineSpec(
        times=EqualSteps(STEP_S),
        kv_blocks=kv_blocks,
        block_tokens=16,
        chunk_tokens=CHUNK,
        host_block_s=MOVE_S,
    )
    found = [gpus.add(Engine(spec)) for _ in range(2)]
    for number, each in enumerate(found):
        each.submit(number * STEP_S / 2, call(str(number), prompt=86, output=10))
    return gpus, found


def test_kv_leaves_for_a_turn_that_needs_its_room_and_comes_back() -> None:
    roomy, (a, b) = crowded(12)
    b.advance(TURN_STEPS * STEP_S * (1 + LOST))
    assert (a.away, b.away) == (0, 0), "there is room for both"
    ends(a.advance(9.0)) | ends(b.advance(9.0))

    tight, (a, b) = crowded(8)
    b.advance(TURN_STEPS * STEP_S * (1 + LOST) + 8 * MOVE_S)
    left_blocks = sum(each.engine.statistics().kv_used_blocks for each in (a, b)) - 8
    assert left_blocks >= 3
    assert 8 * a.away == pytest.approx(left_blocks, abs=1)
    assert sorted(ends(a.advance(9.0)) | ends(b.advance(9.0))) == ["0", "1"]
    assert (a.away, b.away) == (0, 0)
    more_s = tight.switching_s - roomy.switching_s
    assert left_blocks - 1 <= more_s / MOVE_S <= 2 * 6
