"""Re-timed executions: every recorded call gets the latency it would have on the allocation.

What a call waits for, and the time that passes between, stay as recorded; the latency of an
execution is then the end of its longest path. LLMs that overlap, fan-out whose slowest call
decides, and calls of unlike lengths are therefore seen, where the pipeline sees averages. See
``docs/concepts/critical-path.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scepsy.errors import MissingError
from scepsy.model.plan import Allocation, Prediction, WorkflowPrediction
from scepsy.model.workflow import Stage
from scepsy.predict import pipeline
from scepsy.predict.attainment import Attainment, attainment
from scepsy.predict.load_noise import (
    STATES_Z,
    LlmActivity,
    activity,
    elasticity,
    load_spread,
)
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.traces.call_table import CallTable, Floats, mean_by_stage
from scepsy.traces.demand import WorkflowDemand

PREDICTOR = "critical-path"
MAX_GROWTH = 2.0
"""Beyond the profiled loads, latency is believed up to so many times the last point's."""


@dataclass(frozen=True, slots=True)
class CallTimes:
    """Where the mean latency of a stage's calls goes at a load."""

    prefill_s: float
    """Computing the prompt; in proportion to the tokens that are not cached."""
    queue_s: float
    """Waiting for the first token beyond that; alike for all calls."""
    decode_s: float
    """After the first token; in proportion to the output tokens."""


def call_times(curve: ProfileCurve, utilization: float) -> CallTimes:
    """Split a curve's mean latency; no part falls as load rises.

    The first point is taken as free of queueing. Infinite from utilization 1 on.
    """
    if utilization >= 1:
        return CallTimes(0.0, float("inf"), 0.0)
    idle = curve.points[0]
    below = [point for point in curve.points if point.utilization < utilization]
    points = [*below, curve.point(utilization)]
    first_s = max(point.ttft_s_mean for point in points)
    decode_s = max(point.latency_s_mean - point.ttft_s_mean for point in points)
    prefill_s = min(idle.ttft_s_mean, first_s)
    return CallTimes(prefill_s, first_s - prefill_s, decode_s)


def call_latencies_s(table: CallTable, times: Sequence[CallTimes]) -> Floats:
    """(calls,) latency of each recorded call; its stage's mean is that of the stage's times.

    Args:
        table: the recorded calls.
        times: (stages,) of each stage.
    """
    stages = len(times)
    fresh = _relative(table, table.fresh_tokens, stages)
    output = _relative(table, table.output_tokens, stages)
    prefill_s, queue_s, decode_s = (
        np.array([getattr(each, name) for each in times])[table.stage]
        for name in ("prefill_s", "queue_s", "decode_s")
    )
    latencies_s: Floats = prefill_s * fresh + queue_s + decode_s * output
    return latencies_s


@dataclass(frozen=True, slots=True, eq=False)
class Retimed:
    """A workflow's recorded executions as they would be on an allocation."""

    base: WorkflowPrediction
    """By the pipeline."""
    executions_s: Floats
    """(executions, loads) latency of each, at equally likely loads; one load where none differ."""
    parts_s: Floats
    """(stages,) mean part of the critical path, in the order of the demand's stages."""

    @property
    def prediction(self) -> WorkflowPrediction:
        """The figures."""
        mean_s = float(self.executions_s.mean())
        if not np.isfinite(mean_s):
            return self.base
        levels = (0.5, 0.95, 0.99)
        # Executions come again and again: the quantile is one of theirs, not between two.
        p50, p95, p99 = np.quantile(self.executions_s, levels, method="inverted_cdf")
        return replace(
            self.base,
            execution_s_mean=mean_s,
            execution_s_p50=float(p50),
            execution_s_p95=float(p95),
            execution_s_p99=float(p99),
            gap_s_mean=max(0.0, mean_s - float(self.parts_s.sum())),
            stages=tuple(
                replace(stage, contribution_s=float(part_s))
                for stage, part_s in zip(self.base.stages, self.parts_s, strict=True)
            ),
        )

    def attainment(self, bound_s: float) -> Attainment:
        """Executions that end within a bound."""
        return attainment(self.executions_s, bound_s, self.base.rate_per_s)


def predict(
    workflows: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
) -> Prediction:
    """What an allocation gives to workflows at their rates; loads and capacities as the pipeline.

    Raises:
        MissingError: as ``retime``.
    """
    retimed = retime(workflows, allocation, profiles)
    return Prediction(PREDICTOR, tuple(each.prediction for each in retimed))


