"""What a workflow asks of each of its stages, from its recorded executions.

Only calls that ended well count. What the others took is in ``gap_s``: the execution waited for
them, but no replica that serves it faster would have helped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from scepsy.errors import InputError, MissingError
from scepsy.model.execution import Call, CallStatus, Execution
from scepsy.model.workflow import Stage, WorkflowName
from scepsy.traces.call_table import CallTable, CallTableBuilder
from scepsy.traces.gaps import GapBuilder, GapDemand
from scepsy.traces.stability import Stability, estimate, stability
from scepsy.traces.store import SqliteTraceStore
from scepsy.traces.structure import busy_intervals, total_s

_MOST_EXCESS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A quantity over executions."""

    mean: float
    sd: float
    """Sample standard deviation; 0 for a single execution."""
    p5: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDemand:
    """What one execution asks of one stage."""

    stage: Stage
    calls_per_execution: float
    """n: mean over all executions of the workflow, those without such calls counted as 0."""
    calls: Spread
    fan_out: float
    """p: (sum of call times) / (time in which at least one call runs), over all executions."""
    time_share: Spread
    """The stage's part of an execution's LLM time (sum of call times), in [0, 1]."""
    call_s_mean: float
    """Latency of a call as recorded."""
    prompt_tokens_mean: float
    output_tokens_mean: float
    cached_fraction: float | None
    """Part of prompt tokens found in KV; None where engines did not say."""
    output_share: Spread | None = None
    """The stage's part of an execution's output tokens, in [0, 1]; None where there are none."""
    stability: Stability | None = None
    """How far the recording settles it; None where it was not taken from one."""


@dataclass(frozen=True, slots=True)
class ExecutionDemand:
    """One recorded execution, reduced to what predicts its latency."""

    busy_s: tuple[float, ...]
    """(stages,) time in which at least one call of the stage runs, in the order of the stages."""
    gap_s: float
    """Time in which no call that counts runs."""
    execution_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDemand:
    """All stages of one workflow, and the executions they were taken from."""

    workflow: WorkflowName
    stages: tuple[StageDemand, ...]
    """Sorted by stage."""
    executions: tuple[ExecutionDemand, ...]
    calls: CallTable | None = field(default=None, repr=False, compare=False)

    @property
    def likely_excess(self) -> float:
        """By what part of the recorded mean an execution's true mean work may well be more.

        The reach of its 95 % interval, and no more than a half, however few were recorded.
        """
        busy_s = [sum(execution.busy_s) for execution in self.executions]
        return min(_MOST_EXCESS, estimate(busy_s).error_fraction)

    """The calls of those executions, for predictors that re-time them; None where not kept."""
    gaps: tuple[GapDemand, ...] = ()
    """Time in tools and in the program, by the stage that it follows."""


def demands(
    store: SqliteTraceStore, workflow: WorkflowName | None = None
) -> tuple[WorkflowDemand, ...]:
    """The demand of each workflow in a store, by name, or only of the one asked for.

    Raises:
        MissingError: the store is empty, or a workflow has no call that ended well.
        UnknownNameError: the store has no workflow of that name.
    """
    return tuple(
        demand(store.executions(summary.workflow, with_blocks=False))
        for summary in store.select(workflow)
    )


