"""A plan in virtual time: recorded executions arrive and run through all of its replica groups.

Executions of each workflow arrive as a Poisson stream. A call goes to its LLM's group when the
calls that it waits for have ended and the recorded time in tools and in the program has passed.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, merge
from itertools import count, cycle, repeat

from scepsy.errors import MissingError
from scepsy.model.execution import CallStatus, Execution, ExecutionId
from scepsy.model.plan import Allocation
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.route import CallView, RoutePolicy, least_loaded
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Segment, SegmentRun, block_counts, segment
from scepsy.sim.engine import EngineCall, Finished
from scepsy.sim.replica_group import RoutedEngines

MIN_PROMPT_TOKENS = 1
"""An engine computes at least one token of a prompt."""


@dataclass(frozen=True, slots=True)
class Script:
    """One recorded execution, to be run again and again."""

    segment: Segment
    """All its calls that ended well, of all LLMs."""
    stages: tuple[Stage, ...]
    """(calls,) the stage of each."""
    tail_s: float
    """From the last end of those calls to the execution's end."""


def scripts(executions: Iterable[Execution]) -> tuple[Script, ...]:
    """What can be run again of recorded executions; those without a call that ended well are not.

    Raises:
        MissingError: no call ended well.
    """
    recorded = [
        (execution, calls)
        for execution in executions
        if (calls := [call for call in execution.calls if call.status is CallStatus.OK])
    ]
    if not recorded:
        raise MissingError("no recorded call ended well", hint="record executions first")
    seen = block_counts(calls for _, calls in recorded)
    return tuple(
        Script(
            segment(calls, seen),
            tuple(call.stage for call in calls),
            max(0.0, execution.end_s - max(call.end_s for call in calls)),
        )
        for execution, calls in recorded
    )


@dataclass(frozen=True, slots=True)
class Stream:
    """Executions of one workflow that arrive at a rate."""

    workflow: WorkflowName
    scripts: tuple[Script, ...]
    rate_per_s: float

    def arrivals(self, period: int, rng: random.Random) -> Iterator[tuple[float, Script]]:
        """Instants and what arrives, without end; what arrives repeats after a period.

        Over a period the rate is exact and, as scripts come in shuffled rounds, each comes equally
        often (but for the last round), so that runs at different loads differ by load alone.
        """
        order: list[Script] = []
        while len(order) < period:
            rest = list(self.scripts)
            rng.shuffle(rest)
            order += rest[: period - len(order)]
        gaps = [rng.expovariate(1.0) for _ in order]
        scale_s = period / sum(gaps) / self.rate_per_s
        at_s = 0.0
        for gap, script in cycle(zip(gaps, order, strict=True)):
            at_s += gap * scale_s
            yield at_s, script


@dataclass(slots=True, eq=False)
class ServedRun:
    """One execution on its way."""

    workflow: WorkflowName
    script: Script
    number: int
    start_s: float
    progress: SegmentRun = field(init=False)
    end_s: float = float("inf")
    """Infinite until the last call has ended."""
    call_s: dict[int, float] = field(default_factory=dict)
    """Latency of each call that has ended, by its position."""

    def __post_init__(self) -> None:
        self.progress = SegmentRun(self.script.segment)

    @property
    def is_over(self) -> bool:
        """Whether all calls have ended."""
        return self.progress.is_over

    @property
    def execution_s(self) -> float:
        """Execution latency; infinite while it runs."""
        return self.end_s - self.start_s


