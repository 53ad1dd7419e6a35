"""Fit how much each term of a step counts, and how far off that is for what was not measured.

    python tools/fit_step_weights.py agg.csv.gz > src/scepsy/profiles/silicon_fit/step_weights.py

All engines, versions and precisions at once. Nothing is faster than the GPU's peak: weights and KV
are read, and prompts computed, at most at that rate. The errors are of TPOT: of each
LLM by the others, and of each LLM on each GPU type by the other LLMs on the other GPU types. Takes
a minute.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from scepsy.profiles.silicon_fit.closed_loop import Array, fit_weights, work_of
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured
from scepsy.profiles.silicon_fit.published import distinct, load_published
from scepsy.profiles.silicon_fit.step_terms import DECODE_TERMS, PREFILL_TERMS

COVERED = 0.9
PEAK = (0, 1, DECODE_TERMS)
"""Terms that count at least once: weights, KV, and the operations of a prefill."""

TEMPLATE = '''"""How much each term of a step counts, fitted to {runs} measured runs.

Written by ``tools/fit_step_weights.py``; the terms are those of ``step_terms.Replica``.
"""

DECODE_WEIGHTS = {decode}
PREFILL_WEIGHTS = {prefill}

SOURCE = "physics fitted to {runs} runs of aiconfigurator-core 0.12.0"
MEASURED_GPU_TYPES = {gpu_types}
OTHER_LLM_ERROR_FRACTION = {llm:.2f}
"""|measured / predicted - 1| of TPOT that 9 of 10 runs of an LLM stay within, fitted without it.

Its median is {llm_median:.2f}."""
OTHER_GPU_ERROR_FRACTION = {gpu:.2f}
"""The same, fitted without the LLM and without the GPU type. Its median is {gpu_median:.2f}."""
'''


def step_weights(measured: Sequence[Measured]) -> Array:
    """How much each decode and prefill term counts."""
    least = np.zeros(DECODE_TERMS + PREFILL_TERMS)
    least[list(PEAK)] = 1.0
    work = work_of([m.configuration for m in measured])
    return fit_weights(work.tpot, np.array([m.tpot_s for m in measured]), least)


def errors(
    measured: Sequence[Measured],
    part: Callable[[Configuration], object],
    alike: Callable[[Configuration, Configuration], bool],
) -> Array:
    """|measured / predicted - 1| of TPOT, each part by those that are not alike it."""
    parts: dict[object, list[Measured]] = {}
    for one in measured:
        parts.setdefault(part(one.configuration), []).append(one)
    found = []
    for rows in parts.values():
        first = rows[0].configuration
        others = [m for m in measured if not alike(m.configuration, first)]
        predicted_s = work_of([m.configuration for m in rows]).tpot @ step_weights(others)
        found.append(np.abs(np.array([m.tpot_s for m in rows]) / predicted_s - 1))
    return np.concatenate(found)


def numbers(values: Array) -> str:
    """A tuple, to four digits."""
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def main() -> None:
    """Write the module to stdout."""
    measured = distinct(load_published(Path(sys.argv[1])))
    weights = step_weights(measured)
    llm = errors(measured, lambda c: c.llm, lambda a, b: a.llm == b.llm)
    gpu = errors(
        measured,
        lambda c: (c.llm, c.gpu_type),
        lambda a, b: a.llm == b.llm or a.gpu_type == b.gpu_type,
    )
    sys.stdout.write(
        TEMPLATE.format(
            runs=len(measured),
            decode=numbers(weights[:DECODE_TERMS]),
            prefill=numbers(weights[DECODE_TERMS:]),
            gpu_types=tuple(sorted({m.configuration.gpu_type for m in measured})),
            llm=np.quantile(llm, COVERED),
            llm_median=np.median(llm),
            gpu=np.quantile(gpu, COVERED),
            gpu_median=np.median(gpu),
        ).replace("'", '"')
    )


if __name__ == "__main__":
    main()
