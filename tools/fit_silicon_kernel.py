"""Learn how alike two configurations are, from one half of the measured groups.

    python -m venv venv && venv/bin/pip install -e . scipy
    venv/bin/python tools/fit_silicon_kernel.py agg.csv.gz > kernels.py   # of silicon_fit

Maximizes the marginal likelihood of the log residuals of that half (seed 0), with log-normal
priors, by L-BFGS from a fixed start: SCALES covariances that fall at different rates with one
weighted distance. Between rounds the noise of outliers is raised as ``residual.py`` does. Takes
about two minutes. The other half of the groups is not looked at.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import cho_factor, cho_solve  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

from scepsy.profiles.silicon_fit.closed_loop import Array, fit_closed_loop, work_of
from scepsy.profiles.silicon_fit.configuration import Measured
from scepsy.profiles.silicon_fit.kernel import (
    NAMES,
    QUANTITIES,
    Kernel,
    Places,
    places_of,
    squared_distance,
)
from scepsy.profiles.silicon_fit.published import distinct, halves, load_published
from scepsy.profiles.silicon_fit.residual import fit_residual

SEED, SCALES, ROUNDS, STEPS, PRIOR_DEVIATION = 0, 3, 2, 30, 1.0
RATE_DEVIATION = 0.7
START = {"name": 0.3, "quantity": 0.02, "amplitude": 0.05, "common": 0.05, "noise": 0.003}
JITTER = 3e-4

HEADER = '''"""Likeness as learned once from one half of the measured groups.

Written by ``tools/fit_silicon_kernel.py``; nothing here was tuned on the other half.
"""

from scepsy.profiles.silicon_fit.kernel import Kernel

HALF_SEED = {seed}
"""Seed of the split of groups of which the first half chose these kernels."""
'''


@dataclass(frozen=True, slots=True)
class Problem:
    """The residuals, and how they differ pair by pair."""

    places: Places
    values: Array
    differences: tuple[Array, ...]

    def negative_log_likelihood(self, parameters: Array, raised: Array) -> tuple[float, Array]:
        """And its gradient. ``raised``: factor on the noise of each measurement."""
        kernel = unpacked(parameters)
        weights = np.array(kernel.names + kernel.quantities)
        distance = self._distance(weights)
        parts = [
            amplitude * np.exp(-rate * distance)
            for amplitude, rate in zip(kernel.amplitudes, kernel.rates, strict=True)
        ]
        diagonal = np.diag(kernel.noise * raised + JITTER)
        factor = cho_factor(sum(parts) + kernel.common + diagonal, lower=True)
        solved = cho_solve(factor, self.values)
        inverse = cho_solve(factor, np.eye(len(solved)))
        value = self.values @ solved / 2 + np.log(np.diag(factor[0])).sum()
        slope = (inverse - np.outer(solved, solved)) / 2
        by_part = [slope * part for part in parts]
        by_distance = -sum(rate * part for rate, part in zip(kernel.rates, by_part, strict=True))
        gradient = np.concatenate(
            [
                [part.sum() for part in by_part],
                [
                    weight * np.vdot(by_distance, difference)
                    for weight, difference in zip(weights, self.differences, strict=True)
                ],
                [
                    -rate * np.vdot(part, distance)
                    for rate, part in zip(kernel.rates, by_part, strict=True)
                ],
                [kernel.common * slope.sum(), kernel.noise * (np.diag(slope) * raised).sum()],
            ]
        )
        return float(value), gradient

    def _distance(self, weights: Array) -> Array:
        total = np.zeros_like(self.differences[0])
        for weight, difference in zip(weights, self.differences, strict=True):
            total += weight * difference
        return total


def unpacked(parameters: Array) -> Kernel:
    numbers = np.exp(parameters).tolist()
    names, quantities = SCALES + len(NAMES), SCALES + len(NAMES) + len(QUANTITIES)
    return Kernel(
        amplitudes=tuple(numbers[:SCALES]),
        names=tuple(numbers[SCALES:names]),
        quantities=tuple(numbers[names:quantities]),
        rates=tuple(numbers[quantities : quantities + SCALES]),
        common=numbers[-2],
        noise=numbers[-1],
    )


def start() -> tuple[Array, Array]:
    """The priors' means, where the search starts, and their deviations."""
    sizes = (SCALES, len(NAMES), len(QUANTITIES))
    kinds = ("amplitude", "name", "quantity")
    means = [np.full(size, np.log(START[kind])) for size, kind in zip(sizes, kinds, strict=True)]
    rates = np.linspace(-1.5, 1.0, SCALES)
    mean = np.concatenate([*means, rates, np.log([START["common"], START["noise"]])])
    deviation = np.full(len(mean), PRIOR_DEVIATION)
    deviation[-2 - SCALES : -2] = RATE_DEVIATION
    return mean, deviation


def learned(places: Places, values: Array) -> Kernel:
    problem = Problem(places, values, differences(places))
    mean, deviation = start()
    raised, parameters = np.ones(len(values)), mean

    def objective(parameters: Array) -> tuple[float, Array]:
        value, gradient = problem.negative_log_likelihood(parameters, raised)
        off = (parameters - mean) / deviation
        return value + float(off @ off) / 2, gradient + off / deviation

    for rounds in range(ROUNDS + 1):
        found = minimize(
            objective, parameters, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}
        )
        parameters = found.x
        logging.info("round %d: %.2f", rounds, found.fun)
        kernel = unpacked(parameters)
        raised = fit_residual(kernel, places, values, rounds=rounds + 1).noise / kernel.noise
    return unpacked(parameters)


def differences(places: Places) -> tuple[Array, ...]:
    by_name = [(column[:, None] != column[None, :]).astype(np.float64) for column in places.names.T]
    by_quantity = [
        squared_distance(column[:, None], column[:, None], np.ones(1))
        for column in places.quantities.T
    ]
    return (*by_name, *by_quantity)


def written(name: str, kernel: Kernel) -> str:
    def numbers(values: tuple[float, ...], labels: tuple[str, ...] = ()) -> str:
        shown = labels or ("",) * len(values)
        lines = [
            f"        {value:.4g}," + (f"  # {label}" if label else "")
            for value, label in zip(values, shown, strict=True)
        ]
        return "(\n" + "\n".join(lines) + "\n    )"

    return (
        f"\n{name} = Kernel(\n"
        f"    names={numbers(kernel.names, NAMES)},\n"
        f"    quantities={numbers(kernel.quantities, QUANTITIES)},\n"
        f"    amplitudes={numbers(kernel.amplitudes)},\n"
        f"    rates={numbers(kernel.rates)},\n"
        f"    common={kernel.common:.4g},\n"
        f"    noise={kernel.noise:.4g},\n)\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, help="agg.csv.gz")
    path: Path = parser.parse_args().measured
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    measured: tuple[Measured, ...] = halves(distinct(load_published(path)), seed=SEED)[0]
    configurations = [m.configuration for m in measured]
    work = work_of(configurations)
    loop = fit_closed_loop(measured, work)
    places = places_of(configurations, work, loop)
    ttft = np.log([m.ttft_s for m in measured]) - np.log(loop.ttft_s(work))
    tpot = np.log([m.tpot_s for m in measured]) - np.log(loop.tpot_s(work))
    sys.stdout.write(HEADER.format(seed=SEED))
    sys.stdout.write(written("TTFT_KERNEL", learned(places, ttft)))
    sys.stdout.write(written("TPOT_KERNEL", learned(places, tpot)))


if __name__ == "__main__":
    main()
