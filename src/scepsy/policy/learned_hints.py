"""How far a source of hints is believed: as far as its hints told what happened.

Each way to forecast (what was learned, a learned curve for the tool that was announced, the
hinted value) has a weight for each source, multiplied by the likelihood that it gave to what
happened. A part of all weight is shared out anew each time, so that a source that turns wrong, or
right, is noticed. A mixture so weighted is never much worse than its best part: a hint that is
always wrong costs a bounded sum of log score, and ``SHARED`` of it per call after that.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from math import exp, inf

from scepsy.policy.learned_counts import Key

SHARED_FRACTION = 1 / 128
"""Of all weight, shared out anew at each check."""
MOST_NATS = 20.0
"""Log likelihoods are compared down to so much below the best."""


class Way(Enum):
    """How a forecast was made."""

    LEARNED = "learned"
    TOOL = "announced tool"
    VALUE = "hinted value"


Weights = dict[Way, float]


class Trust:
    """Weights of the ways to forecast, by source; those checked least recently are forgotten."""

    def __init__(self, most_sources: int) -> None:
        self._most = most_sources
        self._weights: OrderedDict[Key, Weights] = OrderedDict()

    def weights(self, source: Key, ways: Sequence[Way]) -> Sequence[float]:
        """Of the ways given, which add up to 1. A new source's ways are believed alike."""
        known = self._weights.get(source) or _even()
        total = sum(known[way] for way in ways)
        return [known[way] / total for way in ways]

    def check(self, source: Key, scores: Mapping[Way, float]) -> None:
        """What happened had these log likelihoods by these ways."""
        if len(scores) < 2 or max(scores.values()) == -inf:
            return
        known = self._weights.get(source) or _even()
        held = sum(known[way] for way in scores)
        best = max(scores.values())
        new = {way: known[way] * exp(max(s - best, -MOST_NATS)) for way, s in scores.items()}
        total = sum(new.values())
        even = 1 / len(new)
        for way, weight in new.items():
            known[way] = held * ((1 - SHARED_FRACTION) * weight / total + SHARED_FRACTION * even)
        self._weights[source] = known
        self._weights.move_to_end(source)
        if len(self._weights) > self._most:
            self._weights.popitem(last=False)


def _even() -> Weights:
    return dict.fromkeys(Way, 1 / len(Way))
