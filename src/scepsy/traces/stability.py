"""How far a recording settles what a workflow asks: confidence intervals over its executions.

A stage's part of the mean execution latency, n l / p, is the mean over executions of the time in
which the stage's calls run, so the t interval of a mean applies to it, as it does to shares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
PRECISION = 0.1
"""A mean is settled when its interval reaches no further than this part of it to either side."""
_Z = 1.959964
_Z_HALVES = 3.0
"""Halves disagree if they differ by more standard errors than this: 1 in 400 by chance."""
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""t quantiles at 97.5 % for 1 to 10 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over executions, with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def error_fraction(self) -> float:
        """Half the interval over the mean; infinite where one execution says nothing of it."""
        if self.mean == 0:
            return 0.0 if self.high == 0 else math.inf
        return (self.high - self.low) / 2 / self.mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How well a recording knows what it asks of a stage."""

    busy_s: Estimate
    """n l / p: time of an execution in which the stage's calls run."""
    time_share: Estimate
    executions_needed: int
    """Executions, in all, that would settle ``busy_s`` to within 10 %, if they spread alike."""
    halves_differ: bool
    """Whether the first and the second half of the executions disagree: behaviour drifts."""

    @property
    def is_settled(self) -> bool:
        """Whether the recording is large enough, and of one piece."""
        return self.busy_s.error_fraction <= PRECISION and not self.halves_differ


def stability(busy_s: Sequence[float], time_share: Sequence[float]) -> Stability:
    """From each execution's values for a stage, by their order in time."""
    spread = np.std(busy_s, ddof=1) if len(busy_s) > 1 else 0.0
    mean = float(np.mean(busy_s))
    needed = math.ceil((_Z * float(spread) / (PRECISION * mean)) ** 2) if mean > 0 else 0
    # With few executions the quantile is the t distribution's, and larger.
    while needed > 1 and t_quantile(needed - 1) * spread > PRECISION * mean * math.sqrt(needed):
        needed += 1
    return Stability(
        busy_s=estimate(busy_s),
        time_share=estimate(time_share),
        executions_needed=max(needed, 2),
        halves_differ=_halves_differ(busy_s) or _halves_differ(time_share),
    )


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of >= 1 values and its t interval; from 0 to infinity for a single value."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean=mean, low=0.0, high=math.inf)
    half = t_quantile(len(array) - 1) * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Estimate(mean=mean, low=max(0.0, mean - half), high=mean + half)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t, to 0.1 %: a table, then the expansion in 1 / degrees [1].

    [1] Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def _halves_differ(values: Sequence[float]) -> bool:
    """Welch's test of the first half against the second; never with fewer than 10 in each."""
    half = len(values) // 2
    if half < 10:
        return False
    first, second = np.asarray(values[:half]), np.asarray(values[half:])
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    apart = abs(float(first.mean() - second.mean()))
    return apart > _Z_HALVES * error and apart > 1e-9 * abs(float(first.mean()))
