"""What one stage is asked, as recorded: the calls of each execution and what each waits for.

Profiling replays this against the engine model or a live engine. It keeps what decides latency
at a given load: lengths, shared prefixes, calls issued together, and calls that follow others.
It must not know how calls are served.
"""

import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from scepsy.errors import InputError, MissingError
from scepsy.model.dependency import Dependency, dependencies
from scepsy.model.execution import Call, CallStatus, Endpoint, Execution
from scepsy.model.workflow import Stage

_MASK = (1 << 63) - 1
_ODD = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: multiples of it spread evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadCall:
    """One recorded call, to be replayed."""

    prompt_tokens: int
    output_tokens: int
    endpoint: Endpoint = Endpoint.CHAT
    blocks: tuple[int, ...] = ()
    """Ids of the prompt's full blocks, then of those that prompt and output fill beyond them."""
    prefix_blocks: int = 0
    """How many of those are the prompt's."""
    shared_blocks: int = 0
    """How many, from the first, were also seen in other executions."""
    waits_for: tuple[int, ...] = ()
    """Calls of the same segment (by position) that must have ended before this one starts."""
    after_s: float = 0.0
    """From the last of those ends, or from the segment's start where there are none, to the start:
    time that the execution spent in tools and other stages."""
    recorded_s: float = 0.0
    """How long it took when it was recorded."""

    def copy_blocks(self, copy: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Prefix and output block ids for one replayed copy of the execution.

        What other executions share keeps its id in all copies; what is the execution's own gets
        an id of this copy's own, or a second replay would find the first one's prompts cached.
        """
        salt = (copy * _ODD) & _MASK
        ids, shared = self.blocks, self.shared_blocks
        if shared < len(ids):
            ids = ids[:shared] + tuple([block ^ salt for block in ids[shared:]])
        return ids[: self.prefix_blocks], ids[self.prefix_blocks :]


@dataclass(frozen=True, slots=True)
class Segment:
    """The calls of one recorded execution on one stage, by start."""

    calls: tuple[WorkloadCall, ...]
    together: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """Calls that wait for the same ones."""
    releases: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    """For each call, which of those wait for it."""

    def __post_init__(self) -> None:
        together: dict[tuple[int, ...], list[int]] = {}
        for at, call in enumerate(self.calls):
            together.setdefault(call.waits_for, []).append(at)
        releases: list[list[int]] = [[] for _ in self.calls]
        for number, (waits_for, calls) in enumerate(together.items()):
            for other in waits_for:
                if other >= calls[0]:
                    raise InputError(f"call {calls[0]} of a segment waits for a later one, {other}")
                releases[other].append(number)
        object.__setattr__(self, "together", tuple(map(tuple, together.values())))
        object.__setattr__(self, "releases", tuple(map(tuple, releases)))

    def times_s(self, scale: float) -> tuple[tuple[float, float], ...]:
        """Start and end of each call, if each took ``scale`` times what it took when recorded."""
        times: list[tuple[float, float]] = []
        for call in self.calls:
            ended_s = max((times[at][1] for at in call.waits_for), default=0.0)
            start_s = ended_s + call.after_s
            times.append((start_s, start_s + call.recorded_s * scale))
        return tuple(times)


class SegmentRun:
    """One replayed copy of a segment: which calls may start as others end."""

    __slots__ = ("_left", "_waiting", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._left = len(segment.calls)
        # What those that wait together wait for yet.
        self._waiting = [len(segment.calls[each[0]].waits_for) for each in segment.together]

    @property
    def is_over(self) -> bool:
        """Whether all calls have ended."""
        return self._left == 0

    def first(self) -> list[int]:
        """Calls that wait for none: each starts ``after_s`` after the segment."""
        calls = self.segment.calls
        return [at for at, call in enumerate(calls) if not call.waits_for]

    def resume(
        self, times_s: Sequence[tuple[float, float]], age_s: float
    ) -> list[tuple[int, float]]:
        """Take calls that began before an age as served; give the next ones and their starts (s).

        Args:
            times_s: assumed start and end of each call, as ``Segment.times_s`` gives them.
            age_s: how long ago the segment started.
        """
        ready = self.first()
        for at, (start_s, _) in enumerate(times_s):
            if start_s < age_s:
                ready += self.ended(at)
        return [(at, times_s[at][0] - age_s) for at in ready if times_s[at][0] >= age_s]

    def ended(self, call: int) -> list[int]:
        """Calls whose last awaited call has just ended: each starts ``after_s`` from now."""
        self._left -= 1
        ready: list[int] = []
        for number in self.segment.releases[call]:
            self._waiting[number] -= 1
            if self._waiting[number] == 0:
                ready += self.segment.together[number]
        ready.sort()
        return ready


@dataclass(frozen=True, slots=True)
class Workload:
    """All recorded executions of a stage that called it."""

    stage: Stage
    segments: tuple[Segment, ...]

    @property
    def calls_per_segment(self) -> float:
        """Mean calls of an execution that calls the stage at all."""
        return sum(len(segment.calls) for segment in self.segments) / len(self.segments)

    @property
    def tokens_max(self) -> int:
        """Prompt and output of the longest call."""
        return max(
            call.prompt_tokens + call.output_tokens
            for segment in self.segments
            for call in segment.calls
        )

    @property
    def after_s_mean(self) -> float:
        """Mean time from what a call waits for to its start."""
        times = [call.after_s for segment in self.segments for call in segment.calls]
        return sum(times) / len(times)

    @property
    def recorded_s_mean(self) -> float:
        """Mean latency of a call when it was recorded."""
        times = [call.recorded_s for segment in self.segments for call in segment.calls]
        return sum(times) / len(times)


def stage_workload(executions: Iterable[Execution], stage: Stage) -> Workload:
    """The stage's part of recorded executions; calls that failed or were cut off are left out.

    Raises:
        MissingError: no call of the stage ended well.
    """
    recorded = [
        calls
        for execution in executions
        if (calls := [c for c in execution.calls if c.stage == stage and c.status is CallStatus.OK])
    ]
    if not recorded:
        raise MissingError(
            f"no recorded call of {stage} ended well",
            hint="record executions of the workflow, or check its name, LLM and role",
        )
    seen = block_counts(recorded)
    return Workload(stage, tuple(segment(calls, seen) for calls in recorded))


def block_counts(recorded: Iterable[Sequence[Call]]) -> Counter[int]:
    """In how many executions each block was seen, from the calls of each."""
    seen: Counter[int] = Counter()
    for calls in recorded:
        seen.update({block for c in calls for block in (*c.prefix_blocks, *c.output_blocks)})
    return seen


def segment(calls: Sequence[Call], seen: Mapping[int, int]) -> Segment:
    """What one execution asks, in full or in part.

    Args:
        calls: those of the execution that are replayed, by start.
        seen: in how many executions each block was seen.
    """
    pairs = zip(calls, dependencies(calls), strict=True)
    return Segment(tuple(_workload_call(call, waits, seen) for call, waits in pairs))


def _workload_call(call: Call, waits: Dependency, seen: Mapping[int, int]) -> WorkloadCall:
    blocks = (*call.prefix_blocks, *call.output_blocks)
    private = (at for at, block in enumerate(blocks) if seen[block] == 1)
    return WorkloadCall(
        prompt_tokens=call.prompt_tokens,
        output_tokens=call.output_tokens,
        endpoint=call.endpoint,
        blocks=blocks,
        prefix_blocks=len(call.prefix_blocks),
        shared_blocks=next(private, len(blocks)),
        waits_for=waits.waits_for,
        after_s=waits.after_s,
        recorded_s=call.e2e_s,
    )


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A Poisson stream of segments that repeats: over one period each has its share of calls.

    The same seed gives the same segments and (but for the rate) the same gaps at every load and
    on every shape, so that differences between them are not noise.
    """

    segments: tuple[Segment, ...]
    """In the order of their arrival."""
    gaps: tuple[float, ...]
    """Time before each arrival; 1 in the mean."""
    calls: int
    """In one period."""

    def gap_s(self, arrival: int, calls_per_s: float) -> float:
        """Time before an arrival, counted from 0 over all periods, at an offered load."""
        return self.gaps[arrival % len(self.gaps)] * self.calls / len(self.gaps) / calls_per_s

    def segment(self, arrival: int) -> Segment:
        """What arrives. Arrivals before the first have negative numbers."""
        return self.segments[arrival % len(self.segments)]

    def under_way(
        self, calls_per_s: float, scale: float
    ) -> list[tuple[SegmentRun, list[tuple[int, float]]]]:
        """Segments that arrived before time 0 and have calls left, had the stream begun long ago.

        Each with its next calls and when they start. Calls before time 0 are taken as served, in
        ``scale`` times their recorded latency: so a replay begins near its steady state.
        """
        times = {id(segment): segment.times_s(scale) for segment in self.segments}
        longest_s = max(start_s for calls in times.values() for start_s, _ in calls)
        found: list[tuple[SegmentRun, list[tuple[int, float]]]] = []
        age_s, arrival = self.gap_s(0, calls_per_s), -1
        while age_s <= longest_s:
            run = SegmentRun(self.segment(arrival))
            if following := run.resume(times[id(run.segment)], age_s):
                found.append((run, following))
            age_s += self.gap_s(arrival, calls_per_s)
            arrival -= 1
        return found


def poisson_arrivals(workload: Workload, *, min_calls: int, seed: int) -> Arrivals:
    """A period of at least ``min_calls`` calls in which recorded executions come equally often.

    They come in shuffled rounds; of the last round only as many as are needed, if it is the first.
    """
    rng = random.Random(seed)
    period: list[Segment] = []
    calls = 0
    while calls < min_calls:
        order = list(workload.segments)
        rng.shuffle(order)
        counts = list(accumulate((len(segment.calls) for segment in order), initial=calls))
        if not period:
            del order[max(_MIN_ARRIVALS, bisect_left(counts, min_calls)) :]
        period.extend(order)
        calls += sum(len(segment.calls) for segment in order)
    gaps = [rng.expovariate(1.0) for _ in period]
    mean = sum(gaps) / len(gaps)
    return Arrivals(tuple(period), tuple(gap / mean for gap in gaps), calls)


_MIN_ARRIVALS = 20
"""A period with fewer executions than this is not much of a Poisson stream."""
