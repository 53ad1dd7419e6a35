"""What an LLM can do: latency against load, up to saturation.

A curve belongs to one *stage* (so that its lengths, prefix hits and bursts are those of that
stage's recorded calls) on one shape of replica group. Where stages share an LLM, their loads are
added as utilizations: a stage's latency at a total utilization is read from its own curve.

A ``ProfileSet`` holds the curves that were profiled and gives those between them.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import log

from scepsy.errors import InputError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.provenance import Provenance, worst
from scepsy.model.workflow import LlmName, Stage


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ProfileKey:
    """What was profiled."""

    stage: Stage
    gpu_type: GpuTypeName
    tensor_parallel: int
    gpu_fraction: float
    replicas: int = 1
    """Replicas that shared the load behind one router: more of them queue less at equal load."""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1 or self.replicas < 1 or not 0 < self.gpu_fraction <= 1:
            raise InputError(
                f"profile of {self.stage}: tensor_parallel {self.tensor_parallel} and replicas "
                f"{self.replicas} must be >= 1, gpu_fraction {self.gpu_fraction} in (0, 1]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePoint:
    """Latency of calls at one load."""

    utilization: float
    """Offered load over capacity, in [0, 1)."""
    latency_s_mean: float
    latency_s_p95: float
    ttft_s_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileCurve:
    """Latency of a stage's calls against the utilization of the replicas that serve it."""

    key: ProfileKey
    capacity_per_s: float
    """Calls/s of this stage that one replica completes at saturation."""
    points: tuple[ProfilePoint, ...]
    """Sorted by utilization; latency never falls."""
    provenance: Provenance
    source: str
    """What was measured, with versions, for a person to read."""
    error_fraction: float | None = None
    """Relative error of its times that 9 of 10 stay within; None: as usual for the provenance."""

    def __post_init__(self) -> None:
        if not self.capacity_per_s > 0 or not self.points:
            raise InputError(f"profile of {self.key.stage}: needs points and a capacity > 0")
        loads = [point.utilization for point in self.points]
        if loads != sorted(set(loads)) or loads[0] < 0 or loads[-1] >= 1:
            raise InputError(f"profile of {self.key.stage}: utilizations must rise within [0, 1)")
        means = [point.latency_s_mean for point in self.points]
        if means != sorted(means):
            raise InputError(f"profile of {self.key.stage}: latency must not fall as load rises")

    def latency_s(self, utilization: float) -> float:
        """Mean latency of a call (s), linear between points; infinite from 1 on.

        Below the first point the first is taken. Past the last point and below 1, latency grows
        as the last point's does in an M/M/1 queue: by (1 - u_last) / (1 - u).
        """
        if utilization >= 1:
            return float("inf")
        points = self.points
        at = bisect_left(points, utilization, key=_load)
        if at == 0:
            return points[0].latency_s_mean
        if at == len(points):
            last = points[-1]
            return last.latency_s_mean * (1 - last.utilization) / (1 - utilization)
        low, high = points[at - 1], points[at]
        weight = (utilization - low.utilization) / (high.utilization - low.utilization)
        return low.latency_s_mean + weight * (high.latency_s_mean - low.latency_s_mean)

    def point(self, utilization: float) -> ProfilePoint:
        """All statistics at a load in [0, 1), between and beyond points as ``latency_s``."""
        at = bisect_left(self.points, utilization, key=_load)
        if at == 0:
            return replace(self.points[0], utilization=utilization)
        if at == len(self.points):
            last = self.points[-1]
            growth = (1 - last.utilization) / (1 - utilization)
            return ProfilePoint(
                utilization=utilization,
                latency_s_mean=last.latency_s_mean * growth,
                latency_s_p95=last.latency_s_p95 * growth,
                ttft_s_mean=last.ttft_s_mean * growth,
            )
        low, high = self.points[at - 1], self.points[at]
        weight = (utilization - low.utilization) / (high.utilization - low.utilization)
        return _mix_points(low, high, weight, utilization)


