"""Questions asked of the results: latency against throughput, peak rates, ratios to ours."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.paper.chain import Point
from benchmarks.paper.measure import Run
from benchmarks.paper.settings import Part
from benchmarks.paper.statistics import Mean, mean_of
from benchmarks.paper.systems import OURS
from scepsy.model.workflow import WorkflowName

SLO_FACTORS = (3.0, 6.0)
"""An SLO is met where p95 is at most so many times the least p95 that any system has at the lowest
rate; with several workflows, in each of them."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest rate within an SLO."""

    rate_per_s: Mean
    is_bound: bool
    """It misses the SLO at the lowest rate already: the true peak is lower than that rate."""
    is_reached: bool
    """It meets the SLO at the highest rate that was looked at: the true peak is higher."""


class Field:
    """All systems of one workload and cluster, in one part of the evaluation."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points: dict[str, dict[float, Point]] = {}
        for point in sorted(points, key=lambda each: each.load):
            self._points.setdefault(point.system, {})[point.load] = point

    @property
    def systems(self) -> Sequence[str]:
        """Ours first, then as evaluated."""
        return sorted(self._points, key=lambda name: name != OURS)

    @property
    def loads(self) -> Sequence[float]:
        """All that any system was evaluated at."""
        return sorted({load for own in self._points.values() for load in own})

    def point(self, system: str, load: float) -> Point | None:
        """A system at a rate, if it was evaluated there."""
        return self._points.get(system, {}).get(load)

    def runs(self, system: str, load: float) -> tuple[Run, ...]:
        """Those of a system that keeps up at a rate on every seed; else none."""
        point = self.point(system, load)
        return point.runs if point is not None and point.keeps_up else ()

    def lost(self, system: str, load: float) -> bool:
        """Whether a system was evaluated at a rate and does not keep up."""
        return self.point(system, load) is not None and not self.runs(system, load)

    def curve(self, system: str) -> Iterator[tuple[float, Mean]]:
        """Rate and mean latency (of the first workflow), as far as it keeps up."""
        for load, point in self._points.get(system, {}).items():
            if runs := self.runs(system, load):
                yield point.rate_per_s, mean_of([run.latencies[0].mean_s for run in runs])

    @cached_property
    def least_p95_s(self) -> Mapping[WorkflowName, float]:
        """Of any system at the lowest rate, by workflow."""
        least: dict[WorkflowName, float] = {}
        for system in self.systems:
            runs = self.runs(system, self.loads[0])
            for at, latency in enumerate(runs[0].latencies if runs else ()):
                p95_s = mean_of([run.latencies[at].p95_s for run in runs]).value
                least[latency.workflow] = min(least.get(latency.workflow, p95_s), p95_s)
        return least

    def slower(self, system: str, load: float, than: str = OURS) -> Mean | None:
        """Mean latency over another's, seed by seed; None where one of them does not keep up."""
        ratios = [
            sum(a.mean_s / b.mean_s for a, b in zip(one.latencies, other.latencies, strict=True))
            / len(one.latencies)
            for one, other in zip(self.runs(system, load), self.runs(than, load), strict=False)
        ]
        return mean_of(ratios) if ratios else None

    def peak(self, system: str, slo_factor: float) -> Peak | None:
        """The largest rate within the SLO; between rates, 1 / p95 is taken to be linear.

        None where the system was not evaluated at all rates, or none kept up at the lowest.
        """
        points = list(self._points.get(system, {}).values())
        if not self.least_p95_s or [point.load for point in points] != self.loads:
            return None
        seeds = max(len(point.runs) for point in points)
        if not seeds:
            return Peak(Mean(points[0].rate_per_s, 0.0, 0), is_bound=True, is_reached=False)
        rooms = [[self._room(p, seed, slo_factor) for p in points] for seed in range(seeds)]
        rates = [point.rate_per_s for point in points]
        return Peak(
            mean_of([_crossing(rates, room) for room in rooms]),
            is_bound=any(room[0] < 1 for room in rooms),
            is_reached=all(min(room) >= 1 for room in rooms),
        )

    def _room(self, point: Point, seed: int, slo_factor: float) -> float:
        """The SLO's bound over p95, in the workflow where it is least; 0 where saturated."""
        if seed >= len(point.runs) or point.runs[seed].saturated:
            return 0.0
        return min(
            slo_factor * self.least_p95_s[each.workflow] / each.p95_s
            for each in point.runs[seed].latencies
        )


def _crossing(rates: Sequence[float], rooms: Sequence[float]) -> float:
    """The rate up to which there is room, the first rate where there is none at all."""
    last = rates[0]
    for at, room in enumerate(rooms):
        if room < 1:
            if at:
                before = rooms[at - 1]
                last += (before - 1) / (before - room) * (rates[at] - last)
            return last
        last = rates[at]
    return last


def fields(points: Iterable[Point], part: Part) -> Mapping[tuple[str, int], Field]:
    """By workload and GPUs, in the order of evaluation."""
    found: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        if point.part == part and not point.variant:
            found.setdefault((point.workload, point.gpus), []).append(point)
    return {key: Field(own) for key, own in found.items()}
