"""Laws of predicted silicon: whatever was measured, more work never makes a call faster."""

from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.profiles.silicon_fit.configuration import Measured
from scepsy.profiles.silicon_fit.fit import Predicted, SiliconModel, fit
from tests.unit.profiles.silicon_fit.made_up import measured

SEEDS = (0, 1)
REPLICAS = measured()[::19]
TIMES = 1 + 1e-9


@cache
def model(seed: int) -> SiliconModel:
    """Fitted to measurements so noisy that they contradict the laws here and there."""
    return fit(measured(noise=0.4, seed=seed))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.sampled_from(REPLICAS),
    st.tuples(st.integers(1, 128), st.integers(512, 16_384), st.integers(256, 1024)),
    st.tuples(st.integers(1, 128), st.integers(512, 16_384), st.integers(256, 1024)),
)
def test_more_calls_or_tokens_never_make_a_call_faster(
    seed: int, one: Measured, a: tuple[int, int, int], b: tuple[int, int, int]
) -> None:
    replica = one.configuration
    less, more = (
        model(seed).predict(
            replace(replica, concurrency=calls, input_tokens=taken, output_tokens=given)
        )
        for calls, taken, given in (map(min, a, b), map(max, a, b))
    )
    assert isinstance(less, Predicted)
    assert isinstance(more, Predicted)

    decode_less = less.latency_s.value - less.ttft_s.value
    decode_more = more.latency_s.value - more.ttft_s.value
    assert decode_less <= decode_more * TIMES
    if a[2] == b[2]:
        assert less.ttft_s.value <= more.ttft_s.value * TIMES


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.sampled_from(REPLICAS),
    st.integers(1, 127),
    st.integers(512, 16_383),
)
def test_first_and_next_tokens_take_longer_with_more_calls_and_longer_prompts(
    seed: int, one: Measured, calls: int, tokens: int
) -> None:
    here = replace(one.configuration, concurrency=calls, input_tokens=tokens)
    less = model(seed).predict(here)
    assert isinstance(less, Predicted)
    for change in ({"concurrency": calls + 1}, {"input_tokens": tokens + 1}):
        more = model(seed).predict(replace(here, **change))
        assert isinstance(more, Predicted)
        assert less.ttft_s.value <= more.ttft_s.value * TIMES
        assert less.tpot_s.value <= more.tpot_s.value * TIMES
        assert less.latency_s.value <= more.latency_s.value * TIMES


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SEEDS), st.sampled_from(REPLICAS))
def test_bars_hold_the_value_and_throughput_is_littles_law(seed: int, one: Measured) -> None:
    configuration = one.configuration
    answer = model(seed).predict(configuration)
    assert isinstance(answer, Predicted)

    for estimate in (answer.ttft_s, answer.tpot_s, answer.latency_s, answer.calls_per_s):
        assert 0 < estimate.low <= estimate.value <= estimate.high
    in_flight = answer.calls_per_s.value * answer.latency_s.value
    assert abs(in_flight / configuration.concurrency - 1) < 1e-9
