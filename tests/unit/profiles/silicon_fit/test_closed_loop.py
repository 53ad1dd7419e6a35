"""The physics: facts of LLMs, the terms of a step, and weights that are never negative."""

from dataclasses import replace

import numpy as np
import pytest

from scepsy.errors import InputError, UnknownNameError
from scepsy.profiles.silicon_fit.accelerator import find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.closed_loop import fit_closed_loop, work_of
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured, Precision

BASE = Configuration(
    llm="llama-3.1-8b",
    gpu_type="h100",
    engine="vllm",
    precision=Precision.BF16,
    gpus=1,
    input_tokens=1024,
    output_tokens=256,
    concurrency=16,
)


@pytest.mark.parametrize(
    ("name", "billions", "active_billions"),
    [
        ("llama-3.1-8b", 7.5, 7.5),  # 8.0 with input embeddings, which are looked up
        ("llama-3.1-70b", 69.5, 69.5),
        ("qwen3-235b-a22b", 235, 22),
        ("qwen3.5-397b-a17b", 397, 17),
        ("minimax-m2.5", 229, 10),
        ("gpt-oss-120b", 116, 5.1),
        ("deepseek-v3", 671, 37),
        ("kimi-k2.5", 1026, 32),
        ("glm-5", 744, 40),
    ],
)
def test_parameters_add_up_to_what_is_published(
    name: str, billions: float, active_billions: float
) -> None:
    llm = find_architecture(name)

    total = llm.dense_parameters + llm.routed_parameters
    assert total / 1e9 == pytest.approx(billions, rel=0.03)
    assert llm.active_parameters / 1e9 == pytest.approx(active_billions, rel=0.12)


def test_kv_of_known_llms() -> None:
    assert find_architecture("llama-3.1-8b").kv_values_per_token * 2 == 131_072
    assert find_architecture("llama-3.1-70b").kv_values_per_token * 2 == 327_680


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError):
        find_architecture("llama-4")
    with pytest.raises(UnknownNameError):
        find_accelerator("h10")


@pytest.mark.parametrize(
    "change", [{"gpus": 0}, {"output_tokens": 1}, {"gpus": 4, "attention_copies": 3}]
)
def test_impossible_configurations_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        replace(BASE, **change)


def test_weights_and_kv_through_memory_are_their_bytes_over_the_bandwidth() -> None:
    decode = work_of([BASE]).decode[0]

    llm = find_architecture(BASE.llm)
    assert decode[0] == pytest.approx(2 * llm.dense_parameters / 3.35e12)
    assert decode[1] == pytest.approx(16 * (1024 + 128) * llm.kv_values_per_token / 3.35e12)


def test_twice_the_gpus_halve_weights_and_operations_and_add_links() -> None:
    one, two = work_of([BASE, replace(BASE, gpus=2)]).decode

    assert two[0] == pytest.approx(one[0] / 2)
    assert two[2] == pytest.approx(one[2] / 2)
    assert one[5] == 0 < two[5]


def test_more_calls_read_more_experts_up_to_all() -> None:
    calls = [1, 4, 64, 100_000]
    base = replace(BASE, llm="deepseek-v3", gpus=8, precision=Precision.FP8)
    weights = work_of([replace(base, concurrency=n) for n in calls]).decode[:, 0]

    llm = find_architecture("deepseek-v3")
    assert weights[0] == pytest.approx(llm.active_parameters / 8 / 3.35e12)
    assert weights[-1] == pytest.approx(
        (llm.dense_parameters + llm.routed_parameters) / 8 / 3.35e12
    )
    assert (np.diff(weights) > 0).all()


def test_latent_attention_gains_no_kv_bandwidth_from_tensor_parallelism() -> None:
    base = replace(BASE, llm="deepseek-v3", gpus=8, precision=Precision.FP8)
    sharded, copied = work_of([base, replace(base, attention_copies=8)]).decode[:, 1]

    assert sharded == pytest.approx(8 * copied)


def test_the_fit_finds_the_weights_that_made_the_times() -> None:
    configurations = [
        replace(BASE, gpus=gpus, concurrency=calls, input_tokens=tokens, precision=precision)
        for gpus in (1, 2, 8)
        for calls in (1, 8, 64)
        for tokens in (256, 4096)
        for precision in (Precision.BF16, Precision.FP8)
    ]
    work = work_of(configurations)
    weights = np.zeros(work.tpot.shape[1])
    weights[[0, 1, 3, len(weights) - 5]] = (1.5, 1.2, 3.0, 2.0)
    tpot_s = work.tpot @ weights
    measured = [
        Measured(configuration=c, ttft_s=0.01 + 3 * float(p.sum()), tpot_s=float(t))
        for c, t, p in zip(configurations, tpot_s, work.prefill, strict=True)
    ]

    loop = fit_closed_loop(measured, work)

    assert (loop.tpot_weights >= 0).all()
    assert (loop.ttft_weights >= 0).all()
    assert np.abs(loop.tpot_s(work) / tpot_s - 1).max() < 0.01
    ttft_s = np.array([m.ttft_s for m in measured])
    assert np.median(np.abs(loop.ttft_s(work) / ttft_s - 1)) < 0.02