def _load(point: ProfilePoint) -> float:
    return point.utilization


def rising(points: Iterable[ProfilePoint]) -> tuple[ProfilePoint, ...]:
    """The points by utilization, each statistic replaced by its running maximum.

    More load cannot make calls faster; where a measurement says so it is noise, and the running
    maximum errs towards the slower side.
    """
    risen: list[ProfilePoint] = []
    for point in sorted(points, key=_load):
        if risen:
            last = risen[-1]
            point = replace(  # noqa: PLW2901 (the risen point stands for the measured one)
                point,
                latency_s_mean=max(point.latency_s_mean, last.latency_s_mean),
                latency_s_p95=max(point.latency_s_p95, last.latency_s_p95),
                ttft_s_mean=max(point.ttft_s_mean, last.ttft_s_mean),
            )
        risen.append(point)
    return tuple(risen)


def _mix(low: float, high: float, weight: float) -> float:
    return low + weight * (high - low)


def _mix_points(
    low: ProfilePoint, high: ProfilePoint, weight: float, utilization: float
) -> ProfilePoint:
    return ProfilePoint(
        utilization=utilization,
        latency_s_mean=_mix(low.latency_s_mean, high.latency_s_mean, weight),
        latency_s_p95=_mix(low.latency_s_p95, high.latency_s_p95, weight),
        ttft_s_mean=_mix(low.ttft_s_mean, high.ttft_s_mean, weight),
    )


def _between(low: ProfileCurve, high: ProfileCurve, weight: float, key: ProfileKey) -> ProfileCurve:
    """The curve at ``weight`` of the way: times are mixed, so capacity is their harmonic mix."""
    last = min(low.points[-1].utilization, high.points[-1].utilization)
    loads = sorted({_load(p) for p in (*low.points, *high.points) if _load(p) <= last})
    return ProfileCurve(
        key=key,
        capacity_per_s=1 / _mix(1 / low.capacity_per_s, 1 / high.capacity_per_s, weight),
        points=rising(_mix_points(low.point(u), high.point(u), weight, u) for u in loads),
        provenance=worst((low.provenance, high.provenance, Provenance.INTERPOLATED)),
        source=low.source if low.source == high.source else f"{low.source}; {high.source}",
        error_fraction=max(
            (e for e in (low.error_fraction, high.error_fraction) if e is not None), default=None
        ),
    )


