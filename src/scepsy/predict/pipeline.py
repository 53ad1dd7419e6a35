"""The Aggregate LLM Pipeline, as published: a workflow is a sequence of its stages.

A stage's part of the mean execution latency is its calls per execution times the latency of a
call at the load of its LLM's replicas, over its fan-out; the workflow's latency is the sum, plus
the recorded time in which no LLM call runs. Stages that share an LLM share its replicas, also
over workflows: their loads add up as utilizations. See ``docs/concepts/predictor.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scepsy.errors import MissingError
from scepsy.model.plan import (
    Allocation,
    Prediction,
    StagePrediction,
    WorkflowPrediction,
    WorkflowRate,
)
from scepsy.model.provenance import Provenance, worst
from scepsy.model.workflow import LlmName, Stage
from scepsy.predict.turns import stretches
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.traces.demand import StageDemand, WorkflowDemand

PREDICTOR = "pipeline"
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class RatedWorkflow:
    """A workflow's demand and the rate at which its executions arrive."""

    demand: WorkflowDemand
    rate: WorkflowRate


def predict(
    workflows: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
) -> Prediction:
    """What an allocation gives to workflows at their rates.

    Latencies are infinite for a workflow with a stage whose LLM is offered its capacity or more.

    Raises:
        MissingError: a stage has no profile on its LLM's group.
    """
    curves = {
        demand.stage: _curve(demand.stage, allocation, profiles)
        for workflow in workflows
        for demand in workflow.demand.stages
    }
    loads = [_utilizations(workflow, allocation, curves) for workflow in workflows]
    own: dict[LlmName, float] = {}
    for load in loads:
        for llm, utilization in load.items():
            own[llm] = own.get(llm, 0.0) + utilization
    times = {stage: _StageTimes(curve, own[stage.llm], 1.0) for stage, curve in curves.items()}
    for llms in allocation.turns:
        times |= _beside_each_other(llms, workflows, allocation, times)
    total = _together(own, allocation)
    return Prediction(
        PREDICTOR,
        tuple(
            _predict_one(workflow, _together(alone, allocation), total, times)
            for workflow, alone in zip(workflows, loads, strict=True)
        ),
    )


def scaled_executions_s(demand: WorkflowDemand, call_s: Sequence[float]) -> npt.NDArray[np.float64]:
    """(executions,) latency of each recorded execution, were calls as slow as given.

    The time in which a stage's calls run is stretched by the ratio of the given to the recorded
    latency of a call; the time in which no call runs stays. The mean over executions is the
    pipeline's mean: the sum of calls x latency / fan-out, plus the mean gap.

    Args:
        demand: a workflow and its recorded executions.
        call_s: (stages,) mean latency of a call of each stage.
    """
    busy_s = np.array([execution.busy_s for execution in demand.executions], dtype=np.float64)
    gap_s = np.array([execution.gap_s for execution in demand.executions], dtype=np.float64)
    stretch = [
        new / stage.call_s_mean if stage.call_s_mean > 0 else 0.0
        for new, stage in zip(call_s, demand.stages, strict=True)
    ]
    parts = np.multiply(busy_s, stretch, where=busy_s > 0, out=np.zeros_like(busy_s))
    scaled: npt.NDArray[np.float64] = parts.sum(axis=1) + gap_s
    return scaled


def contribution_s(demand: StageDemand, call_s: float) -> float:
    """A stage's part of the mean execution latency, at a mean latency of its calls."""
    if demand.calls_per_execution == 0:
        return 0.0
    return demand.calls_per_execution * call_s / demand.fan_out


def missing_profile(stage: Stage, shape: str) -> MissingError:
    """The error for a stage that was not profiled on what is asked for."""
    return MissingError(
        f"stage `{stage}` has no profile on {shape}",
        hint=f"run `scepsy profile` with the traces of workflow `{stage.workflow}`; see "
        "`scepsy profile --help`",
    )


@dataclass(frozen=True, slots=True)
class _StageTimes:
    """What a stage's calls take."""

    curve: ProfileCurve
    utilization: float
    """Of its LLM's replicas, as if they had their GPUs to themselves."""
    stretch: float
    """How many times as long as then a call takes: others have their turns in between."""

    @property
    def call_s(self) -> float:
        return self.curve.latency_s(self.utilization) * self.stretch


def _beside_each_other(
    llms: Sequence[LlmName],
    workflows: Sequence[RatedWorkflow],
    allocation: Allocation,
    times: Mapping[Stage, _StageTimes],
) -> dict[Stage, _StageTimes]:
    """The stages of LLMs that take turns, stretched."""
    at_work = dict.fromkeys(llms, 0.0)
    for workflow in workflows:
        for demand in workflow.demand.stages:
            llm = demand.stage.llm
            if llm in at_work:
                calls_per_s = workflow.rate.rate_per_s * demand.calls_per_execution
                replicas = allocation.group(llm).replicas
                at_work[llm] += calls_per_s * times[demand.stage].call_s / replicas
    stretch = dict(zip(llms, stretches(list(at_work.values())), strict=True))
    return {
        stage: replace(known, stretch=stretch[stage.llm])
        for stage, known in times.items()
        if stage.llm in stretch
    }


