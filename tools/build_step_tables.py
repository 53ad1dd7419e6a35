"""Build the step tables that ship with the package from the wheel aiconfigurator-core.

    python -m venv venv && venv/bin/pip install aiconfigurator-core==0.12.0
    venv/bin/python tools/build_step_tables.py src/scepsy/profiles/published

Needs that wheel alone. Writes one gzipped JSON file for each GPU type: a header that says where
the figures come from, the grids, and for each LLM and tensor parallel degree the milliseconds of

- ``prefill``: one call computes N new prompt tokens on top of P cached ones (rows N, columns P);
- ``decode``: B calls get one token each at C tokens of context (rows B, columns C).

Takes about ten seconds. What the wheel has no data for is left out, and said on stderr.
"""

import argparse
import gzip
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

WHEEL = "aiconfigurator-core"
ENGINE = "vllm"
SYSTEMS = {
    "h100": ("h100_sxm", "0.24.0"),
    "h200": ("h200_sxm", "0.24.0"),
    "b200": ("b200_sxm", "0.24.0"),
    "a100": ("a100_sxm", "0.14.0"),
    "l40s": ("l40s", "0.24.0"),
}
"""GPU type: the wheel's name for it, and the newest engine version that it has data of."""
MODELS = (
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-30B-A3B",
    "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Meta-Llama-3.1-70B",
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
)
TENSOR_PARALLEL = (1, 2, 4, 8)
NEW_TOKENS = (
    *(1, 16, 64, 128, 192, 256, 384, 512, 768, 1024),
    *(1536, 2048, 3072, 4096, 8192, 16384, 32768),
)
CACHED_TOKENS = (0, 1024, 4096, 16384, 65536, 131072)
DECODES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512)
CONTEXT_TOKENS = (64, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
SIGNIFICANT_DIGITS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the tables are written")
    directory: Path = parser.parse_args().directory
    logging.disable(logging.WARNING)  # the wheel warns of LLM families that are not used here
    for gpu_type, (system, engine_version) in SYSTEMS.items():
        tables = {
            model: tables_of
            for model in MODELS
            if (tables_of := model_tables(model, system, engine_version))
        }
        path = directory / f"{gpu_type}.json.gz"
        path.write_bytes(packed(header(system, engine_version) | {"tables": tables}))
        print(f"{path}: {len(tables)} LLMs, {path.stat().st_size} bytes", file=sys.stderr)


def header(system: str, engine_version: str) -> dict[str, object]:
    return {
        "source": f"{WHEEL} {version(WHEEL)}, {ENGINE} {engine_version}, {system}",
        "licence": "Apache-2.0",
        "generated": datetime.now(UTC).date().isoformat(),
        "provenance": "simulated",
        "dtype": "weights and KV as the checkpoint has them: bfloat16; gpt-oss: mxfp4 experts",
        "unit": "ms",
        "new_tokens": NEW_TOKENS,
        "cached_tokens": CACHED_TOKENS,
        "decodes": DECODES,
        "context_tokens": CONTEXT_TOKENS,
    }


def model_tables(model: str, system: str, engine_version: str) -> dict[str, object]:
    from aiconfigurator_core.sdk import EngineHandle  # noqa: PLC0415  (after logging is set)

    tables: dict[str, object] = {}
    for degree in TENSOR_PARALLEL:
        try:
            # Experts are sharded as the rest is. The wheel wants that said for every LLM with them.
            engine = EngineHandle.compile(
                model,
                system,
                ENGINE,
                backend_version=engine_version,
                tp_size=degree,
                moe_tp_size=degree,
                moe_ep_size=1,
            )
            tables[str(degree)] = {
                "prefill": grid(engine, prefill_ms, NEW_TOKENS, CACHED_TOKENS),
                "decode": grid(engine, decode_ms, DECODES, CONTEXT_TOKENS),
            }
        except Exception as exc:  # noqa: BLE001  (the wheel has no one class for "no data")
            reason = str(exc).partition("\n")[0][:120]
            print(f"left out: {model} on {system}, TP {degree}: {reason}", file=sys.stderr)
    return tables


def prefill_ms(engine: Any, new_tokens: int, cached_tokens: int) -> float:
    # The wheel counts the cached prefix as part of the input.
    return float(engine.predict_prefill_latency(1, new_tokens + cached_tokens, cached_tokens))


def decode_ms(engine: Any, decodes: int, context_tokens: int) -> float:
    return float(engine.predict_decode_latency(decodes, context_tokens, 2))


def grid(
    engine: Any,
    milliseconds: Callable[[Any, int, int], float],
    rows: tuple[int, ...],
    columns: tuple[int, ...],
) -> list[list[float]]:
    return [
        [float(f"{milliseconds(engine, row, column):.{SIGNIFICANT_DIGITS}g}") for column in columns]
        for row in rows
    ]


def packed(content: dict[str, object]) -> bytes:
    text = json.dumps(content, separators=(",", ":")) + "\n"
    return gzip.compress(text.encode(), mtime=0)


if __name__ == "__main__":
    main()
