"""One simulation of one system at one rate, and its figures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from scepsy.model.workflow import WorkflowName
from scepsy.sim.arrivals import Arrival, OpenLoop, Stream, merged
from scepsy.sim.baselines.base import System
from scepsy.sim.run import ServedExecution, Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Execution latency of one workflow in one simulation."""

    workflow: WorkflowName
    executions: int
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One simulation."""

    seed: int
    saturated: bool
    """It did not keep up with the arrivals: latency has no bound."""
    ended_per_s: float
    """Executions of all workflows, while they were counted."""
    latencies: tuple[Latency, ...]
    """By workflow; none where saturated."""

    def relative(self, scale_s: Mapping[WorkflowName, float]) -> float:
        """Mean over the workflows of mean latency over a scale; infinite if saturated."""
        if self.saturated:
            return float("inf")
        parts = [each.mean_s / scale_s[each.workflow] for each in self.latencies]
        return sum(parts) / len(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which executions of a simulation count."""

    executions: int
    warm_up: int
    """That come before them."""
    patience_s: float
    """A system keeps up if all that count have ended so long after the last of them arrived."""


def measure(system: System, arriving: Sequence[Stream], window: Window, seed: int) -> Run:
    """Serve streams by a system at a steady load.

    Over the counted executions the rate is exact and each recorded one comes about equally often.
    """
    total_per_s = sum(stream.rate_per_s for stream in arriving)
    period = window.executions / total_per_s
    deadline = _Deadline(window)
    arrivals = merged(
        stream.arrivals(seed, max(1, round(period * stream.rate_per_s))) for stream in arriving
    )
    simulation = Simulation(OpenLoop(deadline.noting(arrivals)), system.make(), order=system.order)
    ended: list[ServedExecution] = []
    counted: list[ServedExecution] = []
    while len(counted) < window.executions and (next_s := simulation.next_s) <= deadline.at_s:
        for execution in simulation.step(next_s):
            ended.append(execution)
            if 0 <= execution.number - window.warm_up < window.executions:
                counted.append(execution)
    saturated = len(counted) < window.executions
    return Run(
        seed=seed,
        saturated=saturated,
        ended_per_s=_ended_per_s(ended),
        latencies=() if saturated else _latencies(counted),
    )


class _Deadline:
    """Until when a system is waited for."""

    def __init__(self, window: Window) -> None:
        self.at_s = float("inf")
        self._window = window

    def noting(self, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        """The same arrivals; the last that counts decides."""
        last = self._window.warm_up + self._window.executions - 1
        for number, arrival in enumerate(arrivals):
            if number == last:
                self.at_s = arrival.at_s + self._window.patience_s
            yield arrival


def _ended_per_s(ended: Sequence[ServedExecution]) -> float:
    """Over the later half of them."""
    half = ended[len(ended) // 2 :]
    if not half:
        return 0.0
    took_s = half[-1].end_s - half[0].end_s
    return (len(half) - 1) / took_s if took_s > 0 else 0.0


def _latencies(counted: Sequence[ServedExecution]) -> tuple[Latency, ...]:
    found = []
    for workflow in sorted({each.workflow for each in counted}):
        took_s = sorted(e.execution_s for e in counted if e.workflow == workflow)
        found.append(
            Latency(
                workflow=workflow,
                executions=len(took_s),
                mean_s=sum(took_s) / len(took_s),
                p50_s=quantile(took_s, 0.5),
                p95_s=quantile(took_s, 0.95),
                p99_s=quantile(took_s, 0.99),
            )
        )
    return tuple(found)


def quantile(ascending: Sequence[float], level: float) -> float:
    """The smallest value that so large a part of the values does not exceed."""
    return ascending[max(0, ceil(len(ascending) * level) - 1)]
