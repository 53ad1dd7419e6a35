"""What a workflow asks of each of its stages, from its recorded executions."""

from dataclasses import dataclass

from scepsy.model.workflow import Stage, WorkflowName


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


@dataclass(frozen=True, slots=True)
class ExecutionDemand:
    """One recorded execution, reduced to what predicts its latency."""

    busy_s: tuple[float, ...]
    """(stages,) time in which at least one call of the stage runs, in the order of the stages."""
    gap_s: float
    """Time in which no call runs."""
    execution_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowDemand:
    """All stages of one workflow, and the executions they were taken from."""

    workflow: WorkflowName
    stages: tuple[StageDemand, ...]
    """Sorted by stage."""
    executions: tuple[ExecutionDemand, ...]