class ServedPlan:
    """Executions on their way through the replica groups of an allocation, in virtual time."""

    def __init__(
        self,
        allocation: Allocation,
        specs: Mapping[LlmName, EngineSpec],
        *,
        route: RoutePolicy = least_loaded,
    ) -> None:
        """Idle groups.

        Args:
            allocation: how many replicas each LLM has.
            specs: what each replica of an LLM can do on the group's shape.
            route: feeds the replicas of each group.
        """
        self.now_s = 0.0
        self._groups = {
            group.llm: RoutedEngines(specs[group.llm], group.replicas, route=route)
            for group in allocation.groups
        }
        self._order = count()
        self._starts: list[tuple[float, int, ServedRun, int]] = []  # a heap
        self._inflight: dict[str, tuple[ServedRun, int, float]] = {}

    def start(self, run: ServedRun) -> None:
        """Let an execution arrive now."""
        self._release(run, run.progress.first())

    @property
    def next_event_s(self) -> float:
        """An instant before which nothing happens; infinite when idle."""
        starts_s = self._starts[0][0] if self._starts else float("inf")
        return min(starts_s, *(group.next_event_s() for group in self._groups.values()))

    def advance(self, now_s: float) -> list[ServedRun]:
        """Go to an instant that is not after the next event; give the executions that ended."""
        self.now_s = now_s
        ended: list[ServedRun] = []
        for group in self._groups.values():
            if group.next_event_s() <= now_s:
                for event in group.advance(now_s):
                    if isinstance(event, Finished) and (run := self._end(event)).is_over:
                        ended.append(run)
        while self._starts and self._starts[0][0] <= now_s:
            _, _, run, call = heappop(self._starts)
            self._submit(run, call)
        return ended

    def _release(self, run: ServedRun, calls: Iterable[int]) -> None:
        for call in calls:
            at_s = self.now_s + run.script.segment.calls[call].after_s
            heappush(self._starts, (at_s, next(self._order), run, call))

    def _end(self, event: Finished) -> ServedRun:
        run, call, start_s = self._inflight.pop(event.call_id)
        run.call_s[call] = event.at_s - start_s
        self._release(run, run.progress.ended(call))
        if run.progress.is_over:
            run.end_s = event.at_s + run.script.tail_s
        return run

    def _submit(self, run: ServedRun, call: int) -> None:
        recorded, stage = run.script.segment.calls[call], run.script.stages[call]
        prefix_blocks, output_blocks = recorded.copy_blocks(run.number + 1)
        prompt_tokens = max(MIN_PROMPT_TOKENS, recorded.prompt_tokens)
        view = CallView(
            execution=ExecutionId(str(run.number)),
            workflow=stage.workflow,
            role=stage.role,
            prompt_tokens=prompt_tokens,
            prefix_blocks=prefix_blocks,
        )
        engine_call = EngineCall(
            id=f"{run.number}-{call}",
            prompt_tokens=prompt_tokens,
            output_tokens=recorded.output_tokens,
            prefix_blocks=prefix_blocks,
            output_blocks=output_blocks,
        )
        self._inflight[engine_call.id] = (run, call, self.now_s)
        self._groups[stage.llm].submit(self.now_s, view, engine_call)


def serve(
    streams: Sequence[Stream], plan: ServedPlan, *, executions: int, warm_up: int, seed: int
) -> tuple[ServedRun, ...]:
    """Run streams through a plan; give executions in their order of arrival, all ended.

    Load goes on until the last of them has ended, so that none runs in a plan that empties.

    Args:
        streams: the workflows, each with a rate.
        plan: idle, at time 0.
        executions: how many are given, over all streams.
        warm_up: how many come before them.
        seed: decides arrivals and their order; equal seeds give equal results.
    """
    runs = _arriving(streams, executions, seed)
    last = warm_up + executions
    counted: list[ServedRun] = []
    ended = 0
    run = next(runs)
    while ended < executions:
        next_s = plan.next_event_s
        for over in plan.advance(min(next_s, run.start_s)):
            ended += warm_up <= over.number < last
        if run.start_s <= next_s:
            plan.start(run)
            if warm_up <= run.number < last:
                counted.append(run)
            run = next(runs)
    return tuple(counted)


def _arriving(streams: Sequence[Stream], executions: int, seed: int) -> Iterator[ServedRun]:
    """Executions of all streams by arrival; about ``executions`` of them are a period of each."""
    total_per_s = sum(stream.rate_per_s for stream in streams)
    sources = []
    for stream in streams:
        period = max(1, round(executions * stream.rate_per_s / total_per_s))
        rng = random.Random(f"{seed}/{stream.workflow}")
        arrivals = stream.arrivals(period, rng)
        sources.append(zip(arrivals, repeat(stream.workflow), strict=False))
    for number, ((at_s, script), workflow) in enumerate(merge(*sources, key=_instant)):
        yield ServedRun(workflow, script, number, at_s)


def _instant(arrival: tuple[tuple[float, Script], WorkflowName]) -> float:
    return arrival[0][0]
