"""Profile a stage without HTTP: replay its recorded calls through the engine model.

Executions arrive as a Poisson stream at a load. Within one, calls that were issued together stay
together, and later ones follow as recorded: when the calls before them have ended, plus the time
that the execution then spent elsewhere. Serving does the same, so a curve made this way gives the
latency of the stage's calls at the load that serving puts on its replicas.

Capacity is found apart, from a queue that is never empty.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from scepsy.errors import InfeasibleError
from scepsy.model.execution import Execution, ExecutionId
from scepsy.model.provenance import Provenance, worst
from scepsy.model.workflow import LlmName, Stage
from scepsy.policy.route import CallView
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, rising
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import (
    Arrivals,
    Segment,
    SegmentRun,
    Workload,
    poisson_arrivals,
    stage_workload,
)
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names

UTILIZATIONS = (0.02, 0.3, 0.55, 0.75, 0.9)
"""Loads of the points: idle, then closer where latency bends."""
MIN_CALLS = 1000
"""Calls of one point at least."""
_BACKLOG_CALLS = 4
"""Calls that wait for each replica when it is kept saturated: enough to leave no place in a batch
empty. More would only bring in more executions, whose prompts push each other out of the cache;
a system that is offered no more than its capacity does not do that to itself."""
_MAX_SATURATING_CALLS = 8000
"""Calls that are counted at saturation, at most: long recordings need not be replayed twice."""
_WARM_UP_CYCLES = 3
"""Times from a call's release to its end, in the mean, before anything is counted."""
_TURNOVERS = 2
"""Times that the calls under way at saturation end while they are counted, at least."""


@dataclass(slots=True, eq=False)
class Served:
    """One replayed call."""

    run: SegmentRun
    call: int
    copy: int
    start_s: float
    first_token_s: float = field(default=float("nan"))
    end_s: float = field(default=float("nan"))

    @property
    def e2e_s(self) -> float:
        """From arrival to the last token."""
        return self.end_s - self.start_s

    @property
    def ttft_s(self) -> float:
        """From arrival to the first token, or to the end where there are no output tokens."""
        return self.first_token_s - self.start_s


class Replay:
    """Copies of recorded segments on their way through engines, in virtual time."""

    def __init__(self, stage: Stage, engines: Fleet) -> None:
        self.engines = engines
        self.now_s = 0.0
        self.served: list[Served] = []
        """All calls that have started, by start."""
        self.ended_calls = 0
        self.ended_segments = 0
        self._stage = stage
        self._starts: list[tuple[float, int, SegmentRun, int, int]] = []  # heap
        self._order = count()
        self._copies = count(1)
        self._inflight: dict[str, Served] = {}

    def start(self, segment: Segment) -> None:
        """Let a copy of a segment arrive now."""
        run = SegmentRun(segment)
        self.resume(run, [(call, segment.calls[call].after_s) for call in run.first()])

    def resume(self, run: SegmentRun, calls: Iterable[tuple[int, float]]) -> None:
        """Let a segment go on with calls that start so many seconds from now."""
        copy = next(self._copies)
        for call, in_s in calls:
            heappush(self._starts, (self.now_s + in_s, next(self._order), run, copy, call))

    def step(self, until_s: float) -> None:
        """Go to the next event, but not past ``until_s``."""
        start_s = self._starts[0][0] if self._starts else float("inf")
        self.now_s = min(until_s, start_s, self.engines.next_event_s())
        for event in self.engines.advance(self.now_s):
            self._see(event)
        while self._starts and self._starts[0][0] <= self.now_s:
            _, _, run, copy, call = heappop(self._starts)
            self._submit(run, copy, call)

    def _submit(self, run: SegmentRun, copy: int, call: int) -> None:
        recorded = run.segment.calls[call]
        prefix_blocks, output_blocks = recorded.copy_blocks(copy)
        prompt_tokens = max(1, recorded.prompt_tokens)
        view = CallView(
            execution=ExecutionId(str(copy)),
            workflow=self._stage.workflow,
            role=self._stage.role,
            prompt_tokens=prompt_tokens,
            prefix_blocks=prefix_blocks,
        )
        engine_call = EngineCall(
            id=f"{copy}-{call}",
            prompt_tokens=prompt_tokens,
            output_tokens=recorded.output_tokens,
            prefix_blocks=prefix_blocks,
            output_blocks=output_blocks,
        )
        served = Served(run, call, copy, self.now_s)
        self.served.append(served)
        self._inflight[engine_call.id] = served
        self.engines.submit(self.now_s, self._stage.llm, view, engine_call)

    def _see(self, event: EngineEvent) -> None:
        if isinstance(event, FirstToken):
            self._inflight[event.call_id].first_token_s = event.at_s
        elif isinstance(event, Finished):
            served = self._inflight.pop(event.call_id)
            served.end_s = event.at_s
            if event.output_tokens == 0:
                served.first_token_s = event.at_s
            self.ended_calls += 1
            following = served.run.ended(served.call)
            self.ended_segments += served.run.is_over
            for call in following:
                at_s = event.at_s + served.run.segment.calls[call].after_s
                heappush(self._starts, (at_s, next(self._order), served.run, served.copy, call))


