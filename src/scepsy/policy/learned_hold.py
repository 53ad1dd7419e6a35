"""For how long the KV of a program is worth its room, by what is learned of gaps.

At each age of a gap the *index* is the largest ratio, over all times to give up after, of the
chance that the next call comes by then to the expected time until it has, or one gives up: chance
of use per second held (the Gittins index of waiting). KV is held while that is above a price.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from scepsy.policy.learned import Learned, gap_key
from scepsy.policy.learned_counts import Key
from scepsy.policy.learned_curve import Forecast
from scepsy.policy.program import Program

AGES_S: tuple[float, ...] = (0.0, *(0.5 * 2.0**step for step in range(14)))
"""Ages at which an index may change: half a second to an hour, each twice the one before."""
_AGES_S = np.array(AGES_S)
_GIVEN_UP_S = (*AGES_S, AGES_S[-1])
_IS_LATER = np.triu(np.ones((len(AGES_S), len(AGES_S)), dtype=bool), 1)
_MOST_ASKED = 512
"""An index is made anew after four times as many questions as the last time, or after so many."""
_MOST_KEYS = 4096


@dataclass(slots=True)
class _Known:
    index: Sequence[float]
    """Its least value up to each age, negated so that it rises."""
    left: int
    asked: int


class Holds:
    """Remembers the index of each kind of gap: it is asked for more often than it changes."""

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._known: dict[Key, _Known] = {}

    def hold_s(self, program: Program, price_per_s: float) -> float:
        """From the start of a gap, for so long the chance of use per second is worth the price."""
        hints = program.hints
        if hints.gap_s is not None or hints.next_tool is not None:
            return _until(_least_so_far(self._index(program)), price_per_s)
        node = program.gap_node
        key = gap_key(program) if node is None else node.key
        known = self._known.get(key)
        if known is None or known.left == 0:
            asked = 1 if known is None else min(_MOST_ASKED, 4 * known.asked)
            if len(self._known) >= _MOST_KEYS:
                self._known.clear()
            known = self._known[key] = _Known(_least_so_far(self._index(program)), asked, asked)
        known.left -= 1
        return _until(known.index, price_per_s)

    def _index(self, program: Program) -> Sequence[float]:
        return indices(self._learned.gap(program, program.gap_start_s))


def indices(forecast: Forecast) -> Sequence[float]:
    """The index at each age, of a forecast that is made at the start of a gap."""
    came, held = forecast.by_each(_AGES_S)
    of_later = (came - came[:, None]) / np.maximum(1e-9, held - held[:, None])
    found: list[float] = np.where(_IS_LATER, of_later, 0.0).max(axis=1).tolist()
    return found


def _until(least: Sequence[float], price_per_s: float) -> float:
    """The first age at which an index is below a price, by its negated least value so far."""
    return _GIVEN_UP_S[bisect_right(least, -price_per_s)]


def _least_so_far(index: Sequence[float]) -> Sequence[float]:
    return [-value for value in accumulate(index, min)]
