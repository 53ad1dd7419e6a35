"""Ask aiconfigurator what it predicts for each measured configuration, for the side-by-side table.

    python -m venv venv && venv/bin/pip install aiconfigurator-core==0.12.0
    venv/bin/python tools/aiconfigurator_predictions.py agg.csv.gz > predictions.jsonl

``agg.csv.gz`` is the wheel's own ``systems/silicon_sample.csv``, aggregated rows only. One JSON
line for each row: its ``id``, and either ``ttft_ms`` and ``tpot_ms`` or ``failed``, why not.

It gets the most favourable reading of each row: parallelism as the row gives it and, where that
fails, the other ways to spread it over the GPUs; then attention in BF16 where it has no data in
FP8; of the prompt budgets that it sweeps itself, the one with the
highest throughput, as its own search does. The wheel has operator data of one engine version each
(``current``), whatever version was measured.
"""

import argparse
import csv
import gzip
import json
import logging
import sys
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

from aiconfigurator_core.sdk import config_builders, models
from aiconfigurator_core.sdk.backends.factory import get_backend
from aiconfigurator_core.sdk.config import RuntimeConfig
from aiconfigurator_core.sdk.perf_database import get_database

NAMES = {
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai/DeepSeek-R1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai/DeepSeek-V3",
    "zhipuai/GLM-5": "zai-org/GLM-5",
}
"""What the wheel calls the same architecture; its quantization is given apart."""
MAX_CONTEXT_TOKENS = 16384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, help="agg.csv.gz")
    measured: Path = parser.parse_args().measured
    logging.disable(logging.CRITICAL)
    with gzip.open(measured, "rt", newline="") as file:
        for row in csv.DictReader(file):
            sys.stdout.write(json.dumps({"id": row["id"], **answer(row)}) + "\n")


def answer(row: dict[str, str]) -> dict[str, object]:
    """The estimate at the first reading of the row's parallelism that the wheel accepts."""
    reasons = []
    for attention, shape in product((None, "bfloat16"), shapes(row)):
        try:
            return estimate(row, shape, attention)
        # The wheel raises dozens of kinds for "no data"; each is kept as the row's reason.
        except Exception as exc:  # noqa: BLE001
            reasons.append(f"{type(exc).__name__}: {exc}"[:200])
    return {"failed": reasons[0]}


def shapes(row: dict[str, str]) -> list[tuple[int, int, int, int]]:
    """(tp, attention dp, moe tp, moe ep), most literal first."""
    tp, dp, moe_tp, moe_ep = (
        max(int(row[name] or 1), 1)
        for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    gpus = max(moe_tp, moe_ep) if tp == 1 else min(tp, 8)
    literal = [(tp, dp, moe_tp, moe_ep)] if tp * dp <= 8 else []
    spread = [(1, gpus, 1, gpus)] if dp > 1 else [(gpus, 1, 1, gpus)]
    return [*literal, *spread, (tp, 1, tp, 1)]


def estimate(
    row: dict[str, str], shape: tuple[int, int, int, int], attention: str | None
) -> dict[str, object]:
    isl, osl, batch = int(row["isl"]), int(row["osl"]), int(row["batch_size"])
    if shape[1] == 1:
        batch *= max(int(row["attention_dp_size"] or 1), 1)
    backend, database, built = engine(
        NAMES.get(row["model_path"], row["model_path"]),
        row["backend"],
        row["system"],
        shape,
        row["gemm_quant_mode"] or None,
        row["moe_quant_mode"] or None,
        attention,
    )
    best: dict[str, Any] | None = None
    for context in sorted({isl, 2 * isl, *range(isl, MAX_CONTEXT_TOKENS + 1, isl)}):
        if best is not None and batch - ceil(context / isl) < 1:
            break
        runtime = RuntimeConfig(batch_size=batch, isl=isl, osl=osl)
        found = backend.run_agg(built, database, runtime, ctx_tokens=context).get_result_dict()
        if best is None or found["seq/s"] > best["seq/s"]:
            best = found
    assert best is not None
    return {"ttft_ms": round(float(best["ttft"]), 4), "tpot_ms": round(float(best["tpot"]), 4)}


@cache
def engine(
    name: str,
    backend: str,
    system: str,
    shape: tuple[int, int, int, int],
    gemm: str | None,
    moe: str | None,
    attention: str | None,
) -> tuple[Any, Any, Any]:
    """Backend, data and model; a backend each, as it remembers answers by their lengths alone."""
    database = get_database(system, backend, "current")
    if database is None:
        raise LookupError(f"no data of {backend} on {system}")
    tp, dp, moe_tp, moe_ep = shape
    config = config_builders.build_model_config(
        tp,
        1,
        dp,
        moe_tp,
        moe_ep,
        gemm_quant_mode=gemm,
        moe_quant_mode=moe,
        fmha_quant_mode=attention,
    )
    return get_backend(backend), database, models.get_model(name, config, backend)


if __name__ == "__main__":
    main()
