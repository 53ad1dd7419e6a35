"""Laws of fitted step times: more of anything never makes a step faster."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.profiles.silicon_fit.accelerator import ACCELERATORS, find_accelerator
from scepsy.profiles.silicon_fit.architecture import ARCHITECTURES, find_architecture
from scepsy.profiles.silicon_fit.configuration import Precision
from scepsy.profiles.silicon_fit.step_terms import Replica
from scepsy.profiles.silicon_fit.steps import FittedStepTimes

ROUNDING = 1 + 1e-12
replicas = st.builds(
    Replica,
    llm=st.sampled_from(sorted(ARCHITECTURES)).map(find_architecture),
    gpu=st.sampled_from(sorted(ACCELERATORS)).map(find_accelerator),
    precision=st.sampled_from(Precision),
    gpus=st.sampled_from([1, 2, 4, 8]),
)
steps = st.tuples(
    st.integers(0, 8192), st.integers(0, 131_072), st.integers(0, 512), st.integers(0, 2_000_000)
)


def step_s(times: FittedStepTimes, step: tuple[int, ...]) -> float:
    new, cached, decodes, context = step
    return times.step_s(
        prefill_tokens=new,
        prefill_context_tokens=cached,
        decodes=decodes,
        decode_context_tokens=context,
    )


@pytest.mark.no_cover
@settings(max_examples=300, deadline=None)
@given(replicas, st.sampled_from([0.1, 0.5, 0.9, 1.0]), steps, steps)
def test_more_of_anything_never_makes_a_step_faster(
    replica: Replica, fraction: float, a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    times = FittedStepTimes(replica, gpu_fraction=fraction)
    less, more = tuple(map(min, a, b)), tuple(map(max, a, b))
    assert step_s(times, less) <= step_s(times, more) * ROUNDING


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(replicas, steps)
def test_a_mixed_step_takes_no_less_than_its_halves_and_no_more_than_both(
    replica: Replica, step: tuple[int, ...]
) -> None:
    times = FittedStepTimes(replica)
    new, cached, decodes, context = step
    prefill_s = step_s(times, (new, cached, 0, 0))
    decode_s = step_s(times, (0, 0, decodes, context))
    mixed_s = step_s(times, step)
    assert max(prefill_s, decode_s) <= mixed_s * ROUNDING
    assert mixed_s <= (prefill_s + decode_s) * ROUNDING
