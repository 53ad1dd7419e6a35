"""Retention policies to compare with: what others do or published, and what nobody can beat.

``docs/concepts/retention.md`` says what is published of each and what had to be filled in.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count

from scepsy.policy.retain import Lru


class PrefixLru(dict[int, None]):
    """LRU, but what several programs have used goes after what one alone has."""

    def __init__(self) -> None:
        super().__init__()
        self._tiers = (OrderedDict[int, None](), OrderedDict[int, None]())  # private, shared
        self._user: dict[int, str | None] = {}  # None: several

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """What waits is not counted as used."""

    def scheduled(self, now_s: float, program: str) -> None:
        """Blocks count when they are let go of."""

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """Note whose the blocks are."""
        user = self._user
        for block in chain:
            if user.setdefault(block, program) != program:
                user[block] = None

    def over(self, now_s: float, program: str) -> None:
        """Who comes back does not matter."""

    def keep(self, blocks: Sequence[int]) -> None:
        """They were used last."""
        for block in blocks:
            self[block] = None
            self._tiers[self._user.get(block) is None][block] = None

    def wake(self, blocks: Sequence[int]) -> None:
        """They are not to be forgotten while they are held."""
        for block in blocks:
            del self[block]
            for tier in self._tiers:
                tier.pop(block, None)

    def evict(self, now_s: float) -> int:
        """Of the private ones, where there are any, the one unused for longest."""
        block = (self._tiers[0] or self._tiers[1]).popitem(last=False)[0]
        del self[block]
        self._user.pop(block, None)
        return block


class FixedTtl(Lru):
    """LRU that forgets what was not used for so long, even where there is room.

    With room kept for longer it would be LRU, as of equal times the first to begin ends first.
    """

    def __init__(self, ttl_s: float) -> None:
        """Nothing is kept, and nothing will be for longer than ``ttl_s``."""
        super().__init__()
        self._ttl_s = ttl_s
        self._now_s = 0.0
        self._kept_s: OrderedDict[int, float] = OrderedDict()

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """Too late for what is too old."""
        self._expire(now_s)

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """From now on its blocks grow old."""
        self._expire(now_s)

    def keep(self, blocks: Sequence[int]) -> None:
        """They were used last."""
        super().keep(blocks)
        for block in blocks:
            self._kept_s[block] = self._now_s

    def wake(self, blocks: Sequence[int]) -> None:
        """They do not grow old while they are held."""
        super().wake(blocks)
        for block in blocks:
            del self._kept_s[block]

    def evict(self, now_s: float) -> int:
        """The one that was kept first."""
        block = super().evict(now_s)
        del self._kept_s[block]
        return block

    def _expire(self, now_s: float) -> None:
        self._now_s = now_s
        kept_s = self._kept_s
        while kept_s and next(iter(kept_s.values())) + self._ttl_s < now_s:
            del self[kept_s.popitem(last=False)[0]]


class Belady(dict[int, int]):
    """The block whose next use is farthest away: the fewest misses that there can be.

    Only a replay knows the future. As a mapping: the blocks kept, each with its next use.
    """

    def __init__(self, next_use: Callable[[int], int]) -> None:
        """Nothing is kept.

        Args:
            next_use: number of the admission that uses a block next, asked when it is let go of.
        """
        super().__init__()
        self._next_use = next_use
        self._heap: list[tuple[int, int, deque[int]]] = []
        self._serial = count()

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """It was known before."""

    def scheduled(self, now_s: float, program: str) -> None:
        """It was known before."""

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """Whose blocks they are does not matter."""

    def over(self, now_s: float, program: str) -> None:
        """It was known before."""

    def keep(self, blocks: Sequence[int]) -> None:
        """Ask for the next uses; blocks in a row that have the same one go together."""
        before, run = None, deque[int]()
        for block in blocks:
            use = self[block] = self._next_use(block)
            if use != before:
                before, run = use, deque()
                heappush(self._heap, (-use, next(self._serial), run))
            run.append(block)

    def wake(self, blocks: Sequence[int]) -> None:
        """They are in use."""
        for block in blocks:
            del self[block]

    def evict(self, now_s: float) -> int:
        """Of those used last of all, the one farthest down its chain."""
        while True:
            use, _, run = self._heap[0]
            while run:
                block = run.popleft()
                if self.get(block) == -use:
                    del self[block]
                    return block
            heappop(self._heap)
