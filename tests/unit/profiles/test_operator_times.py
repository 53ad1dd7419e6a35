"""Step times and room for KV from a profile whose law is known."""

from pathlib import Path

import pytest

from scepsy.errors import InfeasibleError, InputError, MissingError
from scepsy.profiles.operator_engine import Room, operator_engine_spec
from scepsy.profiles.operator_profile import OperatorProfile, load_operator_profile
from scepsy.profiles.operator_times import (
    Layout,
    Link,
    OperatorModel,
    OperatorStepTimes,
    graph_sizes,
)
from scepsy.profiles.step_time import BatchShape
from scepsy.units import GIB
from tests.unit.profiles.made_up_operators import LLM, attention_us, dense_us, write_profile

LINK = Link(bytes_per_s=10e9, latency_s=10e-6)
MODEL = OperatorModel(layers=10, hidden=5000, kv_heads=8, vocabulary=100_000)
ROOM = Room(memory_bytes=24 * GIB, utilization=0.9)


@pytest.fixture
def profile(tmp_path: Path) -> OperatorProfile:
    return load_operator_profile(write_profile(tmp_path), 1)


def test_a_step_is_the_sum_of_its_layers(profile: OperatorProfile) -> None:
    step_s = OperatorStepTimes(profile, MODEL).batch_step_s(BatchShape(((1024, 0),), 0, 0, 0))

    each_us = 5 * dense_us(1024) + attention_us(1024, 0, 0, 0)  # layernorm counts twice
    assert step_s * 1e6 == pytest.approx(10 * each_us + 2 * dense_us(1024) + 2 * (50 + 1))


def test_small_steps_take_what_the_next_graph_takes(profile: OperatorProfile) -> None:
    times = OperatorStepTimes(profile, MODEL, Layout(capture_tokens=512))

    assert graph_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert [n for n in graph_sizes(512) if n > 240] == [248, *range(256, 513, 16)]
    shapes = [BatchShape(((tokens, 0),), 0, 0, 0) for tokens in (257, 258, 272)]
    first, second, last = (times._fixed_s([shape]) for shape in shapes)
    assert first == second == last


def test_gpus_that_share_layers_sum_up_over_their_link(tmp_path: Path) -> None:
    folder = write_profile(tmp_path)
    alone, shared = (
        OperatorStepTimes(load_operator_profile(folder, degree), MODEL, link=LINK)
        for degree in (1, 2)
    )
    batch = BatchShape(((1024, 0),), 0, 0, 0)

    computed_s = (10 * (5 * dense_us(1024) + attention_us(1024, 0, 0, 0)) + 2 * dense_us(1024)) / 2
    reduces_s = 21 * 2 * (10e-6 + 1024 * 5000 * 2 / 2 / 10e9)
    logits_s = 10e-6 + 100_000 / 2 * 2 / 20e9
    expected_s = computed_s / 1e6 + 102e-6 + reduces_s + logits_s
    assert shared.batch_step_s(batch) == pytest.approx(expected_s)
    assert alone.batch_step_s(batch) == pytest.approx(2 * computed_s / 1e6 + 102e-6)


def test_one_long_decode_holds_up_the_others(profile: OperatorProfile) -> None:
    times = OperatorStepTimes(profile, MODEL)
    equal = BatchShape((), 64, 64 * 1000, 1000)
    unequal = BatchShape((), 64, 64 * 1000, 4000)

    longer_us = (times.batch_step_s(unequal) - times.batch_step_s(equal)) * 1e6
    units = 64 * 8 / 128
    all_long_us = attention_us(0, 0, 64, 4000) - attention_us(0, 0, 64, 1000)
    assert longer_us == pytest.approx(10 * 0.2 / units * all_long_us, rel=0.01)


def test_copies_exchange_tokens_with_their_experts(tmp_path: Path) -> None:
    profile = load_operator_profile(write_profile(tmp_path, with_experts=True), 1)
    model = OperatorModel(
        layers=10, hidden=2000, kv_heads=4, vocabulary=1, experts=128, experts_per_token=8
    )
    layout = Layout(data_parallel=2, expert_parallel=2)
    times = OperatorStepTimes(profile, model, layout, LINK)
    busy, idle = BatchShape(((1024, 0),), 0, 0, 0), BatchShape((), 0, 0, 0)

    experts_us = 6.0 * 64 + 0.05 * 1025  # the other copy computes a dummy token
    exchange_us = 2 * 10 + 1024 * (2000 + 128 + 2000) * 2 / 20e9 * 1e6
    each_us = 5 * dense_us(1024) + attention_us(1024, 0, 0, 0) + experts_us + exchange_us
    expected_us = 10 * each_us + 2 * dense_us(1024) + 102
    assert times.group_step_s([busy, idle]) * 1e6 == pytest.approx(expected_us, rel=1e-3)


def test_a_profile_must_suit_its_model(profile: OperatorProfile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="experts"):
        OperatorStepTimes(
            profile, OperatorModel(layers=1, hidden=1, kv_heads=1, vocabulary=1, experts=8)
        )
    with pytest.raises(InputError, match="link"):
        OperatorStepTimes(load_operator_profile(tmp_path, 2), MODEL)


def test_kv_fills_what_weights_leave(profile: OperatorProfile) -> None:
    spec = operator_engine_spec(profile, room=ROOM, max_seqs=128, chunk_tokens=2048)

    weights_bytes = 8_030_261_248 * 2
    left_bytes = 0.9 * 24 * GIB - 1 * GIB - weights_bytes
    assert spec.kv_blocks * 16 == pytest.approx(left_bytes / 131_072, rel=1e-3)
    assert (spec.block_tokens, spec.max_seqs, spec.chunk_tokens) == (16, 128, 2048)
    assert spec.source == f"operator profile of {LLM}, vllm 0.19.0, RTX4090"
    known = operator_engine_spec(profile, room=ROOM, max_seqs=1, chunk_tokens=1, kv_blocks=7)
    assert known.kv_blocks == 7


def test_what_does_not_fit_or_is_not_known_is_said(
    profile: OperatorProfile, tmp_path: Path
) -> None:
    with pytest.raises(InfeasibleError, match="short on each"):
        operator_engine_spec(
            profile,
            room=Room(memory_bytes=16 * GIB, utilization=0.9),
            max_seqs=1,
            chunk_tokens=1,
        )
    other = load_operator_profile(write_profile(tmp_path / "b", llm="openai/gpt-oss-20b"), 1)
    with pytest.raises(MissingError, match="gpt-oss-20b"):
        operator_engine_spec(other, room=ROOM, max_seqs=1, chunk_tokens=1)
