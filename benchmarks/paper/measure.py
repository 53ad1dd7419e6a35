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


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Beyond which a run is of no interest."""

    value: float
    """Of ``Run.relative``."""
    scale_s: Mapping[WorkflowName, float]


def measure(
    system: System,
    arriving: Sequence[Stream],
    window: Window,
    seed: int,
    ceiling: Ceiling | None = None,
) -> Run:
    """Serve streams by a system at a steady load.

    Over the counted executions the rate is exact and each recorded one comes about equally often.
    A run that is certain to end above the ceiling is given up, as if it did not keep up.
    """
    total_per_s = sum(stream.rate_per_s for stream in arriving)
    period = window.executions / total_per_s
    deadline = _Deadline(window)
    least = _Least(window, ceiling) if ceiling else None
    arrivals = merged(
        stream.arrivals(seed, max(1, round(period * stream.rate_per_s))) for stream in arriving
    )
    noted = deadline.noting(least.noting(arrivals) if least else arrivals)
    simulation = Simulation(OpenLoop(noted), system.make(), order=system.order)
    ended: list[ServedExecution] = []
    counted: list[ServedExecution] = []
    while len(counted) < window.executions and (next_s := simulation.next_s) <= deadline.at_s:
        for execution in simulation.step(next_s):
            ended.append(execution)
            if 0 <= execution.number - window.warm_up < window.executions:
                counted.append(execution)
            if least and least.is_beyond(execution, next_s):
                break
        else:
            continue
        break
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


class _Least:
    """The least that a run can come to: executions under way have taken so long already."""

    def __init__(self, window: Window, ceiling: Ceiling) -> None:
        self._window = window
        self._ceiling = ceiling
        self._began_s: dict[WorkflowName, float] = {}
        """Sum over those under way."""
        self._under_way: dict[WorkflowName, int] = {}
        self._took_s: dict[WorkflowName, float] = {}
        """Sum over those that have ended."""
        self._last = WorkflowName(""), 0.0
        """Whose executions came last, and when: the source is one ahead."""

    def noting(self, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        """The same arrivals."""
        for number, arrival in enumerate(arrivals):
            if self._counts(number):
                name = arrival.script.workflow
                self._began_s[name] = self._began_s.get(name, 0.0) + arrival.at_s
                self._under_way[name] = self._under_way.get(name, 0) + 1
                self._last = name, arrival.at_s
            yield arrival

    def is_beyond(self, ended: ServedExecution, now_s: float) -> bool:
        """Whether the ceiling is passed by the end of an execution."""
        if not self._counts(ended.number):
            return False
        name = ended.workflow
        self._began_s[name] -= ended.start_s
        self._under_way[name] -= 1
        self._took_s[name] = self._took_s.get(name, 0.0) + ended.execution_s
        least = 0.0
        for each, count in self._under_way.items():
            running_s = count * now_s - self._began_s[each]
            if self._last[0] == each and self._last[1] > now_s:  # has yet to come
                running_s += self._last[1] - now_s
            least += (self._took_s.get(each, 0.0) + running_s) / self._ceiling.scale_s[each]
        most = self._window.executions * len(self._ceiling.scale_s)
        return least / most > self._ceiling.value

    def _counts(self, number: int) -> bool:
        return 0 <= number - self._window.warm_up < self._window.executions


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
