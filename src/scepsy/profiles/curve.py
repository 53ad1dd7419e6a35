"""What an LLM can do: latency against load, up to saturation.

A curve belongs to one *stage* (so that its lengths, prefix hits and bursts are those of that
stage's recorded calls) on one shape of replica group. Where stages share an LLM, their loads are
added as utilizations: a stage's latency at a total utilization is read from its own curve.
"""

from bisect import bisect_left
from dataclasses import dataclass

from scepsy.errors import InputError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import Stage


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ProfileKey:
    """What was profiled."""

    stage: Stage
    gpu_type: GpuTypeName
    tensor_parallel: int
    gpu_fraction: float
    replicas: int = 1
    """Replicas that shared the load behind one router: more of them queue less at equal load."""


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

    def __post_init__(self) -> None:
        if not self.capacity_per_s > 0 or not self.points:
            raise InputError(f"profile of {self.key.stage}: needs points and a capacity > 0")
        loads = [point.utilization for point in self.points]
        if loads != sorted(set(loads)) or loads[0] < 0:
            raise InputError(f"profile of {self.key.stage}: utilizations must rise from >= 0")
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
        loads = [point.utilization for point in self.points]
        at = bisect_left(loads, utilization)
        if at == 0:
            return self.points[0].latency_s_mean
        if at == len(loads):
            last = self.points[-1]
            return last.latency_s_mean * (1 - last.utilization) / (1 - utilization)
        low, high = self.points[at - 1], self.points[at]
        weight = (utilization - low.utilization) / (high.utilization - low.utilization)
        return low.latency_s_mean + weight * (high.latency_s_mean - low.latency_s_mean)
