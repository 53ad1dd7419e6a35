"""The time for which Continuum (arXiv 2511.02230) keeps a program's KV.

It is the time t that makes the largest of

    chance(the tool ends within t) * (seconds of prefill saved + eta * mean wait in the queue) - t

where eta is minus the correlation between the calls that a program has made and those it has left.
"""

from bisect import bisect_right, insort
from collections import deque
from math import log, sqrt

from scepsy.policy.program import ToolName

KNOWN = 100
"""Times of a tool, or of all, from which on they are used."""
WINDOW = 100
"""Waits that the mean is of."""
_STEPS = 200
"""Times that are tried: so many quantiles of those that were seen."""


class Times:
    """Of one tool, or of all."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def __len__(self) -> int:
        return len(self._seen)

    def saw(self, took_s: float) -> None:
        """A tool took so long."""
        insort(self._seen, took_s)

    def best_s(self, benefit_s: float) -> float:
        """How long to wait for the tool where that much is saved if it ends in time."""
        seen, count = self._seen, len(self._seen)
        best_s, most = 0.0, bisect_right(seen, 0.0) / count * benefit_s
        for at in range(0, count, max(1, count // _STEPS)):
            if seen[at] > benefit_s:
                break
            reward = bisect_right(seen, seen[at]) / count * benefit_s - seen[at]
            if reward > most:
                best_s, most = seen[at], reward
        return best_s


class Memory:
    """Minus the correlation of calls made and calls left, over all calls of programs that ended."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._yy = self._xy = 0.0

    def ended(self, calls: int) -> None:
        """A program did after so many calls."""
        for made in range(1, calls + 1):
            left = calls - made
            self._n += 1
            self._x, self._y = self._x + made, self._y + left
            self._xx, self._yy = self._xx + made * made, self._yy + left * left
            self._xy += made * left

    @property
    def eta(self) -> float:
        """1 while nothing is known."""
        vx = self._n * self._xx - self._x**2
        vy = self._n * self._yy - self._y**2
        if vx <= 0 or vy <= 0:
            return 1.0
        return (self._x * self._y - self._n * self._xy) / sqrt(vx * vy)


class TimeToLive:
    """Learns from what happens."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._all = Times()
        self._by_tool: dict[ToolName, Times] = {}
        self._waits_s: deque[float] = deque(maxlen=WINDOW)
        self.memory = Memory()

    def tool_took(self, tool: ToolName, took_s: float) -> None:
        """From a call's end to its program's next call."""
        self._all.saw(took_s)
        self._by_tool.setdefault(tool, Times()).saw(took_s)

    def waited(self, wait_s: float) -> None:
        """A program's call that was not kept for, before it was scheduled."""
        self._waits_s.append(wait_s)

    def of(self, tool: ToolName, prefill_s: float) -> float:
        """For a program that is in a tool, whose context takes so long to compute (s)."""
        wait_s = sum(self._waits_s) / len(self._waits_s) if self._waits_s else 0.0
        benefit_s = prefill_s + self.memory.eta * wait_s
        if len(self._all) <= KNOWN:  # exponential, of mean 1 s
            return log(benefit_s) if benefit_s > 1 else 0.0
        own = self._by_tool.get(tool)
        return (own if own and len(own) > KNOWN else self._all).best_s(benefit_s)