def _together(
    utilizations: Mapping[LlmName, float], allocation: Allocation
) -> Mapping[LlmName, float]:
    """The same, but that of the GPUs for LLMs that take turns on them."""
    found = dict(utilizations)
    for llms in allocation.turns:
        used = sum(utilizations.get(llm, 0.0) for llm in llms) / (1 - TURN_COST_FRACTION)
        found |= {llm: used for llm in llms if llm in utilizations}
    return found


def known_curve(stage: Stage, allocation: Allocation, profiles: ProfileSet) -> ProfileCurve | None:
    """The profile of a stage on its LLM's group.

    An LLM that takes turns has whole GPUs at its turn; where it was not profiled on so many, the
    most that it was profiled on stand for them.
    """
    group = allocation.group(stage.llm)
    degrees, fraction = [group.tensor_parallel], group.gpu_fraction
    if allocation.turns_of(stage.llm):
        degrees, fraction = list(range(group.tensor_parallel, 0, -1)), 1.0
    for degree in degrees:
        curve = profiles.curve(stage, group.gpu_type, degree, fraction, group.replicas)
        if curve is not None:
            return curve
    return None


def _curve(stage: Stage, allocation: Allocation, profiles: ProfileSet) -> ProfileCurve:
    group = allocation.group(stage.llm)
    curve = known_curve(stage, allocation, profiles)
    if curve is None:
        raise missing_profile(
            stage,
            f"{group.replicas} x {group.gpu_type}, tensor parallel {group.tensor_parallel}, "
            f"GPU fraction {group.gpu_fraction:g}",
        )
    return curve


def _utilizations(
    workflow: RatedWorkflow, allocation: Allocation, curves: Mapping[Stage, ProfileCurve]
) -> dict[LlmName, float]:
    """What one workflow alone makes of each of its LLMs' capacity."""
    load: dict[LlmName, float] = {}
    for demand in workflow.demand.stages:
        llm = demand.stage.llm
        capacity_per_s = allocation.group(llm).replicas * curves[demand.stage].capacity_per_s
        calls_per_s = workflow.rate.rate_per_s * demand.calls_per_execution
        load[llm] = load.get(llm, 0.0) + calls_per_s / capacity_per_s
    return load


def _predict_one(
    workflow: RatedWorkflow,
    alone: Mapping[LlmName, float],
    total: Mapping[LlmName, float],
    times: Mapping[Stage, _StageTimes],
) -> WorkflowPrediction:
    demand = workflow.demand
    stages = tuple(
        _predict_stage(stage, total[stage.stage.llm], times[stage.stage]) for stage in demand.stages
    )
    executions_s = scaled_executions_s(demand, [stage.call_s for stage in stages])
    gap_s_mean = float(np.mean([execution.gap_s for execution in demand.executions]))
    p50, p95, p99 = _quantiles(executions_s)
    bottleneck, bottleneck_alone = _fullest(total), _fullest(alone)
    rate_per_s = workflow.rate.rate_per_s
    return WorkflowPrediction(
        workflow=demand.workflow,
        rate_per_s=rate_per_s,
        execution_s_mean=sum(stage.contribution_s for stage in stages) + gap_s_mean,
        execution_s_p50=p50,
        execution_s_p95=p95,
        execution_s_p99=p99,
        gap_s_mean=gap_s_mean,
        capacity_per_s=rate_per_s / total[bottleneck],
        capacity_alone_per_s=rate_per_s / alone[bottleneck_alone],
        bottleneck=bottleneck,
        bottleneck_alone=bottleneck_alone,
        stages=stages,
    )


def _predict_stage(demand: StageDemand, utilization: float, times: _StageTimes) -> StagePrediction:
    curve = times.curve
    call_s = times.call_s if utilization < 1 else float("inf")
    first, last = curve.points[0].utilization, curve.points[-1].utilization
    inside = first <= times.utilization <= last
    provenance = curve.provenance if times.stretch == 1 else Provenance.ASSUMED
    return StagePrediction(
        stage=demand.stage,
        utilization=utilization,
        call_s=call_s,
        contribution_s=contribution_s(demand, call_s),
        provenance=provenance if inside else worst((provenance, Provenance.EXTRAPOLATED)),
    )


def _fullest(utilizations: Mapping[LlmName, float]) -> LlmName:
    """The LLM of the highest utilization; the first name where several have it."""
    return min(utilizations, key=lambda llm: (-utilizations[llm], llm))


def _quantiles(executions_s: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    if not np.isfinite(executions_s).all():
        return (float("inf"),) * 3  # saturated: the queue, and so the latency, has no bound
    p50, p95, p99 = np.quantile(executions_s, _QUANTILES, method="inverted_cdf")
    return float(p50), float(p95), float(p99)
