"""A bound on a statistic of execution latency."""

import re
from dataclasses import dataclass
from enum import StrEnum

from scepsy.errors import InputError
from scepsy.units import format_duration, parse_duration_s

_SLO = re.compile(r"\s*(?:execution\s+)?(mean|p50|p95|p99)\s*<=\s*(.+?)\s*")


class Statistic(StrEnum):
    """Which number of a latency distribution is meant."""

    MEAN = "mean"
    P50 = "p50"
    P95 = "p95"
    P99 = "p99"


@dataclass(frozen=True, slots=True)
class Slo:
    """A statistic of execution latency must not exceed a bound."""

    statistic: Statistic
    bound_s: float

    def __post_init__(self) -> None:
        if not self.bound_s > 0:
            raise InputError(f"the SLO's bound must be > 0 s, got {self.bound_s}")

    def __str__(self) -> str:
        return f"{self.statistic} <= {format_duration(self.bound_s)}"


def parse_slo(text: str) -> Slo:
    """Read ``p95 <= 30s``.

    Raises:
        InputError: another form, another statistic, or a bound that is no duration.
    """
    match = _SLO.fullmatch(text)
    if match is None:
        raise InputError(f"`{text}` is not an SLO", hint="write it like 'p95 <= 30s'")
    return Slo(Statistic(match[1]), parse_duration_s(match[2]))
