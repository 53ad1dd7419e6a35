"""Read operator profiles: how long each layer of an LLM takes on a GPU, by what it is given.

The format is that of LLMServingSim (casys-kaist/LLMServingSim, ``profiler/perf``): a folder for
each GPU type, LLM and precision with ``meta.yaml``, and in it a folder ``tpN`` for each tensor
parallel degree with the times, in microseconds, of one GPU of that many:

- ``dense.csv``: layer, tokens; of one layer of the LLM.
- ``per_sequence.csv``: layer, sequences; what is computed once a step.
- ``attention.csv`` or ``attention.csv.gz``: one prompt chunk, its tokens in KV, decodes, and tokens
  in KV of each of those.
- ``moe.csv``: tokens, experts that get any of them. Only for mixtures of experts, only ``tp1``.
"""

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scepsy.errors import InputError, MissingError
from scepsy.profiles.attention_grid import AttentionGrid, AttentionTimes

MAX_BYTES = 256 * 1024**2
"""Of one file, unpacked. The largest published ones have half a megabyte."""
MAX_VALUE = 10**9
"""Of a count or a time in a file."""
_DENSE = ("tokens",)
_PER_SEQUENCE = ("sequences",)
_ATTENTION = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
_MOE = ("tokens", "activated_experts")

Points = tuple[tuple[int, float], ...]
"""Counts, rising, and times in s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorProfile:
    """The profile of one LLM on one GPU type at one tensor parallel degree. Times are in s."""

    gpu_type: str
    llm: str
    tensor_parallel: int
    engine: str
    """What was profiled, e.g. ``vllm 0.19.0``."""
    dense: Mapping[str, Points]
    """By layer, the time over so many tokens."""
    per_sequence: Mapping[str, Points]
    """By layer, the time over so many sequences."""
    attention: AttentionGrid
    moe: Mapping[int, Points]
    """By experts that get tokens, the time over so many tokens. Empty without experts."""
    skew: float | None
    """How far decodes of unequal length are from those of mean to those of greatest length, as part
    of the difference; None where that was not measured."""


def load_operator_profile(folder: Path, tensor_parallel: int) -> OperatorProfile:
    """The profile in a folder that has ``meta.yaml``.

    Raises:
        MissingError: there is no such profile, or one of its files is not there.
        InputError: a file can't be read, or holds what it must not; with the line.
    """
    part = folder / f"tp{tensor_parallel}"
    if not part.is_dir():
        degrees = sorted(path.name.removeprefix("tp") for path in folder.glob("tp*"))
        raise MissingError(
            f"no operator profile at tensor parallel {tensor_parallel} in {folder}",
            hint=f"profiled degrees: {', '.join(degrees)}" if degrees else "look at the path",
        )
    meta = _meta(folder / "meta.yaml")
    experts = next((path for path in (part, folder / "tp1") if (path / "moe.csv").exists()), None)
    return OperatorProfile(
        gpu_type=str(meta.get("hardware", "")),
        llm=str(meta.get("model", "")),
        tensor_parallel=tensor_parallel,
        engine=f"vllm {meta.get('vllm_version', '(unknown)')}",
        dense=_by_layer(part / "dense.csv", _DENSE),
        per_sequence=_by_layer(part / "per_sequence.csv", _PER_SEQUENCE),
        attention=_attention(part),
        moe=_moe(experts / "moe.csv") if experts else {},
        skew=_skew(meta, tensor_parallel),
    )


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from None
    if not isinstance(meta, dict):
        raise InputError(f"{path} is not a mapping")
    return meta


def _skew(meta: Mapping[str, Any], tensor_parallel: int) -> float | None:
    try:
        value = meta["skew_fit"]["per_tp"][tensor_parallel]["alpha_default"]
        return min(1.0, max(0.0, float(value)))
    except (KeyError, TypeError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingError(
            f"there is no {path.name} in {path.parent}",
            hint="an operator profile has meta.yaml, and tpN/dense.csv, per_sequence.csv and "
            "attention.csv or attention.csv.gz",
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text") from None


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Layer (or empty), counts and seconds of each row."""
    reader = csv.DictReader(_text(path).splitlines())
    if missing := {*columns, "time_us"} - set(reader.fieldnames or ()):
        raise InputError(f"{path} has no column {', '.join(sorted(missing))}")
    for row in reader:
        try:
            counts = tuple(int(row[column]) for column in columns)
            time_us = float(row["time_us"])
        except (TypeError, ValueError):
            raise InputError(f"{path}, line {reader.line_num}: not a number") from None
        if min(counts) < 0 or max(counts) > MAX_VALUE or not 0 <= time_us <= MAX_VALUE:
            raise InputError(f"{path}, line {reader.line_num}: a value is not in 0 to {MAX_VALUE}")
        yield row.get("layer") or "", counts, time_us / 1e6


def _by_layer(path: Path, columns: tuple[str, ...]) -> dict[str, Points]:
    found: dict[str, dict[int, float]] = {}
    for layer, (count,), time_s in _rows(path, columns):
        found.setdefault(layer, {})[count] = time_s
    return {layer: _points(path, times) for layer, times in found.items()}


def _moe(path: Path) -> dict[int, Points]:
    found: dict[int, dict[int, float]] = {}
    for _, (tokens, experts), time_s in _rows(path, _MOE):
        found.setdefault(experts, {})[tokens] = time_s
    return {experts: _points(path, times) for experts, times in sorted(found.items())}


def _points(path: Path, times: Mapping[int, float]) -> Points:
    if len(times) < 2:
        raise InputError(f"{path}: a layer has fewer than two rows")
    return tuple(sorted(times.items()))


def _attention(folder: Path) -> AttentionGrid:
    plain = folder / "attention.csv"
    path = plain if plain.exists() else folder / "attention.csv.gz"
    times: AttentionTimes = {}
    for _, (chunk, chunk_context, decodes, context), time_s in _rows(path, _ATTENTION):
        row = times.setdefault((chunk, decodes), {}).setdefault(chunk_context, {})
        row[context] = time_s
    try:
        return AttentionGrid(times)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
