"""Means over seeds with their confidence intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev

_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 95 %, two-sided, by degrees of freedom from 1 on."""
_T_MANY = 1.96


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and half of its 95 % confidence interval; 0 of a single value."""

    value: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.half


def mean_of(values: Sequence[float]) -> Mean:
    """Of at least one value; infinite without an interval where one is."""
    if not all(map(isfinite, values)):
        return Mean(float("inf"), 0.0, len(values))
    if len(values) == 1:
        return Mean(values[0], 0.0, 1)
    freedom = len(values) - 1
    t = _T_95[freedom - 1] if freedom <= len(_T_95) else _T_MANY
    return Mean(fmean(values), t * stdev(values) / sqrt(len(values)), len(values))
