"""Recorded executions as scripts: what each asks, of which stage, and what waits for what."""

from collections.abc import Iterable
from dataclasses import dataclass

from scepsy.errors import MissingError
from scepsy.model.execution import CallStatus, Execution
from scepsy.model.workflow import Stage, WorkflowName
from scepsy.policy.program import NO_TENANT, TenantName, ToolName
from scepsy.profiles.workload import Segment, block_counts, segment


@dataclass(frozen=True, slots=True)
class Script:
    """One recorded execution, to be run again and again."""

    segment: Segment
    """All its calls that ended well, of all LLMs."""
    stages: tuple[Stage, ...]
    """(calls,) the stage of each."""
    tail_s: float
    """From the last end of those calls to the execution's end."""
    start_s: float = 0.0
    """When it arrived, on the trace's clock."""
    tenant: TenantName = NO_TENANT
    tools: tuple[ToolName, ...] = ()
    """(calls,) what the answer of each asks for; empty where that is not known."""

    @property
    def workflow(self) -> WorkflowName:
        """The workflow that was executed."""
        return self.stages[0].workflow


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
            calls[0].start_s,
        )
        for execution, calls in recorded
    )
