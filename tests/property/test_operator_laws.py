"""Laws of step times from operator profiles, on profiles so noisy that they contradict them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.profiles.operator_profile import load_operator_profile
from scepsy.profiles.operator_times import Layout, Link, OperatorModel, OperatorStepTimes
from scepsy.profiles.step_time import BatchShape
from tests.unit.profiles.made_up_operators import write_profile

LINK = Link(bytes_per_s=16e9, latency_s=20e-6)
COUNTS = st.tuples(
    st.integers(0, 3000), st.integers(0, 20_000), st.integers(0, 300), st.integers(0, 8000)
)


@cache
def times(degree: int, copies: int) -> OperatorStepTimes:
    experts = 128 if copies > 1 else 0
    with TemporaryDirectory() as folder:
        path = write_profile(Path(folder), with_experts=bool(experts), noise=0.3)
        profile = load_operator_profile(path, degree)
    model = OperatorModel(
        layers=4,
        hidden=2048,
        kv_heads=8,
        vocabulary=100_000,
        experts=experts,
        experts_per_token=8 if experts else 0,
    )
    return OperatorStepTimes(
        profile, model, Layout(data_parallel=copies, expert_parallel=copies), LINK
    )


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([1, 2]), COUNTS, COUNTS)
def test_more_work_never_takes_less_time(
    degree: int, a: tuple[int, int, int, int], b: tuple[int, int, int, int]
) -> None:
    def step_s(counts: tuple[int, ...]) -> float:
        chunk, context, decodes, each = counts
        return times(degree, 1).step_s(
            prefill_tokens=chunk,
            prefill_context_tokens=context,
            decodes=decodes,
            decode_context_tokens=decodes * each,
        )

    less, more = tuple(map(min, a, b)), tuple(map(max, a, b))

    assert 0 <= step_s(less) <= step_s(more) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(16, 5000), st.integers(1, 60), st.integers(1, 60))
def test_a_run_is_as_long_as_its_parts(decodes: int, each: int, first: int, second: int) -> None:
    def run_s(context: int, steps: int) -> float:
        return times(1, 1).decode_run_s(
            decodes=decodes, decode_context_tokens=decodes * context, steps=steps
        )

    whole_s = run_s(each, first + second)

    assert whole_s == pytest.approx(run_s(each, first) + run_s(each + first, second))
    assert run_s(each, first) < whole_s


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(16, 5000), st.integers(0, 3000))
def test_a_run_of_one_step_is_that_step(decodes: int, each: int, beyond: int) -> None:
    batch = BatchShape((), decodes, decodes * each, each + beyond)

    run_s, step_s = times(1, 1).batch_run_s(batch, 1), times(1, 1).batch_step_s(batch)

    assert run_s == pytest.approx(step_s, rel=0.01)  # where the line bends within the step


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 800), st.integers(0, 2000)), min_size=2, max_size=4))
def test_prompts_apart_take_no_longer_than_in_one_chunk(prefills: list[tuple[int, int]]) -> None:
    tokens, context = (sum(pair[i] for pair in prefills) for i in (0, 1))
    apart, joined = (
        times(1, 1)._attention_s(BatchShape(chunks, 0, 0, 0))
        for chunks in (tuple(prefills), ((tokens, context),))
    )

    assert apart <= joined * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), st.integers(16, 4000))
def test_copies_wait_for_the_one_that_has_most(most: int, other: int, each: int) -> None:
    def shape(decodes: int) -> BatchShape:
        return BatchShape((), decodes, decodes * each, each)

    group_s = times(1, 2).group_step_s
    other = min(most, other)

    assert group_s([shape(most), shape(other)]) == group_s([shape(other), shape(most)])
    assert group_s([shape(most), shape(other)]) <= group_s([shape(most)] * 2) * (1 + 1e-9)
    assert group_s([shape(0), shape(0)]) == 0
