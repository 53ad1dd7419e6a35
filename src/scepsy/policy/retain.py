"""Which KV blocks that nobody holds go first when room is needed.

A retention policy is one object for each engine. The engine's block pool tells it what calls come
and end, which cached blocks nobody holds any more, and which of them are held again; it names the
block to forget next. It sees what an engine's scheduler and its gateway can know, never the future
(but for Belady's optimum, a yardstick). The simulator's cache and a real engine's block pool can
ask the same object.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable


class Retention(Protocol):
    """Cached blocks that nobody holds, in some order of eviction. Instants must not run back."""

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """A program's call has come, and will use a chain of blocks when it is scheduled.

        Args:
            now_s: on the caller's clock, as in all methods.
            program: whose next call extends this one, e.g. an agent of an execution; may be empty.
            chain: ids of the blocks that it could find in the cache, from the first on.
        """
        ...

    def scheduled(self, now_s: float, program: str) -> None:
        """A call that had come holds its blocks from now on."""
        ...

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """A call has left the engine, and is about to let go of its blocks.

        Args:
            now_s: when.
            program: as in ``arrived``.
            kind: what the wait for its next call depends on, e.g. why it stopped.
            chain: ids of its blocks that are cached, its answer's included.
        """
        ...

    def over(self, now_s: float, program: str) -> None:
        """A program is known to call no more, where somebody says so."""
        ...

    def keep(self, blocks: Sequence[int]) -> None:
        """Nobody holds these cached blocks any more. Of a chain, the last comes first."""
        ...

    def wake(self, blocks: Sequence[int]) -> None:
        """Blocks that were kept are held again."""
        ...

    def evict(self, now_s: float) -> int:
        """Forget one of the blocks that are kept, of which there must be one, and give it."""
        ...

    def __len__(self) -> int:
        """Blocks that are kept."""
        ...

    def __contains__(self, block: object) -> bool:
        """Whether a block is kept."""
        ...


@runtime_checkable
class InTiers(Protocol):
    """A policy that may also say what host memory keeps of what the GPU had to forget."""

    below: Retention | None
    """For blocks in host memory; the policy itself tells it what ended."""


def below(retention: Retention | None) -> Retention | None:
    """For host memory, where a policy has one for that."""
    return retention.below if isinstance(retention, InTiers) else None


MakeRetention = Callable[[], Retention]


class Lru(OrderedDict[int, None]):
    """Those unused for longest first, and of one call's blocks the last first, as in vLLM.

    In a cache of chains every use of a block is a use of all before it. So this is also the order
    of a radix tree that takes the leaf unused for longest.
    """

    # Taking the first of a plain dict would cost more each time, as it steps over all that were
    # taken before.

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """What waits is not counted as used."""

    def scheduled(self, now_s: float, program: str) -> None:
        """Blocks count when they are let go of."""

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """Whose blocks they are does not matter."""

    def over(self, now_s: float, program: str) -> None:
        """Nor whether they come back."""

    def keep(self, blocks: Sequence[int]) -> None:
        """They were used last."""
        for block in blocks:
            self[block] = None

    def wake(self, blocks: Sequence[int]) -> None:
        """They are not to be forgotten while they are held."""
        for block in blocks:
            del self[block]

    def evict(self, now_s: float) -> int:
        """The one that was kept first."""
        return self.popitem(last=False)[0]
