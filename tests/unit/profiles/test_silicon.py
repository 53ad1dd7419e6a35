import csv
import os
from pathlib import Path
from statistics import mean

import pytest

from scepsy.errors import InfeasibleError, InputError, MissingError, UnknownNameError
from scepsy.model.provenance import Provenance
from scepsy.profiles.catalog import GPU_TYPES, LLMS
from scepsy.profiles.silicon import TableStepTimes, engine_spec, tensor_parallels
from scepsy.profiles.step_table import StepTable, published_tables
from scepsy.units import GIB

DATA = Path(os.environ.get("SCEPSY_DATA", Path(__file__).parents[4] / "shared/data"))
SWEEP = DATA / "derived_aic/step_h100_sxm.csv"


def table() -> StepTable:
    """A GPU that reads weights in 10 ms, computes 1 token in 0.1 ms and reads KV at 1 us."""
    prompts, cached = (1, 100, 200, 400), (0, 1000)
    decodes, contexts = (1, 100, 200), (10, 1000, 2000)
    return StepTable(
        new_tokens=prompts,
        cached_tokens=cached,
        prefill_s=tuple(
            tuple(max(0.010, n * 1e-4) + n * p * 1e-8 for p in cached) for n in prompts
        ),
        decodes=decodes,
        context_tokens=contexts,
        decode_s=tuple(
            tuple(max(0.010, b * 1e-4) + b * c * 1e-6 for c in contexts) for b in decodes
        ),
        provenance=Provenance.SIMULATED,
        source="made up",
    )


def step_s(times: TableStepTimes, n: int, p: int, b: int, context: int) -> float:
    return times.step_s(
        prefill_tokens=n, prefill_context_tokens=p, decodes=b, decode_context_tokens=context
    )


def test_an_empty_step_takes_no_time() -> None:
    assert step_s(TableStepTimes(table()), 0, 0, 0, 0) == 0


def test_pure_steps_are_those_of_the_table() -> None:
    times = TableStepTimes(table())
    assert step_s(times, 200, 1000, 0, 0) == pytest.approx(0.020 + 0.002)
    assert step_s(times, 0, 0, 100, 100_000) == pytest.approx(0.010 + 0.100, rel=0.01)


def test_between_the_points_of_the_table_times_are_linear() -> None:
    times = TableStepTimes(table())
    assert step_s(times, 300, 500, 0, 0) == pytest.approx(0.030 + 300 * 500 * 1e-8)


def test_beyond_the_table_the_last_cells_continue() -> None:
    times = TableStepTimes(table())
    assert step_s(times, 800, 2000, 0, 0) == pytest.approx(0.080 + 800 * 2000 * 1e-8)
    assert step_s(times, 0, 0, 400, 400 * 4000) == pytest.approx(0.040 + 1.6, rel=0.02)


def test_a_mixed_step_reads_the_weights_once() -> None:
    """Both alone wait 10 ms for the weights; together they compute 90 tokens meanwhile."""
    times = TableStepTimes(table())
    alone = step_s(times, 60, 0, 0, 0), step_s(times, 0, 0, 30, 0)
    together = step_s(times, 60, 0, 30, 0)
    assert together == pytest.approx(max(alone), rel=0.02)


def test_a_mixed_step_of_much_compute_adds_what_each_computes() -> None:
    """200 prompt tokens and 200 decodes are 400 tokens of compute, which hide the weights."""
    times = TableStepTimes(table())
    assert step_s(times, 200, 0, 200, 0) == pytest.approx(0.040, rel=0.06)


@pytest.mark.parametrize(
    ("prompt", "decodes", "context", "reference_ms"),
    [
        (512, 8, 1024, 31.2),
        (512, 64, 1024, 36.5),
        (256, 64, 1024, 24.5),
        (1984, 64, 1984, 113.4),
        (2048, 128, 2048, 125.9),
    ],
)
def test_mixed_steps_are_near_those_of_an_operator_model(
    prompt: int, decodes: int, context: int, reference_ms: float
) -> None:
    """Qwen3-32B on two H100s by aiconfigurator-core 0.12.0, which adds up single operators."""
    times = engine_spec("qwen3-32b", "h100", tensor_parallel=2).times
    mixed_s = times.step_s(
        prefill_tokens=prompt,
        prefill_context_tokens=0,
        decodes=decodes,
        decode_context_tokens=decodes * context,
    )
    assert mixed_s * 1e3 == pytest.approx(reference_ms, rel=0.13)


def test_a_table_that_falls_is_straightened() -> None:
    rows = ((0.010, 0.012), (0.009, 0.013), (0.012, 0.011))
    falling = StepTable(
        new_tokens=(1, 2, 3),
        cached_tokens=(0, 100),
        prefill_s=rows,
        decodes=(1, 2),
        context_tokens=(10, 20),
        decode_s=((0.010, 0.010), (0.010, 0.010)),
        provenance=Provenance.SIMULATED,
        source="made up",
    )
    times = TableStepTimes(falling)
    measured = [step_s(times, n, 0, 0, 0) for n in (1, 2, 3)]
    assert measured == sorted(measured)
    assert max(measured) <= 0.012


def test_a_run_of_decodes_is_the_sum_of_its_steps() -> None:
    times = engine_spec("qwen3-32b", "h100", tensor_parallel=2).times
    for decodes, context, steps in ((1, 0, 500), (7, 3000, 64), (64, 70_000, 300), (300, 900, 1)):
        run_s = times.decode_run_s(decodes=decodes, decode_context_tokens=context, steps=steps)
        one_by_one_s = sum(
            times.step_s(
                prefill_tokens=0,
                prefill_context_tokens=0,
                decodes=decodes,
                decode_context_tokens=context + decodes * step,
            )
            for step in range(steps)
        )
        assert run_s == pytest.approx(one_by_one_s, rel=1e-3)


