"""How much slower calls are on GPUs that their LLM shares by turns. A model; see below.

With ``n`` calls at work on a replica in the mean, it has something to compute for ``1 - exp(-n)``
of the time, as if calls came at random. While another does too, each gets half of the GPUs' time,
less what switching costs. Calls that take longer are at work for longer, so all is iterated.
"""

from collections.abc import Sequence
from math import exp

from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION

_ROUNDS = 12


def stretches(at_work: Sequence[float]) -> list[float]:
    """(LLMs,) how many times as long calls take beside each other as alone, >= 1.

    Args:
        at_work: (LLMs,) calls of each at work on a replica in the mean, were it alone.
    """
    stretched = [1.0] * len(at_work)
    for _ in range(_ROUNDS):
        busy = [1 - exp(-n * s) for n, s in zip(at_work, stretched, strict=True)]
        stretched = [
            1 + sum(busy[:at] + busy[at + 1 :]) / (1 - TURN_COST_FRACTION)
            for at in range(len(at_work))
        ]
    return stretched
