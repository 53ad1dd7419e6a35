"""What came of simulated executions: latencies and throughput, by workflow and by LLM."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.model.slo import Slo, Statistic
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.sim.run import ServedCall, ServedExecution


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A distribution of latencies (s)."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float

    def of(self, statistic: Statistic) -> float:
        """One of its numbers."""
        return float(getattr(self, f"{statistic.value}_s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """What came of the executions of one workflow."""

    workflow: WorkflowName
    executions: int
    offered_per_s: float
    """Executions that arrived per second."""
    throughput_per_s: float
    """Executions that ended per second from the first to the last arrival of those counted."""
    execution: Latency
    attainment: float | None
    """Part of the executions within the SLO's bound, in [0, 1]; None without an SLO."""
    goodput_per_s: float | None
    """Executions/s that arrived and were within the bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSummary:
    """What came of the calls of one LLM."""

    llm: LlmName
    calls: int
    e2e: Latency
    ttft: Latency
    wait_s_mean: float
    """From arrival to the first step."""
    prefix_hit_fraction: float
    """Prompt tokens that were in the KV cache over all prompt tokens."""
    preemptions: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Summary:
    """All workflows and LLMs of one simulation."""

    workflows: tuple[WorkflowSummary, ...]
    llms: tuple[LlmSummary, ...]


def latency(values_s: Iterable[float]) -> Latency:
    """Of at least one value; a quantile is the least value that so many do not exceed."""
    ordered = np.sort(np.fromiter(values_s, dtype=float))
    at = [max(0, int(np.ceil(q * len(ordered) - 1e-9)) - 1) for q in (0.5, 0.95, 0.99)]
    p50_s, p95_s, p99_s = (float(ordered[i]) for i in at)
    return Latency(mean_s=float(ordered.mean()), p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def summary(
    executions: Sequence[ServedExecution],
    slo: Slo | None = None,
    others: Sequence[ServedExecution] = (),
) -> Summary:
    """Of executions that have all ended.

    Args:
        executions: at least one.
        slo: its bound is what attainment and goodput count.
        others: that ended beside them: they count for throughput alone.
    """
    others_by_workflow: dict[WorkflowName, list[ServedExecution]] = {}
    for execution in others:
        others_by_workflow.setdefault(execution.workflow, []).append(execution)
    by_workflow: dict[WorkflowName, list[ServedExecution]] = {}
    by_llm: dict[LlmName, list[ServedCall]] = {}
    for execution in executions:
        by_workflow.setdefault(execution.workflow, []).append(execution)
        for call in execution.calls:
            by_llm.setdefault(call.stage.llm, []).append(call)
    return Summary(
        tuple(
            _workflow(name, by_workflow[name], others_by_workflow.get(name, ()), slo)
            for name in sorted(by_workflow)
        ),
        tuple(_llm(name, by_llm[name]) for name in sorted(by_llm)),
    )


def _workflow(
    name: WorkflowName,
    executions: Sequence[ServedExecution],
    others: Sequence[ServedExecution],
    slo: Slo | None,
) -> WorkflowSummary:
    starts_s = [execution.start_s for execution in executions]
    first_s, last_s = min(starts_s), max(starts_s)
    span_s = last_s - first_s
    offered_per_s = (len(executions) - 1) / span_s if span_s else 0.0
    ended = sum(first_s < each.end_s <= last_s for each in (*executions, *others))
    kept = None
    if slo is not None:
        kept = sum(each.execution_s <= slo.bound_s for each in executions) / len(executions)
    return WorkflowSummary(
        workflow=name,
        executions=len(executions),
        offered_per_s=offered_per_s,
        throughput_per_s=ended / span_s if span_s else 0.0,
        execution=latency(execution.execution_s for execution in executions),
        attainment=kept,
        goodput_per_s=None if kept is None else kept * offered_per_s,
    )


def _llm(name: LlmName, calls: Sequence[ServedCall]) -> LlmSummary:
    return LlmSummary(
        llm=name,
        calls=len(calls),
        e2e=latency(call.e2e_s for call in calls),
        ttft=latency(call.ttft_s for call in calls),
        wait_s_mean=sum(call.scheduled_s - call.start_s for call in calls) / len(calls),
        prefix_hit_fraction=sum(call.cached_tokens for call in calls)
        / sum(call.prompt_tokens for call in calls),
        preemptions=sum(call.preemptions for call in calls),
        restarts=sum(call.restarts for call in calls),
    )
