"""When executions arrive, and which: open loop (Poisson, bursty, as recorded) or closed loop.

All are without end, but for the recorded ones. Chance comes from a seed: equal seeds give equal
arrivals, whatever serves them.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from itertools import cycle
from typing import Protocol

from scepsy.errors import InputError
from scepsy.sim.script import Script

_INF = float("inf")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An execution comes."""

    at_s: float
    script: Script


class ArrivalSource(Protocol):
    """Where executions come from."""

    @property
    def next_s(self) -> float:
        """When the next one comes; infinite where none is to come for now."""
        ...

    def take(self) -> Arrival:
        """The next one; there must be one."""
        ...

    def ended(self, now_s: float) -> None:
        """One that came from here has ended."""
        ...


class OpenLoop:
    """Arrivals that do not wait for what is served."""

    def __init__(self, arrivals: Iterator[Arrival]) -> None:
        """Take arrivals by their instants."""
        self._arrivals = arrivals
        self.next_s = _INF
        """When the next one comes."""
        self._go_on()

    def take(self) -> Arrival:
        """The next one."""
        taken = self._next
        assert taken is not None, "no execution is left to arrive"
        self._go_on()
        return taken

    def _go_on(self) -> None:
        self._next = next(self._arrivals, None)
        self.next_s = _INF if self._next is None else self._next.at_s

    def ended(self, now_s: float) -> None:
        """Nothing follows from it."""


class ClosedLoop:
    """So many users; each starts its next execution a think time after its last has ended."""

    def __init__(
        self, scripts: Sequence[Script], *, users: int, think_s: float = 0.0, seed: int = 0
    ) -> None:
        """Users who begin one after the other within a think time.

        Raises:
            InputError: no user, no script, or a negative think time.
        """
        if users < 1 or not scripts or think_s < 0:
            raise InputError("a closed loop needs users, executions and a think time >= 0 s")
        rng = random.Random(seed)
        self._think_s = think_s
        self._order = shuffled_rounds(scripts, rng)
        self._ready = [think_s * user / users for user in range(users)]  # a heap

    @property
    def next_s(self) -> float:
        """When the next user has thought enough; infinite while all are served."""
        return self._ready[0] if self._ready else float("inf")

    def take(self) -> Arrival:
        """The next one."""
        return Arrival(heappop(self._ready), next(self._order))

    def ended(self, now_s: float) -> None:
        """Its user begins to think."""
        heappush(self._ready, now_s + self._think_s)


def shuffled_rounds(scripts: Sequence[Script], rng: random.Random) -> Iterator[Script]:
    """Each script once in every round, in an order that chance decides."""
    while True:
        rest = list(scripts)
        rng.shuffle(rest)
        yield from rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Executions of one workflow that arrive at a rate."""

    scripts: tuple[Script, ...]
    rate_per_s: float
    burstiness: float = 1.0
    """Coefficient of variation of the time between arrivals: 1 is Poisson, more comes in bursts
    (gamma distributed), less is more regular."""

    def __post_init__(self) -> None:
        if not self.scripts or not 0 < self.rate_per_s < float("inf") or not self.burstiness > 0:
            raise InputError("a stream needs executions, a rate > 0 per s and a burstiness > 0")

    def arrivals(self, seed: int, period: int | None = None) -> Iterator[Arrival]:
        """Arrivals without end.

        Args:
            seed: decides gaps and order.
            period: what arrives repeats after so many, over which the rate is exact and, as
                scripts come in shuffled rounds, each comes equally often (but for the last
                round): so that runs at different loads differ by load alone. None: no period.
        """
        rng = random.Random(f"{seed}/{self.scripts[0].workflow}")
        order = shuffled_rounds(self.scripts, rng)
        at_s = 0.0
        if period is None:
            for script in order:
                at_s += self._gap(rng) / self.rate_per_s
                yield Arrival(at_s, script)
        repeated = [next(order) for _ in range(period or 0)]
        gaps = [self._gap(rng) for _ in repeated]
        scale_s = len(gaps) / sum(gaps) / self.rate_per_s
        for gap, script in cycle(zip(gaps, repeated, strict=True)):
            at_s += gap * scale_s
            yield Arrival(at_s, script)

    def _gap(self, rng: random.Random) -> float:
        """1 in the mean."""
        if self.burstiness == 1:
            return rng.expovariate(1.0)
        shape = self.burstiness**-2
        return rng.gammavariate(shape, 1 / shape)


def merged(streams: Iterable[Iterator[Arrival]]) -> Iterator[Arrival]:
    """Arrivals of several streams, by their instants."""
    return merge(*streams, key=_instant)


def as_recorded(scripts: Iterable[Script], *, speed: float = 1.0) -> Iterator[Arrival]:
    """Each script once, when it was recorded, counted from the first; faster by ``speed``."""
    by_start = sorted(scripts, key=_recorded_s)
    for script in by_start:
        yield Arrival((script.start_s - by_start[0].start_s) / speed, script)


def _instant(arrival: Arrival) -> float:
    return arrival.at_s


def _recorded_s(script: Script) -> float:
    return script.start_s
