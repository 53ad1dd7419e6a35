"""Counts of what was seen of waits, from the general to the particular, and curves of them.

A node counts, on a grid, the waits that ended in each bin: by a return, by an end without one, or
unseen (censored). Of those that reach a bin, the fractions that leave it in each way make its
curve; a node with few counts in a bin takes over its parent's fractions there.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise

import numpy as np

from scepsy.policy.learned_curve import Curve, Grid, Numbers

Key = tuple[str, ...]
"""Names from the general to the particular; a key's parent lacks the last one."""

PARENT_WAITS = 8.0
"""A parent counts as so many waits of the node's own, in every bin."""
MOST_WAITS = 2_048.0
"""A node with more halves its counts, so that what it learned long ago fades."""
NEW_FRACTION = 1 / 8
"""A curve is made anew after so many more waits, of those it was made of."""
MOST_NEW = 128
"""... and after that many at the latest."""
MOST_NEW_ABOVE = 512
"""The same for what is new in its parent, of which a quarter more counts."""
FEW = 32
"""Up to so many waits a curve is made of curves that are new themselves, whatever that takes."""
OPEN_STEP_S = 60.0
"""Waits that go on are counted by their start to that precision; younger ones are left out."""


class How(IntEnum):
    """How a wait left."""

    RETURNED = 0
    ENDED = 1
    """It is known that no return follows."""
    UNSEEN = 2
    """It was no longer looked at: it lasted at least so long."""


class Nodes:
    """Nodes by key, each with the node of its parent key; those used least recently leave first.

    A path is used from its leaf to the root, so no node leaves before those below it. Who was used
    when is kept to half as many uses as there may be nodes.
    """

    def __init__(self, make: Callable[["Counts | None"], "Counts"], most: int) -> None:
        self._make, self._most = make, most
        self._nodes: OrderedDict[Key, Counts] = OrderedDict({(): make(None)})
        self._uses = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def nearest(self, key: Key) -> "Counts":
        """The node of a key; where there is none, of the nearest key above it."""
        while (found := self._nodes.get(key)) is None:
            key = key[:-1]
        return found

    def use(self, key: Key) -> "Counts":
        """The node of a key, made where there is none, to count what was seen."""
        self._uses = uses = self._uses + 1
        found = self._nodes.get(key)
        if found is not None and uses < found.is_recent_until:
            return found
        found = self._made(key)
        for length in range(len(key), -1, -1):
            self._nodes.move_to_end(key[:length])
        found.is_recent_until = uses + self._most // 2
        while len(self._nodes) > max(self._most, len(key) + 1):
            self._nodes.popitem(last=False)
        return found

    def _made(self, key: Key) -> "Counts":
        found = self._nodes.get(key)
        if found is None:
            found = self._nodes[key] = self._make(self._made(key[:-1]))
            found.key = key
        return found


