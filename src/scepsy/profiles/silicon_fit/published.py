"""Read the published end-to-end measurements: ``silicon_sample.csv`` of aiconfigurator-core.

The file's parallelism needs reading with care. Many of its rows were taken over from public runs of
one 8-GPU machine by multiplying degrees that are not factors of each other: TP 8 with experts over
8 GPUs became ``tp_size`` 64. And ``batch_size`` is the concurrency of one copy of attention.
"""

import csv
import gzip
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from scepsy.errors import InputError, MissingError
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured, Precision

_ARCHITECTURES = (
    ("minimax-m2.5", "minimax-m2.5"),
    ("deepseek-", "deepseek-v3"),
    ("kimi-k2.5", "kimi-k2.5"),
    ("glm-5", "glm-5"),
    ("gpt-oss-120b", "gpt-oss-120b"),
    ("qwen3.5-397b", "qwen3.5-397b-a17b"),
    ("qwen3-235b", "qwen3-235b-a22b"),
    ("llama-3.1-70b", "llama-3.1-70b"),
    ("llama-3.1-8b", "llama-3.1-8b"),
    ("qwen3-32b", "qwen3-32b"),
)
"""Part of a repository's name, and its architecture."""
_GEMM_PRECISION = {"fp8": Precision.FP8, "fp8_block": Precision.FP8, "nvfp4": Precision.FP4}
_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+)")


def load_published(path: Path) -> tuple[Measured, ...]:
    """All measurements of aggregated serving in a file, ``.csv`` or ``.csv.gz``.

    Raises:
        MissingError: no such file.
        InputError: a row that cannot be read.
    """
    if not path.exists():
        raise MissingError(
            f"no measurements at {path}",
            hint="they are systems/silicon_sample.csv in the wheel aiconfigurator-core 0.12.0",
        )
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    rows = csv.DictReader(text.splitlines())
    return tuple(parse_row(row) for row in rows if row.get("mode", "agg") == "agg")


def distinct(measured: Iterable[Measured]) -> tuple[Measured, ...]:
    """One of each measurement: many runs were published twice or under two names."""
    seen: dict[object, Measured] = {}
    for one in measured:
        seen.setdefault((one.configuration, round(one.ttft_s, 5), round(one.tpot_s, 6)), one)
    return tuple(seen.values())


def parse_row(row: Mapping[str, str]) -> Measured:
    """One measurement.

    Raises:
        InputError: a column is missing or no number, or the LLM is not known.
    """
    try:
        llm = next(name for part, name in _ARCHITECTURES if part in row["model_path"].casefold())
        gpus, copies, expert_parallel = _parallelism(row)
        in_flight = _CONCURRENCY.search(row.get("silicon_data_source", ""))
        return Measured(
            configuration=Configuration(
                llm=llm,
                gpu_type=row["system"].removesuffix("_sxm"),
                engine=row["backend"],
                engine_version=row["backend_version"],
                precision=_precision(row, llm),
                gpus=gpus,
                attention_copies=copies,
                expert_parallel=expert_parallel,
                input_tokens=int(row["isl"]),
                output_tokens=int(row["osl"]),
                concurrency=int(in_flight[1]) if in_flight else int(row["batch_size"]) * copies,
            ),
            ttft_s=float(row["silicon_ttft_ms"]) / 1e3,
            tpot_s=float(row["silicon_tpot_ms"]) / 1e3,
            row_id=row["id"],
        )
    except (KeyError, ValueError, StopIteration) as exc:
        name = row.get("id", "without id")
        raise InputError(f"measurement {name}: {type(exc).__name__} {exc}") from exc


def _precision(row: Mapping[str, str], llm: str) -> Precision:
    if llm == "gpt-oss-120b":  # published in MXFP4 alone, whatever the row calls it
        return Precision.FP4
    if row["precision"]:
        return Precision(row["precision"])
    return _GEMM_PRECISION.get(row["gemm_quant_mode"], Precision.BF16)


def _parallelism(row: Mapping[str, str]) -> tuple[int, int, int]:
    """GPUs of the replica, copies of attention, GPUs over which whole experts are spread."""
    tensor, copies, expert_tensor, expert = (
        max(int(row[column] or 1), 1)
        for column in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    if copies > 1:  # a copy on each GPU
        gpus = tensor if tensor > 1 else max(expert_tensor, expert)
        return gpus, gpus, min(expert, gpus)
    squared = expert == expert_tensor > 1 and tensor == expert**2
    if row["attention_dp_size"] and squared:  # TP n with experts over n GPUs
        return expert, 1, expert
    gpus = max(tensor, expert_tensor * expert)
    return gpus, max(1, gpus // tensor), min(expert, gpus)


def halves(
    measured: Iterable[Measured], *, seed: int
) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """Measurements in two halves by whole groups: one to choose with, one to judge by."""
    rows = tuple(measured)
    groups = sorted({m.configuration.group for m in rows})
    Random(seed).shuffle(groups)
    first = set(groups[: len(groups) // 2])
    return (
        tuple(m for m in rows if m.configuration.group in first),
        tuple(m for m in rows if m.configuration.group not in first),
    )
