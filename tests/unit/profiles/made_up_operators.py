"""An operator profile of a GPU whose law is known, as files."""

import gzip
from itertools import product
from pathlib import Path
from random import Random

LLM = "meta-llama/Llama-3.1-8B"
DENSE = ("layernorm", "qkv_proj", "o_proj", "down_proj", "embedding", "final_layernorm")
CHUNKS, DECODES, CONTEXTS = (16, 64, 256, 1024), (1, 4, 16, 64), (16, 256, 4096)


def dense_us(tokens: int) -> float:
    """A pass over the weights, or so many tokens."""
    return max(20.0, 0.1 * tokens)


def attention_us(chunk: int, chunk_context: int, decodes: int, context: int) -> float:
    """Pairs of tokens, and tokens read."""
    return 5.0 + 1e-4 * chunk * (chunk_context + chunk / 2) + 1e-3 * decodes * context


def write_profile(
    folder: Path,
    *,
    gpu_type: str = "RTX4090",
    llm: str = LLM,
    degrees: tuple[int, ...] = (1, 2),
    with_experts: bool = False,
    noise: float = 0.0,
    packed: bool = True,
) -> Path:
    """Write it, and give its folder."""
    chance = Random(0)

    def noisy(time_us: float) -> str:
        return f"{time_us * (1 + noise * chance.random()):.6f}"

    for degree in degrees:
        part = folder / f"tp{degree}"
        part.mkdir(parents=True, exist_ok=True)
        rows = ["layer,tokens,time_us"]
        rows += [
            f"{layer},{n},{noisy(dense_us(n) / degree)}"
            for layer in DENSE
            for n in (1, 2, 4, 8, 16, 64, 256, 1024, 2048)
        ]
        (part / "dense.csv").write_text("\n".join(rows))
        rows = ["layer,sequences,time_us"]
        rows += [
            f"{layer},{n},{noisy(50 + n)}" for layer in ("lm_head", "sampler") for n in (1, 64)
        ]
        (part / "per_sequence.csv").write_text("\n".join(rows))
        shapes = [
            *((c, p, 0, 0) for c, p in product(CHUNKS, (0, *CONTEXTS))),
            *((0, 0, n, kv) for n, kv in product(DECODES, CONTEXTS)),
            *product(CHUNKS, (0, *CONTEXTS), DECODES, CONTEXTS),
        ]
        rows = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"]
        rows += [
            f"{c},{p},{n},{kv},{noisy(attention_us(c, p, n, kv) / degree)}"
            for c, p, n, kv in shapes
        ]
        text = "\n".join(rows)
        if packed:
            (part / "attention.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (part / "attention.csv").write_text(text)
        if with_experts and degree == 1:
            rows = ["tokens,activated_experts,time_us"]
            rows += [
                f"{n},{e},{noisy(6.0 * e + 0.05 * n)}"
                for e in (8, 64, 128)
                for n in (16, 256, 2048)
            ]
            (part / "moe.csv").write_text("\n".join(rows))
    (folder / "meta.yaml").write_text(
        f"hardware: {gpu_type}\nmodel: {llm}\nvllm_version: 0.19.0\n"
        "skew_fit:\n  per_tp:\n    1: {alpha_default: 0.05}\n"
    )
    return folder
