"""Time outside of LLMs as stages without GPUs: how long it lasts after which stage's calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.model.execution import Call
from scepsy.model.workflow import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class GapDemand:
    """What tools and the program itself do after the calls of one stage, while no call runs."""

    after: Stage
    gaps_per_execution: float
    gap_s_mean: float
    gap_s_p50: float
    gap_s_p95: float
    gap_s_cv: float
    """Standard deviation over mean."""
    execution_fraction: float
    """Part of all execution time."""


class GapBuilder:
    """Gathers gaps, execution by execution."""

    def __init__(self) -> None:
        self._gaps_s: dict[Stage, list[float]] = {}
        self._executions = 0
        self._total_s = 0.0

    def add(self, calls: Sequence[Call], execution_s: float) -> None:
        """Add an execution: its calls that count, by start, at least one, and its latency."""
        self._executions += 1
        self._total_s += execution_s
        last = calls[0]
        for call in calls[1:]:
            if call.start_s > last.end_s:
                self._gaps_s.setdefault(last.stage, []).append(call.start_s - last.end_s)
            if call.end_s >= last.end_s:
                last = call

    def build(self) -> tuple[GapDemand, ...]:
        """The gaps after each stage that any follow, by stage."""
        return tuple(
            _demand(stage, self._gaps_s[stage], self._executions, self._total_s)
            for stage in sorted(self._gaps_s)
        )


def _demand(after: Stage, values: Sequence[float], executions: int, total_s: float) -> GapDemand:
    array = np.asarray(values)
    p50, p95 = np.percentile(array, [50, 95])
    mean = float(array.mean())
    return GapDemand(
        after=after,
        gaps_per_execution=len(values) / executions,
        gap_s_mean=mean,
        gap_s_p50=float(p50),
        gap_s_p95=float(p95),
        gap_s_cv=float(array.std()) / mean,
        execution_fraction=float(array.sum()) / total_s,
    )
