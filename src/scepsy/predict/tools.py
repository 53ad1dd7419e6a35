"""Tools that only so many executions may use at a time: what waiting for them adds to gaps.

A recording holds how long a tool took at the load that was recorded. Where its concurrency is
declared to be limited, more executions mean waiting, and that is added to what was recorded: a
queue with as many servers as the limit (Erlang C), its wait scaled by how much the recorded times
vary (Allen and Cunneen). The recording is taken to have had no such wait, which errs to the slow
side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.errors import InfeasibleError, InputError, MissingError
from scepsy.model.workflow import Stage
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.traces.demand import WorkflowDemand
from scepsy.traces.gaps import GapDemand


@dataclass(frozen=True, slots=True)
class ToolLimit:
    """So many executions at most may be in the gaps that follow a stage's calls."""

    after: Stage
    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InputError(f"the tools after {self.after} need a concurrency of at least 1")


def with_tool_limits(workflow: RatedWorkflow, limits: Sequence[ToolLimit]) -> RatedWorkflow:
    """The same workflow with gaps as long as they get at its rate, for any predictor.

    Raises:
        InputError: no gap follows the stage of a limit.
        InfeasibleError: a tool is asked for more than it can do at its limit.
    """
    demand = workflow.demand
    for limit in limits:
        gap = next((gap for gap in demand.gaps if gap.after == limit.after), None)
        if gap is None:
            raise InputError(
                f"no tool runs after {limit.after}",
                hint=f"tools run after: {', '.join(str(gap.after) for gap in demand.gaps)}",
            )
        wait_s = tool_wait_s(gap, workflow.rate.rate_per_s, limit.concurrency)
        demand = _lengthened(demand, gap, wait_s)
    return replace(workflow, demand=demand)


def tool_wait_s(gap: GapDemand, rate_per_s: float, concurrency: int) -> float:
    """Mean wait for a place in a gap, at a rate of executions.

    Raises:
        InfeasibleError: the places are all taken, all the time.
    """
    offered = rate_per_s * gap.gaps_per_execution * gap.gap_s_mean
    if offered >= concurrency:
        raise InfeasibleError(
            f"the tools after {gap.after} keep {offered:.1f} executions busy at a time, "
            f"{concurrency} are allowed",
            hint=f"allow at least {int(offered) + 1}, or plan for under "
            f"{rate_per_s * concurrency / offered:.3g} executions/s",
        )
    blocked = 1.0  # Erlang B by its recursion, then C
    for servers in range(1, concurrency + 1):
        blocked = offered * blocked / (servers + offered * blocked)
    waits = blocked / (1 - offered / concurrency * (1 - blocked))
    return waits * gap.gap_s_mean / (concurrency - offered) * (1 + gap.gap_s_cv**2) / 2


def _lengthened(demand: WorkflowDemand, gap: GapDemand, wait_s: float) -> WorkflowDemand:
    """Every gap after the stage is longer by the wait."""
    table = demand.calls
    if table is None:
        raise MissingError(f"the demand of {demand.workflow} does not hold its calls")
    stage = next(at for at, known in enumerate(demand.stages) if known.stage == gap.after)
    ends_s = table.ends_s(table.recorded_s)
    last = np.full(len(table.stage), -1)
    order = np.argsort(ends_s[table.awaited], kind="stable")
    last[table.waiter[order]] = table.awaited[order]
    follows = (last >= 0) & (table.after_s > 0) & (table.stage[last] == stage)
    counts = np.bincount(table.execution[follows], minlength=table.executions)
    return replace(
        demand,
        calls=replace(table, after_s=table.after_s + wait_s * follows),
        executions=tuple(
            replace(
                each,
                gap_s=each.gap_s + wait_s * int(count),
                execution_s=each.execution_s + wait_s * int(count),
            )
            for each, count in zip(demand.executions, counts, strict=True)
        ),
    )
