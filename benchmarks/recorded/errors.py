"""How far predictions are off, and how much of that may be the chance of the reference."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from scepsy.model.plan import Prediction
from scepsy.model.workflow import WorkflowName

Floats = npt.NDArray[np.float64]
RESAMPLES = 500
MIN_BLOCKS = 10


def p95(values_s: Floats) -> float:
    """One that occurred, as the predictors have it: executions come again and again."""
    return float(np.quantile(values_s, 0.95, method="inverted_cdf"))


def standard_errors(served_s: Floats, recorded: int, warm_up: int = 0) -> tuple[float, float]:
    """Of mean and p95 of executions in the order of their arrival, relative to these.

    By resampling blocks, as neighbours meet the same load: a block is one round of the recorded
    executions, so that it has each of them once, as the prediction has. Where that gives few blocks
    they are shorter; then, and where two workflows arrive, the error is stated too large.

    Args:
        served_s: a period of whole rounds.
        recorded: executions in a round.
        warm_up: arrivals before these; the first of them began a round.
    """
    served_s = np.roll(served_s, -(-warm_up % recorded))
    length = max(1, min(recorded, len(served_s) // MIN_BLOCKS))
    starts = np.arange(0, len(served_s) - length + 1, length)
    rng = np.random.default_rng(0)
    chosen = rng.choice(starts, (RESAMPLES, len(starts)))
    samples = served_s[(chosen[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)]
    means = samples.mean(axis=1)
    p95s = np.quantile(samples, 0.95, axis=1, method="inverted_cdf")
    return float(means.std() / served_s.mean()), float(p95s.std() / p95(served_s))


def errors(
    predicted: Sequence[Prediction],
    name: WorkflowName,
    served_s: Floats,
    recorded: int,
    warm_up: int = 0,
) -> Mapping[str, object]:
    """Each predictor's error of mean and p95, and the reference's own standard errors."""
    of_mean, of_p95 = standard_errors(served_s, recorded, warm_up)
    found: dict[str, object] = {}
    for each in predicted:
        told = each.workflow(name)
        found[each.predictor] = {
            "mean": round(float(told.execution_s_mean / served_s.mean() - 1), 4),
            "p95": round(told.execution_s_p95 / p95(served_s) - 1, 4),
        }
    return found | {
        "standard_error": {"mean": round(of_mean, 4), "p95": round(of_p95, 4)},
        "mean_s": round(float(served_s.mean()), 3),
        "executions": len(served_s),
    }
