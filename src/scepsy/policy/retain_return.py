"""When a program's next call comes: what a retention policy asks, and a simple empirical answer.

A policy needs the chance of the next call within some time, given how long it has not come so far.
Whoever learns that answers as ``ReturnTimes``.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import exp, log
from typing import Protocol

AGES_S: tuple[float, ...] = (0.0, *(0.25 * 2 ** (step / 2) for step in range(40)))
"""Ages at which an estimate may change: from a quarter of a second to two days, 1.4 apart."""
HORIZONS_S: tuple[float, ...] = tuple(0.5 * 4.0**step for step in range(9))
"""Times to keep something for that are compared: half a second to nine hours."""


class ReturnTime(Protocol):
    """When one program's next call comes, as far as its last one lets expect."""

    def probability(self, now_s: float, until_s: float) -> float:
        """Of its coming by ``until_s``, given that it has not come by ``now_s``; in [0, 1]."""
        ...


class ReturnTimes(Protocol):
    """Learns from calls that end and come, and answers for one program."""

    def ended(self, now_s: float, program: str, kind: str) -> ReturnTime:
        """A program's call has ended, and its next one is waited for."""
        ...

    def arrived(self, now_s: float, program: str) -> None:
        """It has come."""
        ...

    def over(self, now_s: float, program: str) -> None:
        """It is known that it will not come."""
        ...


def density(returns: ReturnTime, now_s: float, queue_s: float = 0.0) -> float:
    """Chance of use per second held, if held for as long as that pays most (1/s).

    This is the Gittins index of waiting: over all times to give up after, the largest ratio of the
    chance that the call has come by then to the expected time until it has, or one gives up.

    Args:
        returns: when the next call comes.
        now_s: it has not come by then.
        queue_s: for so long it is held on when the call has come.
    """
    best = held_s = before_s = before = 0.0
    for horizon_s in HORIZONS_S:
        chance = returns.probability(now_s, now_s + horizon_s)
        held_s += (horizon_s - before_s) * (1.0 - (before + chance) / 2)
        before_s, before = horizon_s, chance
        spent_s = held_s + chance * queue_s
        if chance > best * spent_s:
            best = chance / spent_s
    return best


PRIOR_CALLS = 8.0
"""How many calls a kind needs before its own outweigh those of its parent."""
PRIOR_CHANCE = 0.2
"""Of coming before an age has grown 1.4 times, where nothing is known."""
_REFRESH_CALLS, _REFRESH_FRACTION = 4, 1 / 32
"""An estimate is computed anew after so many calls, ended or come, or that part of all so far."""
_MAX_WAITING = 65_536
"""Programs whose next call is waited for; beyond that, those waited for longest are given up."""


class _Kind:
    """What is known of one kind's waits."""

    def __init__(self, parent: "_Kind | None") -> None:
        self.parent = parent
        self.returned = [0] * len(AGES_S)  # by the age at the return
        self.waiting: dict[str, float] = {}  # since when; the oldest first
        self.given_up = 0
        self.unseen = 0
        self.refresh_calls = 0.0  # when the next estimate is made
        self.log_survival: list[float] = []  # at each age

    def survival(self, now_s: float) -> list[float]:
        """Logarithm of the chance of waiting on at each age."""
        if self.unseen >= self.refresh_calls:
            self.unseen = 0
            seen = sum(self.returned) + len(self.waiting)
            self.refresh_calls = max(_REFRESH_CALLS, _REFRESH_FRACTION * seen)
            above = None if self.parent is None else _chances(self.parent.survival(now_s))
            self.log_survival = _log_survival(self, now_s, above or [PRIOR_CHANCE] * len(AGES_S))
        return self.log_survival


