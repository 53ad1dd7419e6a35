"""Error bars: how far a predicted mean may be off, from what is known of its parts.

Three errors are told apart, as each is cured by something else. *Sampling*: the recording is a
sample of executions; more of them cure it. *Curve*: latency at a load comes from a profile, and is
as good as its provenance; measuring cures it. *Reach*: the load lies beyond the profiled ones;
profiling there cures it. The first are independent between executions, the others are one error
for all of a stage's calls, so over stages they add up straight.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scepsy.model.plan import Allocation, Prediction, StagePrediction, WorkflowPrediction
from scepsy.model.provenance import Provenance
from scepsy.predict.pipeline import RatedWorkflow, known_curve
from scepsy.profiles.curve import ProfileSet
from scepsy.traces.demand import StageDemand, WorkflowDemand
from scepsy.traces.stability import estimate

CURVE_ERROR = {
    Provenance.MEASURED: 0.05,
    Provenance.SIMULATED: 0.15,
    Provenance.INTERPOLATED: 0.2,
    Provenance.EXTRAPOLATED: 0.4,
    Provenance.ASSUMED: 0.35,
}
"""Relative error of a curve's latency that is not exceeded nine times out of ten, by provenance.

Measured: what two runs of one benchmark differ by. Simulated: step times predicted from operator
measurements are within 4 to 17 % of measured ones where engine versions match. Assumed: the model
of GPU shares is off by up to 21 % on the GPU it was fitted to, and was fitted to another. The
others are set between. They err towards wide.
"""
_Z90 = 1.644854
_Z95 = 1.959964


def with_errors(
    prediction: Prediction,
    workflows: Sequence[RatedWorkflow],
    allocation: Allocation,
    profiles: ProfileSet,
) -> Prediction:
    """The same prediction with an error bar on each mean."""
    return replace(
        prediction,
        workflows=tuple(
            _with_errors(each, workflow.demand, allocation, profiles)
            for each, workflow in zip(prediction.workflows, workflows, strict=True)
        ),
    )


def _with_errors(
    prediction: WorkflowPrediction,
    demand: WorkflowDemand,
    allocation: Allocation,
    profiles: ProfileSet,
) -> WorkflowPrediction:
    curves = [_curve_error(stage, allocation, profiles) for stage in prediction.stages]
    stages = tuple(
        replace(stage, error_fraction=float(np.hypot(_sampling_error(known), curve)))
        for stage, known, curve in zip(prediction.stages, demand.stages, curves, strict=True)
    )
    mean_s = prediction.execution_s_mean
    curve_s = sum(
        stage.contribution_s * error for stage, error in zip(prediction.stages, curves, strict=True)
    )
    executions = estimate([execution.execution_s for execution in demand.executions])
    sampling = executions.error_fraction * _Z90 / _Z95
    total = float(np.hypot(sampling, curve_s / mean_s)) if np.isfinite(mean_s) else None
    return replace(prediction, stages=stages, error_fraction=total)


def _sampling_error(demand: StageDemand) -> float:
    known = demand.stability
    return 0.0 if known is None else known.busy_s.error_fraction * _Z90 / _Z95


def _curve_error(stage: StagePrediction, allocation: Allocation, profiles: ProfileSet) -> float:
    """The curve's own, or by provenance; and by how far its last load has to be stretched."""
    curve = known_curve(stage.stage, allocation, profiles)
    last = curve.points[-1].utilization if curve is not None else 0.0
    reach = (1 - last) / (1 - stage.utilization) if last < stage.utilization < 1 else 1.0
    provenance = stage.provenance if curve is None else curve.provenance
    known = None if curve is None else curve.error_fraction
    if allocation.turns_of(stage.stage.llm):
        provenance, known = Provenance.ASSUMED, None
    return (CURVE_ERROR[provenance] if known is None else known) + max(0.0, reach - 1)
