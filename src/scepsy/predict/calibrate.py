"""Correct profiles from served traffic: what calls took against what was predicted of them.

Everything that was served is predicted again at the load that it really had, so that a difference
is the profile's and not the load's. The correction of a stage is one factor on its latencies, for
all shapes of its group's GPU type: what makes calls slower on one shape (an engine version, the
host, the network) does so on others. Capacity is left as it is; traffic below saturation does not
show it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scepsy.errors import InputError, MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, Prediction
from scepsy.model.workflow import Stage
from scepsy.predict import pipeline
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.traces.call_table import Floats
from scepsy.traces.demand import StageDemand, WorkflowDemand
from scepsy.traces.stability import estimate

MIN_CALLS = 30
"""Served calls of a stage below which nothing is corrected."""
MAX_FACTOR = 5.0
"""Beyond this, or its inverse, something else than the profile is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCorrection:
    """What served traffic says of one stage's profile."""

    stage: Stage
    gpu_type: GpuTypeName
    calls: int
    """Served calls that ended well."""
    utilization: float
    """Of its LLM while they were served, as predicted at the served rates."""
    predicted_s: float
    """Mean latency of a call, by the profile, at that load."""
    served_s: float
    error_fraction: float
    """Half of the 95 % confidence interval of ``served_s``, relative."""
    factor: float
    """By which the profile's latencies are multiplied; 1 where too few calls were served, or the
    difference is within their error."""


def corrections(
    served: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
) -> tuple[StageCorrection, ...]:
    """The correction of every stage that was served, by stage.

    Args:
        served: the demand of served executions, and the rate at which they came.
        allocation: what served them.
        profiles: those to be corrected.

    Raises:
        MissingError: a served stage has no profile on what served it, or a demand no calls.
        InputError: at the served rates an LLM is past its predicted capacity, or a stage is off
            by more than a factor of 5.
    """
    prediction = pipeline.predict(served, allocation, profiles)
    found = [
        _correction(demand, _calls_s(workflow.demand, at), allocation, prediction)
        for workflow in served
        for at, demand in enumerate(workflow.demand.stages)
    ]
    return tuple(sorted(found, key=lambda correction: correction.stage))


def _calls_s(demand: WorkflowDemand, stage: int) -> Floats:
    """(calls,) latencies of a stage's served calls."""
    if demand.calls is None:
        raise MissingError(f"the demand of {demand.workflow} does not hold its calls")
    calls_s: Floats = demand.calls.recorded_s[demand.calls.stage == stage]
    return calls_s


def _correction(
    demand: StageDemand, calls_s: Floats, allocation: Allocation, prediction: Prediction
) -> StageCorrection:
    predicted = next(
        stage
        for stage in prediction.workflow(demand.stage.workflow).stages
        if stage.stage == demand.stage
    )
    if predicted.utilization >= 1:
        raise InputError(
            f"{demand.stage}: at the served rates its LLM would be at {predicted.utilization:.0%} "
            "of its predicted capacity, so there is no latency to compare",
            hint="the profile's capacity is too low, or the traces are not of this plan: "
            "profile again",
        )
    calls = len(calls_s)
    error = estimate(calls_s.tolist()).error_fraction
    ratio = demand.call_s_mean / predicted.call_s if predicted.call_s > 0 else 1.0
    if not 1 / MAX_FACTOR <= ratio <= MAX_FACTOR and calls >= MIN_CALLS:
        raise InputError(
            f"{demand.stage}: calls took {demand.call_s_mean:.3g} s, predicted were "
            f"{predicted.call_s:.3g} s: no correction explains that",
            hint="are these the plan and the profiles that the traces were served with?",
        )
    return StageCorrection(
        stage=demand.stage,
        gpu_type=allocation.group(demand.stage.llm).gpu_type,
        calls=calls,
        utilization=predicted.utilization,
        predicted_s=predicted.call_s,
        served_s=demand.call_s_mean,
        error_fraction=error,
        factor=ratio if calls >= MIN_CALLS and abs(ratio - 1) > error else 1.0,
    )


def corrected(profiles: ProfileSet, found: Iterable[StageCorrection]) -> ProfileSet:
    """The profiles with corrections made, and said so in each curve's source."""
    by_stage = {(each.stage, each.gpu_type): each for each in found if each.factor != 1.0}
    return ProfileSet(
        tuple(
            _scaled(curve, by_stage[curve.key.stage, curve.key.gpu_type])
            if (curve.key.stage, curve.key.gpu_type) in by_stage
            else curve
            for curve in profiles.curves
        )
    )


def _scaled(curve: ProfileCurve, correction: StageCorrection) -> ProfileCurve:
    return replace(
        curve,
        points=tuple(
            replace(
                point,
                latency_s_mean=point.latency_s_mean * correction.factor,
                latency_s_p95=point.latency_s_p95 * correction.factor,
                ttft_s_mean=point.ttft_s_mean * correction.factor,
            )
            for point in curve.points
        ),
        source=f"{curve.source}; x {correction.factor:.3f} from {correction.calls} calls served "
        f"at {correction.utilization:.0%}",
    )
