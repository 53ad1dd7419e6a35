"""Measurements of a world whose law is known."""

from itertools import product

import numpy as np

from scepsy.profiles.silicon_fit.closed_loop import ClosedLoop, work_of
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured, Precision

SLOWER = {"vllm": 1.0, "sglang": 1.2}
LOOP = ClosedLoop(
    tpot_weights=np.array([1.5, 1.0, 1.0, 5.0, 1.0, 1.0] + [0.0] * 6 + [2.0] * 5),
    ttft_weights=np.array([1.0] + [2.0] * 5 + [0.1] * 5 + [1.0]),
)


def measured(noise: float = 0.02, seed: int = 0) -> tuple[Measured, ...]:
    """Two engines, two LLMs, two GPU types, TP 1 to 8: the physics, times what an engine adds."""
    configurations = [
        Configuration(
            llm=llm,
            gpu_type=gpu_type,
            engine=engine,
            engine_version="1.0",
            precision=Precision.FP8,
            gpus=gpus,
            input_tokens=tokens,
            output_tokens=512,
            concurrency=calls,
        )
        for llm, gpu_type, engine, gpus, tokens, calls in product(
            ("llama-3.1-8b", "llama-3.1-70b"),
            ("h100", "b200"),
            SLOWER,
            (1, 2, 4, 8),
            (1024, 8192),
            (1, 8, 64),
        )
    ]
    work = work_of(configurations)
    rng = np.random.default_rng(seed)
    return tuple(
        Measured(
            configuration=c,
            ttft_s=float(ttft_s * SLOWER[c.engine] * rng.lognormal(0, noise)),
            tpot_s=float(tpot_s * SLOWER[c.engine] * rng.lognormal(0, noise)),
            row_id=str(row),
        )
        for row, (c, ttft_s, tpot_s) in enumerate(
            zip(configurations, LOOP.ttft_s(work), LOOP.tpot_s(work), strict=True)
        )
    )