def retime(
    workflows: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
) -> tuple[Retimed, ...]:
    """The recorded executions of each workflow on an allocation; infinite if an LLM saturates.

    Raises:
        MissingError: a stage has no profile on its LLM's group, its load is far outside what was
            profiled, LLMs take turns, or a workflow's demand does not hold its calls.
    """
    if allocation.turns:
        raise MissingError(
            f"`{PREDICTOR}` does not know LLMs that take turns: {', '.join(allocation.turns[0])}",
            hint="predict with `simulator`, or roughly with `pipeline`",
        )
    base = pipeline.predict(workflows, allocation, profiles)
    loads = _loads(base, allocation, profiles)
    return tuple(
        _retimed(workflow.demand, predicted, loads)
        for workflow, predicted in zip(workflows, base.workflows, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _StageLoad:
    """What the load of its LLM does to a stage's calls."""

    times: CallTimes
    elasticity: float
    activity: LlmActivity


def _loads(
    base: Prediction, allocation: Allocation, profiles: ProfileSet
) -> Mapping[Stage, _StageLoad]:
    found: dict[Stage, _StageLoad] = {}
    steady = [each for each in base.workflows if np.isfinite(each.execution_s_mean)]
    activities = {
        llm: activity(llm, steady)
        for llm in sorted({stage.stage.llm for workflow in steady for stage in workflow.stages})
    }
    for stage in (stage for workflow in steady for stage in workflow.stages):
        curve = pipeline.known_curve(stage.stage, allocation, profiles)
        assert curve is not None  # the pipeline has predicted with it
        _check_reach(stage.stage, stage.utilization, curve)
        found[stage.stage] = _StageLoad(
            call_times(curve, stage.utilization),
            elasticity(curve, stage.utilization),
            activities[stage.stage.llm],
        )
    return found


def _retimed(
    demand: WorkflowDemand, base: WorkflowPrediction, loads: Mapping[Stage, _StageLoad]
) -> Retimed:
    table = demand.calls
    if table is None:
        raise MissingError(
            f"workflow `{demand.workflow}` has no recorded calls to re-time",
            hint="take its demand from a trace store, or predict with `pipeline`",
        )
    if not np.isfinite(base.execution_s_mean):  # an LLM saturates: its queue has no bound
        parts_s = np.array([stage.contribution_s for stage in base.stages])
        return Retimed(base, np.full((1, 1), np.inf), parts_s)
    own = [loads[stage.stage] for stage in demand.stages]
    call_s = call_latencies_s(table, [load.times for load in own])
    critical = table.critical_calls(call_s)
    parts_s = table.stage_sums(np.where(critical, call_s, 0.0), len(own))
    executions_s = table.executions_s(_at_loads(table, call_s, parts_s, own))
    return Retimed(base, executions_s, parts_s.mean(axis=0))


def _at_loads(
    table: CallTable, call_s: Floats, parts_s: Floats, loads: Sequence[_StageLoad]
) -> Floats:
    """(calls, states) latencies at the loads that each execution may meet, alike for all LLMs."""
    execution_s = table.executions_s(call_s)
    change = np.empty((len(execution_s), len(loads)))
    for at, load in enumerate(loads):
        same = [other.activity is load.activity for other in loads]
        busy_s = parts_s[:, same].sum(axis=1)
        spread = load_spread(load.activity, load.elasticity, execution_s, busy_s)
        change[:, at] = load.elasticity * spread
    states = np.array(STATES_Z)
    grown = 1 + change[table.execution, table.stage][:, None] * states
    latencies_s: Floats = call_s[:, None] * np.maximum(grown, 0.0)
    return latencies_s


def _check_reach(stage: Stage, utilization: float, curve: ProfileCurve) -> None:
    last = curve.points[-1].utilization
    if utilization > last and (1 - last) / (1 - utilization) > MAX_GROWTH:
        raise MissingError(
            f"stage `{stage}` would run at utilization {utilization:.2f}, where nothing is known: "
            f"it was profiled up to {last:.2f}",
            hint=f"profile it at a utilization of about {utilization:.2f}, lower the rate, or "
            "predict with `pipeline`",
        )


def _relative(table: CallTable, tokens: Floats, stages: int) -> Floats:
    """(calls,) tokens over the mean of the stage; 1 where the stage has none."""
    mean = mean_by_stage(table, tokens, stages)[table.stage]
    return np.divide(tokens, mean, out=np.ones_like(tokens), where=mean > 0)