def demand(executions: Iterable[Execution]) -> WorkflowDemand:
    """The demand of one workflow; executions without a call that ended well are left out.

    Pure, and holds a few numbers of each execution and call.

    Raises:
        MissingError: there are no executions, or none has a call that ended well.
        InputError: the executions are of several workflows.
    """
    workflow: WorkflowName | None = None
    rows: list[_Row] = []
    table, gaps = CallTableBuilder(), GapBuilder()
    for execution in executions:
        if workflow is not None and execution.workflow != workflow:
            raise InputError(f"executions of two workflows: {workflow} and {execution.workflow}")
        workflow = execution.workflow
        calls = [call for call in execution.calls if call.status is CallStatus.OK]
        if calls:
            rows.append(_row(execution, calls))
            table.add(calls, execution.end_s)
            gaps.add(calls, execution.execution_s)
    if workflow is None or not rows:
        raise MissingError(
            f"{workflow or 'the trace'} has no execution with a completed call",
            hint="see how its calls ended with `scepsy traces show`",
        )
    stages = sorted({stage for row in rows for stage in row.parts})
    return WorkflowDemand(
        workflow=workflow,
        stages=tuple(_stage_demand(stage, rows) for stage in stages),
        executions=tuple(
            ExecutionDemand(
                busy_s=tuple(row.part(stage).busy_s for stage in stages),
                gap_s=row.gap_s,
                execution_s=row.execution_s,
            )
            for row in rows
        ),
        calls=table.build(stages),
        gaps=gaps.build(),
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and percentiles (linear between values) of >= 1 values."""
    array = np.sort(np.asarray(values, dtype=np.float64))  # sums then round alike in any order
    p5, p95 = np.percentile(array, [5, 95])
    return Spread(
        mean=float(array.mean()),
        sd=float(array.std(ddof=1)) if len(array) > 1 else 0.0,
        p5=float(p5),
        p95=float(p95),
    )


@dataclass(slots=True)
class _Part:
    """One stage's part of one execution; sums over its calls."""

    calls: int = 0
    work_s: float = 0.0
    busy_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cached_of_tokens: int = 0
    """Prompt tokens of the calls whose cached tokens are known."""


_NO_PART = _Part()


@dataclass(slots=True)
class _Row:
    """One execution: its parts, and its sums over them."""

    gap_s: float
    execution_s: float
    parts: dict[Stage, _Part] = field(default_factory=dict)
    calls: int = 0
    work_s: float = 0.0
    output_tokens: int = 0

    def part(self, stage: Stage) -> _Part:
        return self.parts.get(stage, _NO_PART)

    def time_share(self, stage: Stage) -> float:
        """By time; by calls where the clock was too coarse to see any of them take time."""
        if self.work_s > 0:
            return self.part(stage).work_s / self.work_s
        return self.part(stage).calls / self.calls


def _row(execution: Execution, calls: Sequence[Call]) -> _Row:
    gap_s = execution.execution_s - total_s(busy_intervals(calls))
    # Differences of instants round; a gap of -1e-10 s is none.
    row = _Row(gap_s=max(0.0, gap_s), execution_s=execution.execution_s)
    by_stage: dict[Stage, list[Call]] = {}
    for call in calls:
        by_stage.setdefault(call.stage, []).append(call)
    for stage, own in by_stage.items():
        part = row.parts[stage] = _part(own)
        row.calls += part.calls
        row.work_s += part.work_s
        row.output_tokens += part.output_tokens
    return row


def _part(calls: Sequence[Call]) -> _Part:
    known = [call for call in calls if call.cached_tokens is not None]
    return _Part(
        calls=len(calls),
        work_s=sum(call.e2e_s for call in calls),
        busy_s=total_s(busy_intervals(calls)),
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        output_tokens=sum(call.output_tokens for call in calls),
        cached_tokens=sum(call.cached_tokens or 0 for call in known),
        cached_of_tokens=sum(call.prompt_tokens for call in known),
    )


def _stage_demand(stage: Stage, rows: Sequence[_Row]) -> StageDemand:
    parts = [row.part(stage) for row in rows]
    calls = sum(part.calls for part in parts)
    work_s = sum(part.work_s for part in parts)
    busy_s = sum(part.busy_s for part in parts)
    cached_of = sum(part.cached_of_tokens for part in parts)
    shares = [row.time_share(stage) for row in rows]
    outputs = [
        row.part(stage).output_tokens / row.output_tokens for row in rows if row.output_tokens
    ]
    return StageDemand(
        stage=stage,
        calls_per_execution=calls / len(rows),
        calls=spread([part.calls for part in parts]),
        # Work is never less than busy time but for rounding; calls that took no time fan out by 1.
        fan_out=max(1.0, work_s / busy_s) if busy_s > 0 else 1.0,
        time_share=spread(shares),
        call_s_mean=work_s / calls,
        prompt_tokens_mean=sum(part.prompt_tokens for part in parts) / calls,
        output_tokens_mean=sum(part.output_tokens for part in parts) / calls,
        cached_fraction=(
            sum(part.cached_tokens for part in parts) / cached_of if cached_of else None
        ),
        output_share=spread(outputs) if outputs else None,
        stability=stability([part.busy_s for part in parts], shares),
    )
