"""Fit the GPU-share model of ``scepsy.profiles.gpu_fraction`` and print how well it fits.

    python tools/fit_gpu_fraction.py llama_sm_fraction.csv

The file has the columns model, tp, sm_pct, batch, seq_len, prefill_ms, decode_ms: measurements
that hao-ai-lab/MuxServe on GitHub publishes (Llama 7B to 65B on A100s). Rows with -1 were not
measured. A slow-down is a time over that of the same row at 100 %.
"""

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from scepsy.profiles.gpu_fraction import CO_RUN_PENALTY, decode_slowdown, prefill_slowdown

MIN_PREFILL_TOKENS = 1024
"""Prefills below this wait for the host more than for the GPU."""


class Row(NamedTuple):
    """One measurement on a share of the GPU, over the same on the whole GPU."""

    tensor_parallel: int
    gpu_fraction: float
    batch: int
    tokens: int
    prefill_slowdown: float
    decode_slowdown: float


def main(path: str) -> None:
    rows = slowdowns(Path(path))
    print(f"{len(rows)} measurements on a share")
    for degree in sorted({row.tensor_parallel for row in rows}):
        long = [r for r in rows if r.tensor_parallel == degree and r.tokens >= MIN_PREFILL_TOKENS]
        part = scaling_part((r.gpu_fraction, r.prefill_slowdown) for r in long)
        errors = [
            alone(prefill_slowdown(r.gpu_fraction, tensor_parallel=degree)) / r.prefill_slowdown - 1
            for r in long
        ]
        print(f"prefill  TP {degree}: part {part:.3f}; model {summary(errors)}")
    for degree in sorted({row.tensor_parallel for row in rows}):
        here = [r for r in rows if r.tensor_parallel == degree]
        parts = {
            batch: scaling_part(
                (r.gpu_fraction, r.decode_slowdown) for r in here if r.batch == batch
            )
            for batch in sorted({r.batch for r in here})
        }
        errors = [
            alone(decode_slowdown(r.gpu_fraction, tensor_parallel=degree, decodes=r.batch))
            / r.decode_slowdown
            - 1
            for r in here
        ]
        shown = ", ".join(f"{batch}: {part:.2f}" for batch, part in parts.items())
        print(f"decode   TP {degree}: part by batch {shown}; model {summary(errors)}")


def slowdowns(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        records = [r for r in csv.DictReader(file) if float(r["prefill_ms"]) > 0]
    records = [r for r in records if float(r["decode_ms"]) > 0]
    key = ("model", "tp", "batch", "seq_len")
    whole = {tuple(r[k] for k in key): r for r in records if r["sm_pct"] == "100"}
    return [
        Row(
            tensor_parallel=int(r["tp"]),
            gpu_fraction=int(r["sm_pct"]) / 100,
            batch=int(r["batch"]),
            tokens=int(r["batch"]) * int(r["seq_len"]),
            prefill_slowdown=float(r["prefill_ms"]) / float(full["prefill_ms"]),
            decode_slowdown=float(r["decode_ms"]) / float(full["decode_ms"]),
        )
        for r in records
        if r["sm_pct"] != "100" and (full := whole.get(tuple(r[k] for k in key)))
    ]


def scaling_part(points: Iterable[tuple[float, float]]) -> float:
    """Least-squares a of: slow-down = 1 + a (1 / fraction - 1)."""
    pairs = [(1 / fraction - 1, slowdown - 1) for fraction, slowdown in points]
    return sum(x * y for x, y in pairs) / sum(x * x for x, _ in pairs)


def alone(slowdown: float) -> float:
    """The model's slow-down without neighbours: as these measurements were made."""
    return slowdown / CO_RUN_PENALTY


def summary(errors: Sequence[float]) -> str:
    sizes = sorted(abs(error) for error in errors)
    p95 = sizes[int(0.95 * (len(sizes) - 1))]
    return (
        f"mean |error| {mean(sizes):.1%}, p95 {p95:.1%}, max {sizes[-1]:.1%}, "
        f"median error {median(errors):+.1%} ({len(errors)} rows)"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
