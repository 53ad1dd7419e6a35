"""KV blocks of one engine: who holds how many, and which prefixes can be used again.

Blocks are counted, not named, unless their content has an id. A block with an id can be shared by
calls with the same prefix, and stays cached when its last holder leaves, until its room is needed:
a retention policy says which goes first.
"""

from collections.abc import Callable, Sequence

from scepsy.policy.retain import Lru, Retention
from scepsy.sim.engine_call import EngineCall


class KvCache:
    """A fixed number of blocks, each free, private to one call, or cached under an id."""

    def __init__(
        self,
        blocks: int,
        on_evict: Callable[[int], None] | None = None,
        retention: Retention | None = None,
    ) -> None:
        """All free.

        Args:
            blocks: how many there are.
            on_evict: told of each id that is forgotten.
            retention: of the cached blocks that nobody holds; LRU, as in vLLM, where it is None.
        """
        self.blocks = blocks
        self.available_blocks = blocks
        """That can be taken, some of them by forgetting a cached prefix."""
        self.now_s = 0.0
        """The instant of what is done to it next."""
        self._on_evict = on_evict
        self._holders: dict[int, int] = {}
        self._idle: Retention = Lru() if retention is None else retention

    @property
    def used_blocks(self) -> int:
        """Blocks that calls hold; cached blocks that nobody holds are not among them."""
        return self.blocks - self.available_blocks

    @property
    def retention(self) -> Retention:
        """Of the cached blocks that nobody holds."""
        return self._idle

    @property
    def idle_blocks(self) -> int:
        """Cached blocks that nobody holds."""
        return len(self._idle)

    def hold(self, chain: Sequence[int], blocks: int, program: str = "") -> int | None:
        """Hold ``blocks`` for a program's call, as many as possible from its chain's start.

        Returns:
            How many ids of the chain were cached and are now held; the other blocks are private.
            None, with nothing changed, when so many blocks are not available.
        """
        holders, idle = self._holders, self._idle
        woken: list[int] = []
        shared: list[int] = []
        for block in chain:
            if block in idle:
                woken.append(block)
            elif block in holders:
                shared.append(block)
            else:
                break
        private = blocks - len(shared) - len(woken)
        if private + len(woken) > self.available_blocks:
            return None
        idle.scheduled(self.now_s, program)
        if woken:
            idle.wake(woken)
            self.available_blocks -= len(woken)
            for block in woken:
                holders[block] = 1
        for block in shared:
            holders[block] += 1
        self.take(private)
        return len(shared) + len(woken)

    def take(self, blocks: int) -> None:
        """Take private blocks, which must be available."""
        left = self.available_blocks = self.available_blocks - blocks
        assert left >= 0, "taken more KV blocks than there are"
        over = len(self._idle) - left
        if over > 0:
            evict, now_s = self._idle.evict, self.now_s
            for _ in range(over):
                block = evict(now_s)
                if self._on_evict is not None:
                    self._on_evict(block)

    def share(self, chain: Sequence[int]) -> list[int]:
        """Give ids to private blocks of one holder, so that others find them.

        Returns:
            The ids that took; one that is cached already stays with the block it has.
        """
        holders, idle = self._holders, self._idle
        taken = [block for block in chain if block not in holders and block not in idle]
        for block in taken:
            holders[block] = 1
        return taken

    def release(
        self,
        held: Sequence[int],
        private: int,
        cacheable: Sequence[int] = (),
        call: EngineCall | None = None,
    ) -> None:
        """Give back what a call holds.

        Args:
            held: ids that the call holds.
            private: blocks without an id that it holds.
            cacheable: ids of some of the private blocks, whose content stays cached.
            call: the call itself, where that is known.
        """
        holders, idle = self._holders, self._idle
        if call is not None:
            idle.ended(self.now_s, call.program, call.kind, (*held, *cacheable))
        unheld = [b for b in reversed(cacheable) if b not in holders and b not in idle]
        private -= len(unheld)
        for block in reversed(held):
            left = holders.pop(block) - 1
            if left:
                holders[block] = left
            else:
                unheld.append(block)
        self.available_blocks += private + len(unheld)
        idle.keep(unheld)
