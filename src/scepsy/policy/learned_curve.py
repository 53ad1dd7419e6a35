"""How long something lasts, as a step function on a fixed grid: no family of distributions.

A ``Curve`` says of a wait how likely it still goes on, and how likely it will end by a return;
a ``Forecast`` is a mixture of curves as seen by one who has waited for some time already. The
unit is the grid's: seconds for gaps, tokens for answers, calls for executions.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log, log10
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_HALVINGS = 48
"""Of the range, when a quantile of a mixture is looked for."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Edges of the bins: 0 first, then growing. What lies beyond the last is not told apart."""

    edges: tuple[float, ...]
    of_edges: Numbers = field(init=False, repr=False, compare=False)
    widths: Numbers = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "of_edges", np.array(self.edges))
        object.__setattr__(self, "widths", np.diff(self.edges))

    @classmethod
    def log(cls, first: float, last: float, *, per_decade: int) -> "Grid":
        """From ``first`` to ``last`` in equal ratios, and one bin below."""
        steps = round(per_decade * log10(last / first))
        return cls((0.0, *(first * 10 ** (i / per_decade) for i in range(steps + 1))))

    @classmethod
    def whole(cls, last: float, *, per_decade: int) -> "Grid":
        """Around whole numbers from 1 on: each its own bin as long as the ratio is larger."""
        wanted = cls.log(1.0, last, per_decade=per_decade).edges[1:]
        return cls((0.0, *(x + 0.5 for x in sorted({round(x) for x in wanted}))))

    @property
    def bins(self) -> int:
        """Bins between edges; one more, the last, is what lies beyond."""
        return len(self.edges) - 1

    def bin(self, value: float) -> int:
        """The bin of a value >= 0; ``bins`` where it lies beyond the last edge."""
        return bisect_right(self.edges, value) - 1


