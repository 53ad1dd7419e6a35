"""How much an LLM's load differs from its mean while an execution uses it, and what that does.

Executions come by chance, so some meet a fuller LLM than others; that, and not only their own
length, spreads their latencies. Let K executions be under way in the mean, of which A are in the
LLM at a time. Their number is Poisson where latency does not depend on load. Where it does, with
elasticity e (latency grows by e % as calls in flight grow by 1 %), executions leave more slowly
when there are many: the variance grows by 1 / (1 - e), and lasts so much longer [1].

The part 1 / K of the relative variance changes as executions come and go, the rest, 1 / A - 1 / K,
as they enter and leave the LLM. An execution that lasts meets the average over its own time, whose
variance is smaller.

[1] The linear noise approximation of a birth-death process whose departure rate is K / T(K);
e = 0 is M/G/infinity and e -> 1 is processor sharing at saturation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scepsy.model.plan import WorkflowPrediction
from scepsy.model.workflow import LlmName
from scepsy.profiles.curve import ProfileCurve
from scepsy.traces.call_table import Floats

STATES_Z = (-1.5932, -0.9674, -0.5895, -0.2822, 0.0, 0.2822, 0.5895, 0.9674, 1.5932)
"""Normal quantiles at the middles of nine equal parts: the loads that are tried."""
_MAX_ELASTICITY = 0.9
_STEP = 0.02


@dataclass(frozen=True, slots=True)
class LlmActivity:
    """How busy one LLM is, over all workflows that use it."""

    executions: float
    """K: executions under way, in the mean, of workflows that use the LLM."""
    active: float
    """A: of those, the ones that have a call in the LLM."""
    execution_s: float
    """Their mean latency."""
    call_s: float
    """Mean latency of the LLM's calls."""


def elasticity(curve: ProfileCurve, utilization: float) -> float:
    """Relative growth of latency over relative growth of the calls in flight, in [0, 0.9].

    By Little's law the calls in flight are in proportion to utilization x latency.
    """
    low, high = max(0.0, utilization - _STEP), min(0.999, utilization + _STEP)
    here_s = curve.latency_s(utilization)
    if here_s <= 0:
        return 0.0
    growth = (curve.latency_s(high) - curve.latency_s(low)) / (high - low) * utilization / here_s
    return min(_MAX_ELASTICITY, growth / (1 + growth))


def load_spread(
    activity: LlmActivity, elastic: float, execution_s: Floats, busy_s: Floats
) -> Floats:
    """(executions,) standard deviation of the load that each meets, relative to the mean load.

    Args:
        activity: of the LLM.
        elastic: elasticity of the LLM's latency.
        execution_s: (executions,) how long each lasts.
        busy_s: (executions,) how long each uses the LLM.
    """
    if activity.active <= 0:
        return np.zeros_like(execution_s)  # nothing ever runs there long enough to be met
    slow_s = activity.execution_s / (1 - elastic)
    fast_s = activity.call_s / (1 - elastic)
    slow = _averaged(execution_s / slow_s) / activity.executions
    fast = _averaged(busy_s / fast_s) * (1 / activity.active - 1 / activity.executions)
    spread: Floats = np.sqrt((slow + np.maximum(fast, 0.0)) / (1 - elastic))
    return spread


def _averaged(lengths: Floats) -> Floats:
    """Variance of the mean of a noise over so many of its correlation times, over its variance.

    The noise forgets exponentially (Ornstein-Uhlenbeck).
    """
    x = np.maximum(lengths, 1e-6)
    averaged: Floats = 2 / x * (1 - (1 - np.exp(-x)) / x)
    return averaged


def activity(llm: LlmName, workflows: Sequence[WorkflowPrediction]) -> LlmActivity:
    """The activity of an LLM that at least one of the workflows calls, as the pipeline has it."""
    rate_per_s = executions = active = weighted_s = 0.0
    for workflow in workflows:
        own = [stage for stage in workflow.stages if stage.stage.llm == llm]
        if own:
            rate_per_s += workflow.rate_per_s
            executions += workflow.rate_per_s * workflow.execution_s_mean
            busy = [workflow.rate_per_s * stage.contribution_s for stage in own]
            active += sum(busy)
            weighted_s += sum(s.call_s * part for s, part in zip(own, busy, strict=True))
    return LlmActivity(
        executions=executions,
        active=active,
        execution_s=executions / rate_per_s,
        call_s=weighted_s / active if active > 0 else 0.0,
    )
