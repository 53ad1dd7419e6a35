"""What the physics misses, learned: a Gaussian process on the logarithm of measured over physics.

It gives a spread with every answer, wider the less alike what was measured is. Outliers count less:
the noise of a measurement that the others contradict is raised until it is believable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scepsy.profiles.silicon_fit.closed_loop import Array
from scepsy.profiles.silicon_fit.kernel import Kernel, Places

OUTLIER_DEVIATIONS = 2.0
"""A measurement further than this from what the others say has its noise raised."""


@dataclass(frozen=True, slots=True)
class Residual:
    """Log residuals between and beyond the measured ones."""

    kernel: Kernel
    places: Places
    values: Array
    """Log of measured over physics: (measured,)."""
    noise: Array
    """Variance of each measurement: (measured,)."""
    inverse: Array
    """Of the covariance of the measurements, noise included."""
    solved: Array
    """``inverse @ values``."""

    def mean(self, places: Places) -> Array:
        """Expected residual: (places,)."""
        expected: Array = self.kernel.covariance(places, self.places) @ self.solved
        return expected

    def deviation(self, places: Places) -> Array:
        """Standard deviation of a measurement there: (places,)."""
        cross = self.kernel.covariance(places, self.places)
        known = np.einsum("ij,jk,ik->i", cross, self.inverse, cross, optimize=True)
        variance: Array = np.maximum(self.kernel.variance - known, 0.0) + self.kernel.noise
        return np.sqrt(variance)

    def without(self, groups: Sequence[object]) -> tuple[Array, Array]:
        """Mean and deviation at each measurement as if its whole group had not been measured.

        Exact for the process, by the inverse's blocks (Rasmussen and Williams, 5.4.2, blockwise).

        Args:
            groups: what group each measurement is of.
        """
        means, deviations = np.empty_like(self.values), np.empty_like(self.values)
        for rows in _rows_by_group(groups):
            block = np.linalg.inv(self.inverse[np.ix_(rows, rows)])
            means[rows] = self.values[rows] - block @ self.solved[rows]
            variance = np.diag(block) - self.noise[rows] + self.kernel.noise
            deviations[rows] = np.sqrt(np.maximum(variance, self.kernel.noise))
        return means, deviations


def fit_residual(kernel: Kernel, places: Places, values: Array, *, rounds: int = 2) -> Residual:
    """The process given measurements.

    Args:
        kernel: likeness.
        places: where was measured.
        values: log of measured over physics there.
        rounds: how often outliers are looked for.
    """
    covariance = kernel.covariance(places, places)
    noise = np.full(len(values), kernel.noise)
    fitted = _solve(kernel, places, values, noise, covariance)
    for _ in range(rounds):
        noise = _raised(fitted)
        fitted = _solve(kernel, places, values, noise, covariance)
    return fitted


def _solve(
    kernel: Kernel, places: Places, values: Array, noise: Array, covariance: Array
) -> Residual:
    inverse: Array = np.linalg.inv(covariance + np.diag(noise)).astype(np.float64, copy=False)
    return Residual(kernel, places, values, noise, inverse, inverse @ values)


def _raised(fitted: Residual) -> Array:
    """Noise at which each measurement is believable, by leaving it out."""
    diagonal = np.diag(fitted.inverse)
    errors = fitted.solved / diagonal
    variance = np.maximum(1 / diagonal - fitted.noise + fitted.kernel.noise, fitted.kernel.noise)
    excess = errors**2 / variance / OUTLIER_DEVIATIONS**2
    return fitted.kernel.noise * np.maximum(1.0, excess)


def _rows_by_group(groups: Sequence[object]) -> list[NDArray[np.intp]]:
    rows: dict[object, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return [np.array(of_group) for of_group in rows.values()]