_ShapeKey = tuple[Stage, GpuTypeName, int, float, int]


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """Curves of any stages and shapes, and the ones between them.

    Between profiled GPU fractions, latency and time per call are linear in 1 / fraction: exact for
    work that a smaller share only slows down. Between replica counts they are linear in the
    logarithm: replicas pool queues but part prefixes, the more slowly the more there are. More
    replicas than were profiled are taken to be like the most that were.
    """

    curves: tuple[ProfileCurve, ...]
    """One for each key, sorted by it."""
    _known: dict[_ShapeKey, ProfileCurve | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Answers so far, the profiled ones from the start."""
    _fractions: dict[tuple[Stage, GpuTypeName, int], dict[float, list[int]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By stage, type and degree: the profiled replica counts of each fraction, both sorted."""

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.curves, key=lambda curve: curve.key))
        object.__setattr__(self, "curves", ordered)
        for curve in ordered:
            key = curve.key
            fraction = _rounded(key.gpu_fraction)
            shape = (key.stage, key.gpu_type, key.tensor_parallel, fraction, key.replicas)
            if shape in self._known:
                raise InputError(f"two profiles of {key.stage} on one shape: {key}")
            self._known[shape] = curve
            fractions = self._fractions.setdefault(shape[:3], {})
            fractions.setdefault(fraction, []).append(key.replicas)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that have a curve, sorted."""
        return tuple(sorted({curve.key.stage for curve in self.curves}))

    @property
    def gpu_types(self) -> tuple[GpuTypeName, ...]:
        """The GPU types that have a curve, sorted."""
        return tuple(sorted({curve.key.gpu_type for curve in self.curves}))

    def updated(self, curves: Iterable[ProfileCurve]) -> "ProfileSet":
        """This set with curves added; of equal keys the new one stays."""
        by_key = {curve.key: curve for curve in self.curves}
        by_key.update((curve.key, curve) for curve in curves)
        return ProfileSet(tuple(by_key.values()))

    def curve(
        self,
        stage: Stage,
        gpu_type: GpuTypeName,
        tensor_parallel: int,
        gpu_fraction: float,
        replicas: int,
    ) -> ProfileCurve | None:
        """The curve of a shape: as profiled, or between profiled ones (INTERPOLATED).

        None where the degree was not profiled, or the fraction or replicas lie below what was:
        the LLM does not fit there, or nobody looked.
        """
        shape = (stage, gpu_type, tensor_parallel, _rounded(gpu_fraction), replicas)
        if shape not in self._known:
            self._known[shape] = self._interpolated(shape)
        return self._known[shape]

    def shapes(
        self, llm: LlmName, gpu_type: GpuTypeName, stages: Iterable[Stage] | None = None
    ) -> tuple[tuple[int, float], ...]:
        """(tensor_parallel, gpu_fraction) that serve all stages of an LLM, fractions in tenths.

        Args:
            llm: which LLM.
            gpu_type: on what.
            stages: those that must be served; all that the set has for the LLM when None.
        """
        wanted = {s for s in (self.stages if stages is None else stages) if s.llm == llm}
        usable = [self._shapes(stage, gpu_type) for stage in wanted]
        return tuple(sorted(set.intersection(*usable))) if usable else ()

    def _shapes(self, stage: Stage, gpu_type: GpuTypeName) -> set[tuple[int, float]]:
        return {
            (degree, tenths / 10)
            for (of, on, degree), fractions in self._fractions.items()
            if of == stage and on == gpu_type
            for tenths in range(1, 11)
            if min(fractions) <= tenths / 10 <= max(fractions)
        }

    def _interpolated(self, shape: _ShapeKey) -> ProfileCurve | None:
        stage, gpu_type, degree, fraction, replicas = shape
        fractions = self._fractions.get((stage, gpu_type, degree), {})
        if fraction in fractions:
            return self._between_replicas(shape, fractions[fraction])
        below = max((f for f in fractions if f < fraction), default=None)
        above = min((f for f in fractions if f > fraction), default=None)
        if below is None or above is None:
            return None
        low = self.curve(stage, gpu_type, degree, below, replicas)
        high = self.curve(stage, gpu_type, degree, above, replicas)
        if low is None or high is None:
            return None
        weight = (1 / below - 1 / fraction) / (1 / below - 1 / above)
        return _between(low, high, weight, _key(shape))

    def _between_replicas(self, shape: _ShapeKey, profiled: list[int]) -> ProfileCurve | None:
        replicas = shape[4]
        below = max((k for k in profiled if k < replicas), default=None)
        above = min((k for k in profiled if k > replicas), default=None)
        if below is None:
            return None
        low = self._known[(*shape[:4], below)]
        high = self._known[(*shape[:4], above or below)]
        assert low is not None  # it was profiled
        assert high is not None
        weight = log(replicas / below) / log(above / below) if above else 0.0
        return _between(low, high, weight, _key(shape))


def _rounded(gpu_fraction: float) -> float:
    """Equal for 0.3 and 3 * 0.1."""
    return round(gpu_fraction, 6)


def _key(shape: _ShapeKey) -> ProfileKey:
    stage, gpu_type, degree, fraction, replicas = shape
    return ProfileKey(
        stage=stage,
        gpu_type=gpu_type,
        tensor_parallel=degree,
        gpu_fraction=fraction,
        replicas=replicas,
    )
