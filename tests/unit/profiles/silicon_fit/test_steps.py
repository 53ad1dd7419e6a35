"""Step times by the fitted physics, beside the published ones where both are."""

from statistics import median

import pytest

from scepsy.errors import MissingError
from scepsy.model.provenance import Provenance
from scepsy.profiles.catalog import LLMS
from scepsy.profiles.silicon import engine_spec, tensor_parallels
from scepsy.profiles.silicon_fit.accelerator import find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.step_terms import Replica
from scepsy.profiles.silicon_fit.step_weights import (
    OTHER_GPU_ERROR_FRACTION,
    OTHER_LLM_ERROR_FRACTION,
)
from scepsy.profiles.silicon_fit.steps import FittedStepTimes
from scepsy.profiles.step_table import published_tables

GPU_TYPES = ("a100", "h100", "h200", "b200")
MOST_CONTEXT_TOKENS = 4_000_000
"""About the KV that eight large GPUs hold."""


def errors(*, prefill: bool) -> list[float]:
    """Fitted over published - 1, at all points of the tables that an engine can come to."""
    found = []
    by_table = {llm.hf_name: llm for llm in LLMS}
    for gpu_type in GPU_TYPES:
        for (hf_name, degree), table in published_tables(gpu_type).tables.items():
            llm = by_table[hf_name]
            times = FittedStepTimes(
                Replica(
                    llm=find_architecture(llm.name),
                    gpu=find_accelerator(gpu_type),
                    precision=llm.precision,
                    gpus=degree,
                )
            )
            if prefill:
                found += [
                    times.step_s(
                        prefill_tokens=new,
                        prefill_context_tokens=cached,
                        decodes=0,
                        decode_context_tokens=0,
                    )
                    / published_s
                    - 1
                    for new, row in zip(table.new_tokens, table.prefill_s, strict=True)
                    for cached, published_s in zip(table.cached_tokens, row, strict=True)
                    if new >= 128
                ]
            else:
                found += [
                    times.decode_run_s(
                        decodes=calls, decode_context_tokens=calls * context, steps=1
                    )
                    / published_s
                    - 1
                    for calls, row in zip(table.decodes, table.decode_s, strict=True)
                    for context, published_s in zip(table.context_tokens, row, strict=True)
                    if calls * context <= MOST_CONTEXT_TOKENS
                ]
    return found


def test_decode_steps_agree_with_the_published_ones_within_the_bar() -> None:
    """The two share no measurement: those are operators, these are whole calls."""
    found = errors(prefill=False)
    assert len(found) > 10_000
    assert abs(median(found)) < 0.05
    assert 0.15 < median(map(abs, found)) < 0.30
    outside = sum(abs(1 / (1 + e) - 1) > OTHER_LLM_ERROR_FRACTION for e in found)
    assert outside / len(found) < 0.15


def test_prefills_are_known_to_be_too_fast() -> None:
    assert -0.45 < median(errors(prefill=True)) < -0.30


def test_where_nothing_is_published_the_fit_answers_and_says_so() -> None:
    assert published_tables("a100").tensor_parallels("openai/gpt-oss-120b") == ()
    assert tensor_parallels("gpt-oss-120b", "a100") == (1, 2, 4, 8)
    spec = engine_spec("gpt-oss-120b", "a100", tensor_parallel=2)
    assert spec.provenance is Provenance.ASSUMED  # no A100 was measured
    assert spec.error_fraction == OTHER_GPU_ERROR_FRACTION
    assert "for gpt-oss-120b on a100" in spec.source


def test_published_step_times_go_before_fitted_ones() -> None:
    assert engine_spec("qwen3-8b", "h100", tensor_parallel=1).error_fraction is None
    assert tensor_parallels("qwen3-30b-a3b", "a100") == (1, 2, 4)  # 8 only when asked for
    asked = engine_spec("qwen3-30b-a3b", "a100", tensor_parallel=8)
    assert asked.error_fraction == OTHER_GPU_ERROR_FRACTION


def test_degrees_that_were_not_measured_are_refused() -> None:
    with pytest.raises(MissingError, match="at tensor parallel 16"):
        engine_spec("gpt-oss-120b", "a100", tensor_parallel=16)


def test_a_run_of_decodes_is_the_sum_of_its_steps() -> None:
    times = engine_spec("gpt-oss-20b", "a100", tensor_parallel=1, gpu_fraction=0.5).times
    steps_s = [
        times.step_s(
            prefill_tokens=0,
            prefill_context_tokens=0,
            decodes=8,
            decode_context_tokens=1000 + 8 * step,
        )
        for step in range(50)
    ]
    run_s = times.decode_run_s(decodes=8, decode_context_tokens=1000, steps=50)
    assert run_s == pytest.approx(sum(steps_s))
