"""A stage's latency and capacity over many shapes of replica group at once, as arrays.

Says what ``ProfileSet.curve`` says, shape by shape, but for thousands of shapes in a few array
operations: the search asks for all of them. See ``ProfileSet`` for what lies between shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

from scepsy.model.cluster import GpuTypeName
from scepsy.model.workflow import Stage
from scepsy.profiles.curve import ProfileCurve, ProfileSet

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ShapeRows:
    """One stage on many shapes; a row is a mix of at most four profiled curves."""

    grid: Floats
    """(loads,) utilizations at which any curve has a point, sorted."""
    table_s: Floats
    """(curves, loads) mean latency of a call."""
    corners: Ints
    """(4, rows) which curves are mixed."""
    weights: Floats
    """(4, rows) by how much; they add up to 1."""
    last: Floats
    """(rows,) utilization up to which all corners are profiled."""
    call_s: Floats
    """(rows,) replica seconds that one call takes at saturation: 1 / capacity; infinite where
    the shape has no profile."""

    def latency_s(self, utilization: Floats) -> Floats:
        """(rows,) mean latency of a call at each row's utilization; infinite from 1 on."""
        within = np.minimum(utilization, self.last)
        high = np.clip(np.searchsorted(self.grid, within), 1, max(1, len(self.grid) - 1))
        low = high - 1
        high = np.minimum(high, len(self.grid) - 1)
        span = self.grid[high] - self.grid[low]
        part = np.divide(within - self.grid[low], span, out=np.zeros_like(span), where=span > 0)
        part = np.maximum(part, 0.0)  # below the first point the first is taken
        at_low = (self.weights * self.table_s[self.corners, low]).sum(axis=0)
        at_high = (self.weights * self.table_s[self.corners, high]).sum(axis=0)
        growth = np.full_like(utilization, np.inf)
        np.divide(1 - within, 1 - utilization, out=growth, where=utilization < 1)
        latency_s: Floats = (at_low + part * (at_high - at_low)) * np.maximum(growth, 1.0)
        return latency_s


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """One stage on one shape with at least as many replicas as were profiled.

    More replicas change nothing but the utilization.
    """

    grid: Floats
    table_s: Floats
    """(loads,) mean latency of a call, on the grid."""
    last: float
    call_s: float

    def latency_s(self, utilization: Floats) -> Floats:
        """Mean latency of a call at utilizations below 1."""
        latency_s: Floats = np.interp(np.minimum(utilization, self.last), self.grid, self.table_s)
        past = utilization > self.last
        latency_s[past] *= (1 - self.last) / (1 - utilization[past])
        return latency_s


@dataclass(frozen=True, slots=True)
class _Line:
    """The profiled replica counts of one stage on one (tensor_parallel, fraction)."""

    replicas: Ints
    curves: Ints

    def bracket(self, replicas: Ints) -> tuple[Ints, Ints, Floats, npt.NDArray[np.bool_]]:
        """(rows,) curve at or below, curve above, weight of the one above, and is there one."""
        at = np.searchsorted(self.replicas, replicas, side="right") - 1
        known = at >= 0
        at = np.maximum(at, 0)
        above = np.minimum(at + 1, len(self.replicas) - 1)
        span = np.log(self.replicas[above] / self.replicas[at])
        into = np.log(replicas / self.replicas[at])
        weight = np.divide(into, span, out=np.zeros(len(replicas)), where=(span > 0) & (into > 0))
        above = np.where(weight > 0, above, at)
        return self.curves[at], self.curves[above], weight, known


