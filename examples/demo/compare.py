"""Put what was predicted beside what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from examples.demo.measure import Window, throughput_per_s
from scepsy.errors import EngineError
from scepsy.model.execution import Execution
from scepsy.model.plan import Plan, Prediction, WorkflowRate
from scepsy.model.workflow import WorkflowName
from scepsy.predict.pipeline import RatedWorkflow, predict
from scepsy.profiles.curve import ProfileSet
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.traces.demand import WorkflowDemand
from scepsy.traces.store import SqliteTraceStore

MAX_LATENCY_ERROR = 0.15
"""Promised for the mean execution latency at 60 % of capacity."""
MAX_CAPACITY_ERROR = 0.10
"""Promised for the capacity."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What predictions are made from: the plan, what was recorded and what was profiled."""

    plan: Plan
    demands: tuple[WorkflowDemand, ...]
    profiles: ProfileSet

    def at(self, rates: Mapping[str, float]) -> Prediction:
        """The prediction for these workflows at these rates, and no other, on the plan."""
        rated = [
            RatedWorkflow(demand, WorkflowRate(demand.workflow, rates[demand.workflow]))
            for demand in self.demands
            if demand.workflow in rates
        ]
        return predict(rated, self.plan.allocation, self.profiles)

    def capacity_per_s(self, workflow: str) -> float:
        """Executions/s of one workflow that the plan sustains with nothing beside it."""
        return self.plan.prediction.workflow(WorkflowName(workflow)).capacity_alone_per_s


def served_executions(store: Path, window: Window) -> dict[str, list[Execution]]:
    """The recorded executions of a load, by workflow.

    Raises:
        EngineError: an execution failed, or the recording lacks one.
    """
    if failed := [record for record in window.records if not record.ok]:
        raise EngineError(f"{len(failed)} executions failed; the first: {failed[0].error}")
    wanted = {record.execution for record in window.records}
    found: dict[str, list[Execution]] = {}
    with SqliteTraceStore.open(store, create=False) as traces:
        for workflow in {WorkflowName(record.workflow) for record in window.records}:
            for execution in traces.executions(workflow, with_blocks=False):
                if execution.id in wanted:
                    found.setdefault(workflow, []).append(execution)
    if (lacking := len(wanted) - sum(map(len, found.values()))) > 0:
        raise EngineError(f"{lacking} of {len(wanted)} executions were not recorded")
    return found


def compare_capacity(
    expectation: Expectation, workflow: str, window: Window, executions: Sequence[Execution]
) -> tuple[Comparison, BottleneckComparison]:
    """Of a closed loop that saturated the plan."""
    name = WorkflowName(workflow)
    predicted = expectation.plan.prediction.workflow(name)
    capacity = Comparison(
        workflow=name,
        condition="saturated, alone",
        quantity="throughput",
        unit="executions/s",
        predicted=predicted.capacity_alone_per_s,
        measured=throughput_per_s(window, executions),
        max_error_fraction=MAX_CAPACITY_ERROR,
    )
    bottleneck = BottleneckComparison(
        workflow=name,
        predicted=str(predicted.bottleneck_alone),
        measured=str(max(sorted(window.queued), key=lambda llm: window.queued[llm])),
        evidence=_closeness(expectation, workflow, window),
    )
    return capacity, bottleneck


def _closeness(expectation: Expectation, workflow: str, window: Window) -> str:
    """How full each LLM should be at capacity, and how many calls waited for each."""
    (full,) = expectation.at({workflow: expectation.capacity_per_s(workflow)}).workflows
    used = {stage.stage.llm: stage.utilization for stage in full.stages}
    told = ", ".join(f"{llm} {used[llm]:.0%}" for llm in sorted(used, key=lambda m: -used[m]))
    queues = ", ".join(
        f"{llm} {window.queued[llm]:.0f}"
        for llm in sorted(used, key=lambda m: -window.queued.get(m, 0.0))
    )
    return f"full at capacity: {told}; calls that waited: {queues}"


def compare_latency(
    prediction: Prediction, condition: str, window: Window, *, promised: bool
) -> list[Comparison]:
    """Throughput, mean and p95 of every workflow of an open loop."""
    found: list[Comparison] = []
    for expected in prediction.workflows:
        took_s = sorted(
            r.execution_s for r in window.within if r.workflow == expected.workflow and r.ok
        )
        ended = sum(
            window.begin_s <= r.end_s < window.end_s
            for r in window.records
            if r.workflow == expected.workflow
        )
        rows = (
            (
                "throughput",
                "executions/s",
                expected.rate_per_s,
                ended / (window.end_s - window.begin_s),
                None,
            ),
            (
                "mean latency",
                "s",
                expected.execution_s_mean,
                fmean(took_s),
                MAX_LATENCY_ERROR if promised else None,
            ),
            ("p95 latency", "s", expected.execution_s_p95, _p95(took_s), None),
        )
        found += [
            Comparison(
                workflow=expected.workflow,
                condition=condition,
                quantity=quantity,
                unit=unit,
                predicted=predicted,
                measured=measured,
                max_error_fraction=allowed,
            )
            for quantity, unit, predicted, measured, allowed in rows
        ]
    return found


def _p95(sorted_values: Sequence[float]) -> float:
    return sorted_values[min(int(0.95 * len(sorted_values)), len(sorted_values) - 1)]