class Curve:
    """Probabilities at each edge of a grid; linear between, so that no time is special.

    Kept as what is still to come, so that a difference far out in the tail is exact.
    """

    __slots__ = (
        "_alive", "_area", "_edges", "_grid", "_later", "end_fractions", "return_fractions",
    )  # fmt: skip

    def __init__(
        self,
        grid: Grid,
        return_fractions: Sequence[float] | Numbers,
        end_fractions: Sequence[float] | Numbers,
    ) -> None:
        """Of those that reach a bin, the fractions that return in it, and that end otherwise."""
        backs = np.asarray(return_fractions, dtype=float)
        overs = np.asarray(end_fractions, dtype=float)
        alive = np.empty(grid.bins + 1)
        alive[0] = 1.0
        np.maximum(0.0, 1.0 - backs - overs, out=alive[1:])
        np.multiply.accumulate(alive, out=alive)
        self.return_fractions, self.end_fractions = backs, overs
        self._grid, self._edges = grid, grid.edges
        self._alive = array("d", alive.tobytes())
        self._later = _to_come(alive[:-1] * backs)
        self._area = _to_come((alive[:-1] + alive[1:]) / 2 * grid.widths)

    def at(self, waited: float) -> tuple[float, float, float]:
        """Of what the curve says after a wait.

        Gives the probability that it goes on at least so long, the probability that it does and
        then returns within the grid, and the mean time that it goes on beyond it on the grid.
        """
        edges, alive = self._edges, self._alive
        i = bisect_right(edges, waited) - 1
        if i >= len(edges) - 1:
            return alive[-1], 0.0, -alive[-1] * (waited - edges[-1])
        x = (waited - edges[i]) / (edges[i + 1] - edges[i])
        here = alive[i] + x * (alive[i + 1] - alive[i])
        later = self._later[i] + x * (self._later[i + 1] - self._later[i])
        area = self._area[i] - (alive[i] + here) / 2 * (waited - edges[i])
        return here, later, area

    def at_all(self, waited: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """The same after many waits."""
        edges = self._grid.of_edges
        alive, later, area = map(np.frombuffer, (self._alive, self._later, self._area))
        i = np.searchsorted(edges, waited, "right") - 1
        is_beyond = i >= len(edges) - 1
        i = np.minimum(i, len(edges) - 2)
        from_edge = waited - edges[i]
        x = from_edge / self._grid.widths[i]
        here = alive[i] + x * (alive[i + 1] - alive[i])
        came = later[i] + x * (later[i + 1] - later[i])
        held = area[i] - (alive[i] + here) / 2 * from_edge
        if is_beyond.any():
            last = alive[-1]
            here, came = np.where(is_beyond, last, here), np.where(is_beyond, 0.0, came)
            held = np.where(is_beyond, -last * (waited - edges[-1]), held)
        return here, came, held

    def density(self, waited: float) -> float:
        """Of returns, per unit; beyond the grid as of a tail that halves where time doubles."""
        edges = self._edges
        i = bisect_right(edges, waited) - 1
        if i >= len(edges) - 1:
            return self._alive[-1] * edges[-1] / waited**2
        return (self._later[i] - self._later[i + 1]) / (edges[i + 1] - edges[i])

    @property
    def last(self) -> float:
        """Where the grid ends."""
        return self._edges[-1]


def _to_come(in_bins: Numbers) -> "array[float]":
    """At each edge the sum of what is in the bins after it."""
    found = np.zeros(len(in_bins) + 1)
    np.add.accumulate(in_bins[::-1], out=found[-2::-1])
    return array("d", found.tobytes())


class Part(NamedTuple):
    """One curve of a mixture. It tells of waits in multiples of ``scale``."""

    weight: float
    curve: Curve
    scale: float = 1.0


class Forecast:
    """What is to be expected of one that has waited so long: probabilities and times from now on.

    The parts' weights are those before the wait; what each says of the wait shifts them.
    """

    __slots__ = ("_alive", "_parts", "waited")

    def __init__(self, parts: Sequence[Part], waited: float = 0.0) -> None:
        self.waited = max(0.0, waited)
        self._parts = [
            (p.weight, p.curve, p.scale, p.curve.at(self.waited / p.scale)) for p in parts
        ]
        self._alive = sum(weight * now[0] for weight, _, _, now in self._parts)

    def returns_within(self, more: float) -> float:
        """Probability that it returns within so much more."""
        until = self.waited + max(0.0, more)
        found = sum(
            weight * (now[1] - curve.at(until / scale)[1])
            for weight, curve, scale, now in self._parts
        )
        return self._share(found)

    def goes_on(self, more: float) -> float:
        """Probability that it neither returned nor ended within so much more."""
        until = self.waited + max(0.0, more)
        found = sum(w * curve.at(until / scale)[0] for w, curve, scale, _ in self._parts)
        return self._share(found)

    def expected_wait(self, within: float) -> float:
        """Mean of the further wait, cut off at ``within``: what to keep something so long costs.

        The mean without a cut is not given: heavy tails may have none.
        """
        until = self.waited + max(0.0, within)
        found = sum(
            weight * scale * (now[2] - curve.at(until / scale)[2])
            for weight, curve, scale, now in self._parts
        )
        return min(max(0.0, found / self._alive), max(0.0, within)) if self._alive else within

    def by_each(self, within: Numbers) -> tuple[Numbers, Numbers]:
        """``returns_within`` and ``expected_wait`` for many times >= 0 at once."""
        came, held = np.zeros(len(within)), np.zeros(len(within))
        for weight, curve, scale, now in self._parts:
            _, later, area = curve.at_all((self.waited + within) / scale)
            came += weight * (now[1] - later)
            held += weight * scale * (now[2] - area)
        if not self._alive:
            return np.zeros(len(within)), within
        came, held = np.maximum(0.0, came / self._alive), np.maximum(0.0, held / self._alive)
        return np.minimum(1.0, came), np.minimum(held, within)

    def quantile(self, probability: float) -> float:
        """The further wait within which it returns with that probability; inf where none does."""
        high = max(curve.last * scale for _, curve, scale, _ in self._parts) - self.waited
        if high <= 0 or self.returns_within(high) < probability:
            return inf
        low = 0.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self.returns_within(middle) < probability:
                low = middle
            else:
                high = middle
        return high

    def log_density(self, more: float) -> float:
        """Log of the density of a return after so much more: its score when that happened."""
        until = self.waited + max(0.0, more)
        found = sum(w * curve.density(until / scale) / scale for w, curve, scale, _ in self._parts)
        return log(found / self._alive) if found > 0 and self._alive > 0 else -inf

    def log_goes_on(self, more: float) -> float:
        """Log of the probability that it goes on so long: its score when no more is known."""
        left = self.goes_on(more)
        return log(left) if left > 0 else -inf

    def _share(self, found: float) -> float:
        return min(1.0, max(0.0, found / self._alive)) if self._alive else 0.0