class StageSurface:
    """All profiled curves of one stage on one GPU type."""

    def __init__(self, curves: Sequence[ProfileCurve]) -> None:
        self._grid = np.unique([p.utilization for c in curves for p in c.points])
        self._table_s = np.array(
            [
                np.interp(
                    self._grid,
                    [p.utilization for p in c.points],
                    [p.latency_s_mean for p in c.points],
                )
                for c in curves
            ]
        )
        self._last = np.array([c.points[-1].utilization for c in curves])
        self._call_s = np.array([1 / c.capacity_per_s for c in curves])
        members: dict[int, dict[float, list[tuple[int, int]]]] = {}
        for at, curve in enumerate(curves):
            key = curve.key
            by_fraction = members.setdefault(key.tensor_parallel, {})
            by_fraction.setdefault(key.gpu_fraction, []).append((key.replicas, at))
        self._lines = {
            degree: {f: _line(pairs) for f, pairs in sorted(by_fraction.items())}
            for degree, by_fraction in members.items()
        }

    @property
    def first(self) -> float:
        """Utilization below which no curve falls any further."""
        return float(self._grid[0])

    def most_replicas(self, shape: tuple[int, float]) -> int:
        """Replicas beyond which nothing was profiled for a shape, within what was profiled."""
        below, above, _ = self._around(*shape)
        lines = self._lines[shape[0]]
        return int(max(lines[below].replicas[-1], lines[above].replicas[-1]))

    def tail(self, shape: tuple[int, float]) -> Tail:
        """The shape with ``most_replicas`` or more."""
        below, above, weight = self._around(*shape)
        low, high = (int(self._lines[shape[0]][f].curves[-1]) for f in (below, above))
        return Tail(
            grid=self._grid,
            table_s=(1 - weight) * self._table_s[low] + weight * self._table_s[high],
            last=float(min(self._last[low], self._last[high]))
            if weight
            else float(self._last[low]),
            call_s=float((1 - weight) * self._call_s[low] + weight * self._call_s[high]),
        )

    def rows(self, shapes: Sequence[tuple[int, float]], replicas: Sequence[Ints]) -> ShapeRows:
        """Rows for each shape with each of its replica counts, in that order.

        Args:
            shapes: (tensor_parallel, gpu_fraction), within what was profiled.
            replicas: for each shape the replica counts asked for.
        """
        parts = [self._corners(*s, k) for s, k in zip(shapes, replicas, strict=True)]
        corners = np.concatenate([part[0] for part in parts], axis=1)
        weights = np.concatenate([part[1] for part in parts], axis=1)
        known = np.concatenate([part[2] for part in parts])
        return ShapeRows(
            grid=self._grid,
            table_s=self._table_s,
            corners=corners,
            weights=weights,
            last=self._last[corners].min(axis=0),
            call_s=np.where(known, (weights * self._call_s[corners]).sum(axis=0), np.inf),
        )

    def _around(self, degree: int, fraction: float) -> tuple[float, float, float]:
        """The profiled fractions at or below and at or above, and the weight of the latter."""
        lines = self._lines[degree]
        below = max(f for f in lines if f <= fraction + 1e-6)
        above = min(f for f in lines if f >= fraction - 1e-6)
        if above <= below:
            return below, below, 0.0
        return below, above, (1 / below - 1 / fraction) / (1 / below - 1 / above)

    def _corners(
        self, degree: int, fraction: float, replicas: Ints
    ) -> tuple[Ints, Floats, npt.NDArray[np.bool_]]:
        below, above, weight = self._around(degree, fraction)
        lines = self._lines[degree]
        low, low_above, low_weight, low_known = lines[below].bracket(replicas)
        high, high_above, high_weight, high_known = lines[above].bracket(replicas)
        corners = np.stack([low, low_above, high, high_above])
        weights = np.stack(
            [
                (1 - weight) * (1 - low_weight),
                (1 - weight) * low_weight,
                weight * (1 - high_weight),
                weight * high_weight,
            ]
        )
        return corners, weights, low_known & high_known


def _line(pairs: list[tuple[int, int]]) -> _Line:
    replicas, curves = zip(*sorted(pairs), strict=True)
    return _Line(np.array(replicas), np.array(curves))


class Surfaces:
    """The surfaces of all stages that were profiled, each made when it is first asked for."""

    def __init__(self, profiles: ProfileSet) -> None:
        self.profiles = profiles
        self._curves: dict[tuple[Stage, GpuTypeName], list[ProfileCurve]] = {}
        self._made: dict[tuple[Stage, GpuTypeName], StageSurface] = {}
        for curve in profiles.curves:
            self._curves.setdefault((curve.key.stage, curve.key.gpu_type), []).append(curve)

    def surface(self, stage: Stage, gpu_type: GpuTypeName) -> StageSurface:
        """The surface of a stage that was profiled on a GPU type."""
        key = (stage, gpu_type)
        if key not in self._made:
            self._made[key] = StageSurface(self._curves[key])
        return self._made[key]

    def shapes(self, stages: Sequence[Stage], gpu_type: GpuTypeName) -> list[tuple[int, float]]:
        """(tensor_parallel, gpu_fraction) that serve all of some stages, fractions in tenths."""
        usable = [self._shapes(stage, gpu_type) for stage in stages]
        return sorted(set.intersection(*usable)) if usable else []

    def _shapes(self, stage: Stage, gpu_type: GpuTypeName) -> set[tuple[int, float]]:
        range_of: dict[int, tuple[float, float]] = {}
        for curve in self._curves.get((stage, gpu_type), ()):
            low, high = range_of.get(curve.key.tensor_parallel, (inf, 0.0))
            fraction = round(curve.key.gpu_fraction, 6)
            range_of[curve.key.tensor_parallel] = min(low, fraction), max(high, fraction)
        return {
            (degree, tenths / 10)
            for degree, (low, high) in range_of.items()
            for tenths in range(1, 11)
            if low <= tenths / 10 <= high
        }