class Counts:
    """What was seen under one key."""

    __slots__ = (
        "_bins",
        "_curve",
        "_grid",
        "_made_at",
        "_open_s",
        "_parent_at",
        "_prior",
        "counts",
        "fades_at",
        "going_on",
        "is_recent_until",
        "key",
        "parent",
        "seen",
    )

    def __init__(self, grid: Grid, prior: Curve, parent: "Counts | None") -> None:
        self.parent = parent
        self._grid, self._prior = grid, prior
        self._bins = grid.bins + 1
        self.counts = array("d", bytes(8 * self._bins * len(How)))
        """By how they left, then by bin."""
        self.key: Key = ()
        self.is_recent_until = 0
        """Of those used, it is among the last until that use."""
        self.seen = 0
        """Changes so far, faded or not."""
        self.fades_at = MOST_WAITS
        """Beyond so many, the sum of its counts is above ``MOST_WAITS``."""
        self.going_on: dict[float, int] = {}
        """Waits, by the step of time in which they began."""
        self._curve: Curve | None = None
        self._made_at = self._parent_at = 0
        self._open_s = 0.0

    def left(self, value: float, how: How) -> None:
        """A wait left after ``value``."""
        self._count(self._grid.bin(value), how, None)

    def did_not_leave(self, value: float, how: How) -> None:
        """One that was counted so did not, after all."""
        i = self._grid.bin(value) + how * self._bins
        node: Counts | None = self
        while node is not None:
            counted = min(1.0, node.counts[i])
            node.counts[i] -= counted
            node.seen += 1
            node.fades_at += 1.0 + counted
            node = node.parent

    def began(self, at_s: float) -> None:
        """A wait begins that may go on for long."""
        step = at_s // OPEN_STEP_S
        node: Counts | None = self
        while node is not None:
            waits = node.going_on
            waits[step] = waits.get(step, 0) + 1
            node = node.parent

    def over(self, at_s: float) -> None:
        """A wait that began then goes on no longer."""
        step = at_s // OPEN_STEP_S
        node: Counts | None = self
        while node is not None:
            node.close(step)
            node = node.parent

    def passed(self, at_s: float, value: float, how: How) -> None:
        """A wait that began then is over and left: ``over`` and ``left`` in one."""
        self._count(self._grid.bin(value), how, at_s // OPEN_STEP_S)

    def curve(self, now_s: float | None = None) -> Curve:
        """What the counts say; it lags behind the last few. Open waits count where time is told.

        Beyond a few waits, a look makes one curve anew at most: its own, or one above.
        """
        parent = self.parent
        if self._curve is None or self._is_stale(now_s):
            if parent is None:
                above = self._prior
            else:
                above = parent.curve(now_s) if self.seen < FEW else parent.last_curve(now_s)
            self._curve = self._made(above, now_s)
            self._made_at = self.seen
            self._parent_at = 0 if parent is None else parent.seen
            self._open_s = now_s or 0.0
        elif parent is not None:
            parent.curve(now_s)
        return self._curve

    def last_curve(self, now_s: float | None = None) -> Curve:
        """The curve as it was made last."""
        return self._curve or self.curve(now_s)

    def _count(self, i: int, how: How, step: float | None) -> None:
        """A wait left in bin ``i``, that began in that step of time, here and above."""
        i += how * self._bins
        node: Counts | None = self
        while node is not None:  # a call for each node would take as long as what it does
            waits, counts = node.going_on, node.counts
            if step in waits:
                if (left := waits[step] - 1) > 0:
                    waits[step] = left
                else:
                    del waits[step]
            counts[i] += 1.0
            node.seen = seen = node.seen + 1
            if seen > node.fades_at:
                node.fade()
            node = node.parent

    def close(self, step: float | None) -> None:
        """One that began then goes on no longer, here."""
        if step is None:
            return
        left = self.going_on.get(step, 0)
        if left > 1:
            self.going_on[step] = left - 1
        elif left:
            del self.going_on[step]

    def fade(self) -> None:
        """Half as much was seen."""
        counts = np.frombuffer(self.counts)
        counts /= 2
        self.fades_at = self.seen + MOST_WAITS - float(counts.sum())

    def _is_stale(self, now_s: float | None) -> bool:
        new = self.seen - self._made_at
        if new and new >= min(MOST_NEW, NEW_FRACTION * self._made_at):
            return True
        if self.going_on and now_s is not None and now_s >= self._open_s + OPEN_STEP_S:
            return True
        if self.parent is None:
            return False
        above = self.parent.seen - self._parent_at
        return above > 0 and above >= min(MOST_NEW_ABOVE, self._parent_at / 4)

    def _made(self, above: Curve, now_s: float | None) -> Curve:
        back, over, unseen = np.frombuffer(self.counts).reshape(len(How), self._bins)
        if self.going_on and now_s is not None:
            unseen = self._with_open(unseen, now_s)
        # Those that leave unseen in a bin were looked at for half of it (actuarial estimate).
        reach = np.add.accumulate((back + over + unseen)[::-1])[::-1] - unseen / 2
        of = reach[:-1] + PARENT_WAITS
        backs = (back[:-1] + PARENT_WAITS * above.return_fractions) / of
        overs = (over[:-1] + PARENT_WAITS * above.end_fractions) / of
        return Curve(self._grid, backs, overs)

    def _with_open(self, unseen: Numbers, now_s: float) -> Numbers:
        found = unseen.copy()
        for step, count in self.going_on.items():
            waited_s = now_s - (step + 1) * OPEN_STEP_S
            if waited_s > 0:
                found[self._grid.bin(waited_s)] += count
        return found


def heavy_tail(grid: Grid, median: float) -> Curve:
    """The prior: half lasts longer than the median, and of those that last long half twice so long.

    P(longer than t) = 1 / (1 + t / median); nothing ends without a return.
    """

    def longer(t: float) -> float:
        return 1 / (1 + t / median)

    fractions = [1 - longer(high) / longer(low) for low, high in pairwise(grid.edges)]
    return Curve(grid, fractions, [0.0] * grid.bins)
