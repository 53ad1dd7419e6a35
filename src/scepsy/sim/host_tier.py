"""KV blocks in host memory: what a GPU's cache had to drop, until room is needed here too.

Blocks are written behind the engine's back, which costs it nothing. To bring them back takes the
link between host and GPU, one load after the other; the call waits for its load, the engine goes
on with others.
"""

from collections.abc import Sequence

from scepsy.policy.retain import Lru, Retention


class HostTier:
    """So many blocks; those unused for longest go first, or by a policy.

    Its instants must not run back.
    """

    def __init__(self, blocks: int, block_s: float, retention: Retention | None = None) -> None:
        """Nothing is kept yet.

        Args:
            blocks: room for so many; 0 keeps none.
            block_s: seconds that the link takes for one.
            retention: says which goes when there are too many; LRU, where it is None.
        """
        self.blocks = blocks
        """Room for so many."""
        self._block_s = block_s
        self._kept: Retention = Lru() if retention is None else retention
        self._now_s = float("-inf")
        self._free_s = float("-inf")
        self.loaded_blocks = 0
        """Since the start."""

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, block: int) -> None:
        """Keep a block that the GPU drops."""
        if not self.blocks:
            return
        if block in self._kept:
            self._kept.wake((block,))
        elif len(self._kept) == self.blocks:
            self._kept.evict(self._now_s)
        self._kept.keep((block,))

    def hits(self, chain: Sequence[int]) -> int:
        """How many of the blocks, from the first on, are kept."""
        kept = self._kept
        for at, block in enumerate(chain):
            if block not in kept:
                return at
        return len(chain)

    def load(self, now_s: float, chain: Sequence[int]) -> float:
        """Bring kept blocks back to the GPU; give when they are there (s). They stay kept here."""
        self._now_s = now_s
        self._kept.wake(chain)
        self._kept.keep(chain[::-1])
        self.loaded_blocks += len(chain)
        self._free_s = max(now_s, self._free_s) + len(chain) * self._block_s
        return self._free_s
