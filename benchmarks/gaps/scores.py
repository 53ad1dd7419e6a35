"""Forecasts of gaps that others use, and how any forecast is scored."""

from collections.abc import Callable, Mapping, Sequence
from math import erf, exp, log, sqrt

import numpy as np

from benchmarks.gaps.sessions import HORIZON_S, Gap

WAITED_S = (0.0, 1.0, 5.0, 30.0, 120.0, 600.0)
WITHIN_S = (1.0, 5.0, 30.0, 120.0, 600.0)
FEW = 50
"""Gaps that a cell of the calibration needs to count."""
LEVELS = 20
SCORE_EDGES_S = (0.0, *(0.005 * 1.3**i for i in range(52)), HORIZON_S)
"""Bins of the log score: not those of any forecast."""
PUBLISHED_S = {"code": (0.18, 2.4), "file": (0.045, 0.32), "web": (0.85, 4.5), "db": (0.12, 0.89)}
"""P50 and P95 of the published classes (arXiv 2605.00528)."""
FILE_TOOLS = {"Read", "Edit", "Write", "Grep", "Glob", "TodoWrite", "NotebookEdit", "LS"}
WEB_TOOLS = {"WebFetch", "WebSearch"}

Survives = Callable[[Gap, float], float]
"""Probability that a gap is longer than that (s)."""


def tool_class(gap: Gap) -> str:
    """The published class of a gap's tools; of several the slowest."""
    names = set(gap.program.tool.split("+"))
    if names & WEB_TOOLS:
        return "web"
    return "file" if names <= FILE_TOOLS else "code"


def lognormal(fits: Mapping[str, tuple[float, float]]) -> Survives:
    def survives(gap: Gap, t: float) -> float:
        mean, deviation = fits[tool_class(gap)]
        z = (log(max(t, 1e-9)) - mean) / deviation
        return 0.5 * (1.0 - erf(z / sqrt(2)))

    return survives


def published() -> Survives:
    """As the published classes start out."""
    z95 = 1.6448536
    return lognormal(
        {name: (log(p50), (log(p95) - log(p50)) / z95) for name, (p50, p95) in PUBLISHED_S.items()}
    )


def fitted(train: Sequence[Gap]) -> Survives:
    """The published classes, fitted to what returned."""
    fits = {}
    for name in PUBLISHED_S:
        logs = [
            log(max(g.gap_s, 1e-3)) for g in train if g.gap_s is not None and tool_class(g) == name
        ] or [0.0, 1.0]
        fits[name] = float(np.mean(logs)), max(0.1, float(np.std(logs)))
    return lognormal(fits)


def empirical(train: Sequence[Gap]) -> Survives:
    """All training gaps alike, and one more that has the heavy tail of our prior."""
    known = np.sort([np.inf if gap.gap_s is None else gap.gap_s for gap in train])

    def survives(_gap: Gap, t: float) -> float:
        longer = len(known) - int(np.searchsorted(known, t, side="right"))
        return (longer + 1 / (1 + t / 10.0)) / (len(known) + 1)

    return survives


def exponential(train: Sequence[Gap]) -> Survives:
    seen_s = sum(HORIZON_S if gap.gap_s is None else gap.gap_s for gap in train)
    rate = sum(gap.gap_s is not None for gap in train) / seen_s
    return lambda _gap, t: exp(-rate * t)


def log_score(survives: Survives, gap: Gap) -> float:
    """Log probability of the bin in which the gap ended."""
    if gap.gap_s is None or gap.gap_s >= HORIZON_S:
        found = survives(gap, HORIZON_S)
    else:
        i = int(np.searchsorted(SCORE_EDGES_S, gap.gap_s, side="right"))
        found = survives(gap, SCORE_EDGES_S[i - 1]) - survives(gap, SCORE_EDGES_S[i])
    return log(max(found, 1e-12))


def pit_distance(survives: Survives, test: Sequence[Gap]) -> float:
    """Largest distance of the forecasts' levels at what happened from uniform ones."""
    counts = np.zeros(LEVELS)
    for gap in test:
        low = 1 - survives(gap, HORIZON_S if gap.gap_s is None else gap.gap_s)
        high = 1.0 if gap.gap_s is None else low
        edges = np.linspace(0, 1, LEVELS + 1)
        if high - low < 1e-9:
            counts[min(LEVELS - 1, int(low * LEVELS))] += 1
        else:
            overlap = np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None)
            counts += overlap / (high - low)
    return float(np.abs(np.cumsum(counts) / len(test) - np.linspace(1 / LEVELS, 1, LEVELS)).max())


def calibration(survives: Survives, test: Sequence[Gap]) -> dict[str, float]:
    """P(returns within t | waited): forecast against what happened."""
    worst, pairs = 0.0, []
    for waited_s in WAITED_S:
        still = [g for g in test if g.gap_s is None or g.gap_s > waited_s]
        if len(still) < FEW:
            continue
        for within_s in WITHIN_S:
            cell = []
            for gap in still:
                alive = survives(gap, waited_s)
                p = 1 - survives(gap, waited_s + within_s) / alive if alive > 1e-12 else 1.0
                cell.append((p, gap.gap_s is not None and gap.gap_s <= waited_s + within_s))
            pairs += cell
            said, was = np.mean(cell, axis=0)
            worst = max(worst, abs(said - was))
    said_all, was_all = np.array(pairs, dtype=float).T
    level = np.minimum(9, (said_all * 10).astype(int))
    off = sum(
        abs(said_all[level == i].mean() - was_all[level == i].mean()) * (level == i).mean()
        for i in range(10)
        if (level == i).any()
    )
    return {
        "mean_error": round(float(off), 4),
        "worst_cell": round(float(worst), 4),
        "brier": round(float(np.mean((said_all - was_all) ** 2)), 4),
    }


def summary(survives: Survives, test: Sequence[Gap]) -> dict[str, float]:
    """All scores of a forecast."""
    back = [gap for gap in test if gap.gap_s is not None]
    return {
        "log_score": round(float(np.mean([log_score(survives, gap) for gap in test])), 4),
        "log_score_returned": round(float(np.mean([log_score(survives, gap) for gap in back])), 4),
        "pit_distance": round(pit_distance(survives, test), 4),
        **calibration(survives, test),
    }
