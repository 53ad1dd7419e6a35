"""How many executions keep a bound, and how many a second do."""

from dataclasses import dataclass

import numpy as np

from scepsy.traces.call_table import Floats


@dataclass(frozen=True, slots=True)
class Attainment:
    """Executions that keep a bound on their latency."""

    bound_s: float
    attainment: float
    """Part of the executions that keep it, in [0, 1]."""
    goodput_per_s: float
    """Executions/s that keep it."""


def attainment(executions_s: Floats, bound_s: float, rate_per_s: float) -> Attainment:
    """From latencies of equally likely executions that arrive at a rate."""
    kept = float(np.mean(executions_s <= bound_s))
    return Attainment(bound_s, kept, kept * rate_per_s)