class EmpiricalReturns:
    """Product-limit estimates, a kind each, that begin as those of their parent.

    A kind is a path such as ``workflow/role/tool``; its parent lacks the last name. Waits
    that go on, of programs that may be over, count as long as they are. No family of distributions
    is assumed.
    """

    def __init__(self) -> None:
        self._all = _Kind(None)
        self._kinds: dict[str, _Kind] = {"": self._all}
        self._kind_of: dict[str, _Kind] = {}

    def ended(self, now_s: float, program: str, kind: str) -> ReturnTime:
        """A program's call has ended, and its next one is waited for."""
        self._stop_waiting(program)
        found = self._kind(kind)
        self._kind_of[program] = found
        for each in _with_parents(found):
            each.waiting[program] = now_s
            each.unseen += 1  # a kind whose calls never come again is to be known as such
        if len(self._kind_of) > _MAX_WAITING:
            oldest = next(iter(self._all.waiting))
            for each in _with_parents(self._kind_of[oldest]):
                each.given_up += 1
            self._stop_waiting(oldest)
        return _Waiting(found, now_s)

    def arrived(self, now_s: float, program: str) -> None:
        """It has come."""
        since_s = self._all.waiting.get(program)
        if since_s is None or since_s == now_s:  # at once: it was only put back into the queue
            return
        age = bisect_right(AGES_S, now_s - since_s) - 1
        for each in _with_parents(self._kind_of[program]):
            each.returned[age] += 1
            each.unseen += 1
        self._stop_waiting(program)

    def over(self, now_s: float, program: str) -> None:
        """It is known that it will not come: that wait tells nothing of others."""
        self._stop_waiting(program)

    def _kind(self, name: str) -> _Kind:
        found = self._kinds.get(name)
        if found is None:
            found = self._kinds[name] = _Kind(self._kind(name.rpartition("/")[0]))
        return found

    def _stop_waiting(self, program: str) -> None:
        kind = self._kind_of.pop(program, None)
        if kind is not None:
            for each in _with_parents(kind):
                del each.waiting[program]


def _with_parents(kind: _Kind) -> Iterator[_Kind]:
    at: _Kind | None = kind
    while at is not None:
        yield at
        at = at.parent


class _Waiting:
    """One program's wait. See ``ReturnTime``."""

    __slots__ = ("_kind", "_since_s")

    def __init__(self, kind: _Kind, since_s: float) -> None:
        self._kind, self._since_s = kind, since_s

    def probability(self, now_s: float, until_s: float) -> float:
        """Of its coming by ``until_s``, given that it has not come by ``now_s``."""
        table = self._kind.survival(now_s)
        now, until = _at(table, now_s - self._since_s), _at(table, until_s - self._since_s)
        return 1.0 - exp(min(0.0, until - now))


def _at(log_survival: Sequence[float], age_s: float) -> float:
    """Between two ages, as if calls came at a constant rate; beyond the last, none comes."""
    at = bisect_right(AGES_S, age_s) - 1
    if at < 0:
        return 0.0
    if at + 1 == len(AGES_S):
        return log_survival[at]
    share = (age_s - AGES_S[at]) / (AGES_S[at + 1] - AGES_S[at])
    return log_survival[at] + share * (log_survival[at + 1] - log_survival[at])


def _chances(log_survival: Sequence[float]) -> list[float]:
    after = [*log_survival[1:], log_survival[-1]]
    return [1.0 - exp(b - a) for a, b in zip(log_survival, after, strict=True)]


def _log_survival(kind: _Kind, now_s: float, prior: Sequence[float]) -> list[float]:
    waiting = [0] * len(AGES_S)
    waiting[-1] = kind.given_up
    for since_s in kind.waiting.values():
        waiting[bisect_right(AGES_S, now_s - since_s) - 1] += 1
    at_risk = sum(kind.returned) + sum(waiting)
    found = [0.0]
    for age in range(len(AGES_S) - 1):
        at_risk -= waiting[age]  # these have not seen the age's end
        chance = (kind.returned[age] + PRIOR_CALLS * prior[age]) / (at_risk + PRIOR_CALLS)
        found.append(found[-1] + log(max(1e-9, 1.0 - chance)))
        at_risk -= kind.returned[age]
    return found
