"""The shape of one execution: order, overlap, fan-out, gaps, and the path that sets its length.

Pure. Dependencies are not recorded, so they are inferred from times alone: a call depends on the
call that ended last before it started. That is exact for a program that waits for each answer and
for one that fans out and joins; where a branch lets another pass, it is a guess.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from scepsy.model.execution import Call, Execution
from scepsy.model.workflow import Stage


@dataclass(frozen=True, slots=True)
class Interval:
    """From one instant to another, on the trace's clock."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageActivity:
    """When one stage worked in one execution."""

    stage: Stage
    calls: int
    busy: tuple[Interval, ...]
    """Disjoint, sorted: where at least one of the stage's calls runs."""
    busy_s: float
    work_s: float
    """Sum of the stage's call times; work / busy is the fan-out."""
    peak_parallel: int
    """Most calls of the stage at one time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Time in which two stages both run."""

    first: Stage
    second: Stage
    overlap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """The shape of one execution."""

    stages: tuple[StageActivity, ...]
    """Sorted by stage."""
    overlaps: tuple[Overlap, ...]
    """Of each pair of stages that ever run at one time."""
    gaps: tuple[Interval, ...]
    """Where no call runs, between first arrival and last end."""
    peak_parallel: int
    depth: int
    """Calls on the longest chain of dependent calls."""
    critical_path: tuple[Call, ...]
    """The chain that ends with the last call to end, in order."""

    @property
    def gap_s(self) -> float:
        """Time in which no call runs."""
        return total_s(self.gaps)


def structure(execution: Execution) -> Structure:
    """The shape of an execution, from all of its calls."""
    by_stage: dict[Stage, list[Call]] = {}
    for call in execution.calls:
        by_stage.setdefault(call.stage, []).append(call)
    stages = tuple(_activity(stage, by_stage[stage]) for stage in sorted(by_stage))
    busy = busy_intervals(execution.calls)
    before = predecessors(execution.calls)
    return Structure(
        stages=stages,
        overlaps=_overlaps(stages),
        gaps=tuple(Interval(a.end_s, b.start_s) for a, b in pairwise(busy)),
        peak_parallel=peak_parallel(execution.calls),
        depth=_depth(before),
        critical_path=_critical_path(execution.calls, before),
    )


def busy_intervals(calls: Iterable[Call]) -> tuple[Interval, ...]:
    """Where at least one of the calls runs: disjoint, sorted; those that touch are one."""
    merged: list[Interval] = []
    for start_s, end_s in sorted((call.start_s, call.end_s) for call in calls):
        if merged and start_s <= merged[-1].end_s:
            merged[-1] = Interval(merged[-1].start_s, max(merged[-1].end_s, end_s))
        else:
            merged.append(Interval(start_s, end_s))
    return tuple(merged)


def total_s(intervals: Iterable[Interval]) -> float:
    """Length of disjoint intervals together."""
    return sum(interval.end_s - interval.start_s for interval in intervals)


def peak_parallel(calls: Sequence[Call]) -> int:
    """Most calls that run at one time; one that starts as another ends does not run beside it."""
    turns = [(call.end_s, -1) for call in calls if call.end_s > call.start_s]
    if not turns:
        return min(1, len(calls))
    turns += [(call.start_s, 1) for call in calls if call.end_s > call.start_s]
    running = peak = 0
    for _, change in sorted(turns):
        running += change
        peak = max(peak, running)
    return peak


def predecessors(calls: Sequence[Call]) -> tuple[int | None, ...]:
    """(calls,) position of the call that each depends on; None for those that start the execution.

    It is, of the calls before it in the order, the one that ended last by its start.
    """
    ended: list[tuple[float, int]] = []
    found: list[int | None] = []
    for position, call in enumerate(calls):
        at = bisect_right(ended, (call.start_s, position))
        found.append(ended[at - 1][1] if at else None)
        insort(ended, (call.end_s, position))
    return tuple(found)


def _activity(stage: Stage, calls: Sequence[Call]) -> StageActivity:
    busy = busy_intervals(calls)
    return StageActivity(
        stage=stage,
        calls=len(calls),
        busy=busy,
        busy_s=total_s(busy),
        work_s=sum(call.e2e_s for call in calls),
        peak_parallel=peak_parallel(calls),
    )


def _overlaps(stages: Sequence[StageActivity]) -> tuple[Overlap, ...]:
    pairs = (
        Overlap(first=a.stage, second=b.stage, overlap_s=_shared_s(a.busy, b.busy))
        for a, b in combinations(stages, 2)
    )
    return tuple(pair for pair in pairs if pair.overlap_s > 0)


def _shared_s(left: Sequence[Interval], right: Sequence[Interval]) -> float:
    """Time that two sorted lists of disjoint intervals have in common."""
    at_left = at_right = 0
    shared_s = 0.0
    while at_left < len(left) and at_right < len(right):
        a, b = left[at_left], right[at_right]
        shared_s += max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))
        if a.end_s < b.end_s:
            at_left += 1
        else:
            at_right += 1
    return shared_s


def _depth(before: Sequence[int | None]) -> int:
    depths: list[int] = []
    for earlier in before:
        depths.append(1 if earlier is None else depths[earlier] + 1)
    return max(depths, default=0)


def _critical_path(calls: Sequence[Call], before: Sequence[int | None]) -> tuple[Call, ...]:
    at: int | None = max(range(len(calls)), key=lambda i: (calls[i].end_s, i))
    path: list[Call] = []
    while at is not None:
        path.append(calls[at])
        at = before[at]
    return tuple(reversed(path))