def test_where_times_grow_linearly_a_run_is_its_steps_exactly() -> None:
    times = TableStepTimes(table())
    run_s = times.decode_run_s(decodes=100, decode_context_tokens=5000, steps=20)
    one_by_one_s = sum(step_s(times, 0, 0, 100, 5000 + 100 * step) for step in range(20))
    assert run_s == pytest.approx(one_by_one_s, rel=1e-9)


def test_no_decodes_or_no_steps_take_no_time() -> None:
    times = TableStepTimes(table())
    assert times.decode_run_s(decodes=0, decode_context_tokens=0, steps=5) == 0
    assert times.decode_run_s(decodes=5, decode_context_tokens=0, steps=0) == 0


def test_kv_has_what_weights_and_overhead_leave() -> None:
    """2 x (80 GiB x 0.92 - 2 GiB) less the weights, in blocks of 64 tokens of 256 KiB each."""
    spec = engine_spec("qwen3-32b", "h100", tensor_parallel=2)
    left_bytes = 2 * (80 * GIB * 0.92 - 2 * GIB) - 2 * 32_762_123_264
    assert spec.kv_blocks == int(left_bytes / (64 * 256 * 1024))


def test_a_spec_says_where_its_times_come_from() -> None:
    spec = engine_spec("qwen3-32b", "h100", tensor_parallel=2)
    assert spec.provenance is Provenance.SIMULATED
    assert spec.source == "aiconfigurator-core 0.12.0, vllm 0.24.0, h100_sxm"


def test_a_spec_is_no_better_than_its_worst_part() -> None:
    shared = engine_spec("qwen3-8b", "h100", tensor_parallel=1, gpu_fraction=0.5)
    assert shared.provenance is Provenance.ASSUMED
    assert "MuxServe" in shared.source
    embedder = engine_spec("qwen3-embedding-0.6b", "h100", tensor_parallel=1)
    assert embedder.provenance is Provenance.ASSUMED
    assert embedder.source.endswith("of Qwen/Qwen3-0.6B")


def test_what_does_not_fit_says_how_much_is_short() -> None:
    with pytest.raises(InfeasibleError, match=r"61\.1 GiB short on each GPU") as raised:
        engine_spec("llama-3.1-70b", "h100", tensor_parallel=1)
    assert "tensor parallel" in (raised.value.hint or "")


def test_a_share_of_the_gpu_is_also_a_share_of_its_memory() -> None:
    assert engine_spec("qwen3-8b", "h100", tensor_parallel=1, gpu_fraction=0.3).kv_blocks > 0
    with pytest.raises(InfeasibleError, match=r"on a GPU fraction of 0\.2 of h100"):
        engine_spec("qwen3-8b", "h100", tensor_parallel=1, gpu_fraction=0.2)


def test_what_is_not_published_says_what_is() -> None:
    with pytest.raises(MissingError, match="tensor parallel 3") as raised:
        engine_spec("qwen3-8b", "h100", tensor_parallel=3)
    assert raised.value.hint == "known degrees: 1, 2, 4, 8"
    with pytest.raises(MissingError, match="tensor parallel 16"):
        engine_spec("gpt-oss-20b", "a100", tensor_parallel=16)


def test_bad_names_and_shares_are_refused() -> None:
    with pytest.raises(UnknownNameError):
        engine_spec("gpt-5", "h100", tensor_parallel=1)
    with pytest.raises(UnknownNameError):
        tensor_parallels("qwen3-8b", "tpu")
    with pytest.raises(InputError, match=r"not in \(0, 1\]"):
        engine_spec("qwen3-8b", "h100", tensor_parallel=1, gpu_fraction=0)


def test_degrees_are_those_that_fit() -> None:
    assert tensor_parallels("llama-3.1-70b", "h100") == (2, 4, 8)
    assert tensor_parallels("llama-3.1-70b", "b200") == (1, 2, 4, 8)
    assert tensor_parallels("gpt-oss-120b", "a100") == (1, 2, 4, 8)  # by the fit


@pytest.mark.parametrize("gpu_type", GPU_TYPES)
def test_every_published_degree_makes_a_spec(gpu_type: str) -> None:
    for llm in LLMS:
        for degree in tensor_parallels(llm.name, gpu_type):
            spec = engine_spec(llm.name, gpu_type, tensor_parallel=degree)
            decode_s = spec.times.step_s(
                prefill_tokens=0,
                prefill_context_tokens=0,
                decodes=1,
                decode_context_tokens=1024,
            )
            assert 0.0005 < decode_s < 0.2, (llm.name, degree)


@pytest.mark.skipif(not SWEEP.is_file(), reason="needs the sweep of step times (SCEPSY_DATA)")
def test_times_between_the_points_agree_with_a_finer_sweep() -> None:
    tables, errors = published_tables("h100").tables, []
    times: dict[tuple[str, int], TableStepTimes] = {}
    with SWEEP.open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["model"], int(row["tp"])
            if key not in times:
                times[key] = TableStepTimes(tables[key])
            tokens, batch = int(row["isl_or_ctx"]), int(row["batch_size"])
            model_s = (
                step_s(times[key], tokens, int(row["prefix"]), 0, 0)
                if row["phase"] == "prefill"
                else step_s(times[key], 0, 0, batch, batch * tokens)
            )
            errors.append(abs(model_s * 1e3 / float(row["latency_ms"]) - 1))
    assert len(errors) > 3000
    assert mean(errors) < 0.02
    assert max(errors) < 0.2
