"""KV blocks of one engine: who holds how many, and which prefixes can be used again.

Blocks are counted, not named, unless their content has an id. A block with an id can be shared by
calls with the same prefix, and stays cached when its last holder leaves, until its room is needed:
those unused for longest go first, and of one call's blocks the last goes first, as in vLLM.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence


class KvCache:
    """A fixed number of blocks, each free, private to one call, or cached under an id."""

    def __init__(self, blocks: int, on_evict: Callable[[int], None] | None = None) -> None:
        """All free.

        Args:
            blocks: how many there are.
            on_evict: told of each id that is forgotten.
        """
        self.blocks = blocks
        self._on_evict = on_evict
        self._private = 0
        self._holders: dict[int, int] = {}
        # By the order of eviction. Taking the first of a plain dict would cost more each time, as
        # it steps over all that were taken before.
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def used_blocks(self) -> int:
        """Blocks that calls hold; cached blocks that nobody holds are not among them."""
        return self._private + len(self._holders)

    @property
    def available_blocks(self) -> int:
        """Blocks that can be taken, some of them by forgetting a cached prefix."""
        return self.blocks - self._private - len(self._holders)

    @property
    def idle_blocks(self) -> int:
        """Cached blocks that nobody holds."""
        return len(self._idle)

    def hold(self, chain: Sequence[int], blocks: int) -> int | None:
        """Hold ``blocks`` for a call, as many as possible from the start of its chain of ids.

        Returns:
            How many ids of the chain were cached and are now held; the other blocks are private.
            None, with nothing changed, when so many blocks are not available.
        """
        holders, idle = self._holders, self._idle
        hits = woken = 0
        for block in chain:
            if block in idle:
                woken += 1
            elif block not in holders:
                break
            hits += 1
        if blocks - hits + woken > self.available_blocks:
            return None
        for block in chain[:hits]:
            if block in idle:
                del idle[block]
            holders[block] = holders.get(block, 0) + 1
        self.take(blocks - hits)
        return hits

    def take(self, blocks: int) -> None:
        """Take private blocks, which must be available."""
        assert blocks <= self.available_blocks, "taken more KV blocks than there are"
        self._private += blocks
        for _ in range(len(self._idle) - self.available_blocks):
            block, _ = self._idle.popitem(last=False)
            if self._on_evict is not None:
                self._on_evict(block)

    def share(self, chain: Sequence[int]) -> list[int]:
        """Give ids to private blocks of one holder, so that others find them.

        Returns:
            The ids that took; one that is cached already stays with the block it has.
        """
        taken = [block for block in chain if block not in self._holders and block not in self._idle]
        for block in taken:
            self._holders[block] = 1
        self._private -= len(taken)
        return taken

    def release(self, held: Sequence[int], private: int, cacheable: Sequence[int] = ()) -> None:
        """Give back what a call holds.

        Args:
            held: ids that the call holds.
            private: blocks without an id that it holds.
            cacheable: ids of some of the private blocks, whose content stays cached.
        """
        self._private -= private
        for block in reversed(cacheable):
            if block not in self._holders and block not in self._idle:
                self._idle[block] = None
        for block in reversed(held):
            left = self._holders[block] - 1
            if left:
                self._holders[block] = left
            else:
                del self._holders[block]
                self._idle[block] = None