def profile_stage(
    executions: Iterable[Execution],
    key: ProfileKey,
    spec: EngineSpec,
    *,
    seed: int,
    utilizations: Sequence[float] = UTILIZATIONS,
    min_calls: int = MIN_CALLS,
) -> ProfileCurve:
    """A stage's curve on replicas of one shape, by the engine model.

    Args:
        executions: recorded ones, of any workflow; those that call the stage are replayed.
        key: the stage, and the shape that ``spec`` is of.
        spec: each engine.
        seed: decides the order of executions and their gaps.
        utilizations: loads of the points, in [0, 1).
        min_calls: calls of one point at least.

    Raises:
        MissingError: no recorded call of the stage ended well.
        InfeasibleError: a recorded call does not fit the engine's KV cache.
    """
    workload = stage_workload(executions, key.stage)
    arrivals = poisson_arrivals(workload, min_calls=min_calls, seed=seed)
    return profile_workload(workload, arrivals, spec, key, utilizations=utilizations)


def profile_workload(
    workload: Workload,
    arrivals: Arrivals,
    spec: EngineSpec,
    key: ProfileKey,
    *,
    utilizations: Sequence[float] = UTILIZATIONS,
) -> ProfileCurve:
    """As ``profile_stage``, from a workload that is used for several shapes."""
    _check_fit(workload, spec)
    capacity_per_s = saturated_per_s(_rounds(workload), workload, spec, replicas=key.replicas)
    points: list[ProfilePoint] = []
    latency_s = workload.recorded_s_mean
    for load in sorted(utilizations):
        calls_per_s = load * capacity_per_s * key.replicas
        engines = group_of(workload.stage.llm, spec, key.replicas)
        calls = served_calls(arrivals, workload, engines, calls_per_s, guess_s=latency_s)
        latency_s = _mean([call.e2e_s for call in calls])
        points.append(
            ProfilePoint(
                utilization=load,
                latency_s_mean=latency_s,
                latency_s_p95=_p95([call.e2e_s for call in calls]),
                ttft_s_mean=_mean([call.ttft_s for call in calls]),
            )
        )
    return ProfileCurve(
        key=key,
        capacity_per_s=capacity_per_s,
        points=rising(points),
        provenance=worst((Provenance.SIMULATED, spec.provenance)),
        source=f"engine model; {spec.source}" if spec.source else "engine model",
        error_fraction=spec.error_fraction,
    )


def group_of(llm: LlmName, spec: EngineSpec, replicas: int) -> Fleet:
    """Idle replicas of one LLM behind the default router."""
    return Fleet([ServedGroup(llm, spec, replica_names(llm, replicas))])


def served_calls(
    arrivals: Arrivals,
    workload: Workload,
    engines: Fleet,
    calls_per_s: float,
    *,
    guess_s: float,
) -> list[Served]:
    """The calls that start in one period of the stream, in its steady state.

    The replay begins with the segments that would be under way if calls took ``guess_s``, and
    counts from when each of those is likely to have had a call served.
    """
    replay = Replay(workload.stage, engines)
    scale = guess_s / workload.recorded_s_mean if workload.recorded_s_mean else 1.0
    for run, calls in arrivals.under_way(calls_per_s, scale):
        replay.resume(run, calls)
    arrived, next_s = 0, arrivals.gap_s(0, calls_per_s)

    def step() -> None:
        nonlocal arrived, next_s
        replay.step(next_s)
        if replay.now_s >= next_s:
            replay.start(arrivals.segment(arrived))
            arrived += 1
            next_s += arrivals.gap_s(arrived, calls_per_s)

    began_s = _WARM_UP_CYCLES * (guess_s + workload.after_s_mean)
    end_s = began_s + arrivals.calls / calls_per_s
    while replay.now_s < end_s:
        step()
    served = [call for call in replay.served if began_s <= call.start_s < end_s]
    for call in served:
        while math.isnan(call.end_s):
            step()
    return served


def saturated_per_s(
    arrivals: Arrivals, workload: Workload, spec: EngineSpec, *, replicas: int
) -> float:
    """Calls/s that each replica completes when calls always wait for it.

    A segment starts whenever too few calls wait. Counting begins when as many segments have ended
    as are under way, so that early and late calls are mixed and caches hold what they would.
    """
    replay = Replay(workload.stage, group_of(workload.stage.llm, spec, replicas))
    arrived = 0

    def step() -> None:
        nonlocal arrived
        while replay.engines.waiting_calls < _BACKLOG_CALLS * replicas:
            replay.start(arrivals.segment(arrived))
            arrived += 1
            replay.step(replay.now_s)
        replay.step(float("inf"))

    while not arrived or replay.ended_segments * 2 < arrived:
        step()
    began_s, began_calls = replay.now_s, replay.ended_calls
    inflight = len(replay.served) - replay.ended_calls
    until = began_calls + max(arrivals.calls, _TURNOVERS * inflight)
    while replay.ended_calls < until:
        step()
    return (replay.ended_calls - began_calls) / (replay.now_s - began_s) / replicas


def _rounds(workload: Workload) -> Arrivals:
    """What saturates replicas: whole rounds of all executions, as a part of them misleads.

    On recorded beam searches, counting part of a round was off by 4 % in the standard deviation
    over orders, and by 10 % in the mean; two rounds are off by 1 to 2 %.
    """
    calls = sum(len(segment.calls) for segment in workload.segments)
    return poisson_arrivals(workload, min_calls=min(2 * calls, _MAX_SATURATING_CALLS), seed=0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _p95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def _check_fit(workload: Workload, spec: EngineSpec) -> None:
    tokens = workload.tokens_max
    if tokens > spec.kv_blocks * spec.block_tokens:
        raise InfeasibleError(
            f"{workload.stage}: a recorded call has {tokens} tokens, the KV cache holds "
            f"{spec.kv_blocks * spec.block_tokens}",
            hint="use more GPUs per replica or a larger fraction of them",
        )
