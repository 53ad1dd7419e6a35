"""vLLM's list of free KV blocks, from which a retention policy takes those that are cached.

The list itself stays vLLM's, whole and in vLLM's order, so that giving the policy up at any moment
leaves vLLM as it is without us.
"""

from collections.abc import Iterable, Sequence
from time import thread_time
from typing import Any, Protocol


class Block(Protocol):
    """A KV block, as far as it matters here."""

    block_id: int
    ref_cnt: int
    next_free_block: Any

    @property
    def block_hash(self) -> object | None:
        """None unless the block is cached."""
        ...


class FreeList(Protocol):
    """vLLM's doubly linked list; the first goes first."""

    num_free_blocks: int
    fake_free_list_head: Any

    def popleft(self) -> Any: ...  # noqa: D102
    def remove(self, block: Any) -> None: ...  # noqa: D102
    def append_n(self, blocks: list[Any]) -> None: ...  # noqa: D102
    def prepend_n(self, blocks: list[Any]) -> None: ...  # noqa: D102


class Order(Protocol):
    """Which of the cached blocks goes first. Nothing here raises."""

    def keeps(self, block: int) -> bool:
        """Whether it is for the policy to say when this block goes."""
        ...

    def keep(self, blocks: Sequence[int]) -> None:
        """Nobody holds these cached blocks any more."""
        ...

    def wake(self, block: int) -> None:
        """A block that was kept is held again."""
        ...

    def evict(self) -> int | None:
        """The one to go; None leaves it to vLLM."""
        ...

    def give_up(self, why: str) -> None:
        """Leave all to vLLM from now on."""
        ...


OWN_METHODS = frozenset({"popleft", "popleft_n", "remove", "append", "append_n", "prepend_n"})
"""Methods of vLLM's list that are replaced."""
READING_METHODS = frozenset({"get_all_free_blocks", "iter_blocks_after"})
"""Methods that only look at the list, in vLLM's order."""


class RetainedFreeList:
    """Stands where vLLM's list stood, and asks an order for the blocks that are cached.

    Blocks that are not cached go before those that are, as in vLLM.
    """

    def __init__(self, inner: FreeList, blocks: Sequence[Block], order: Order) -> None:
        """Take vLLM's list, all blocks of the pool by their id, and the order."""
        self._inner = inner
        self._blocks = blocks
        self._order = order
        self.evictions = 0
        """Blocks that the order chose so far."""
        self.taken_s = 0.0
        """CPU time that taking blocks took so far, those that are not cached included."""

    def __getattr__(self, name: str) -> Any:
        """All else is as vLLM has it."""
        return getattr(self._inner, name)

    @property
    def num_free_blocks(self) -> int:
        """Cached or not."""
        return self._inner.num_free_blocks

    def popleft(self) -> Any:
        """Take one.

        Raises:
            ValueError: there is none.
        """
        if not self._inner.num_free_blocks:
            return self._inner.popleft()  # raises as vLLM does
        return self._take()

    def popleft_n(self, n: int) -> list[Any]:
        """Take so many, of which there must be enough."""
        assert self._inner.num_free_blocks >= n
        start_s = thread_time()
        taken = [self._take() for _ in range(n)]
        self.taken_s += thread_time() - start_s
        return taken

    def remove(self, block: Block) -> None:
        """A free block is held again."""
        self._inner.remove(block)
        self._order.wake(block.block_id)

    def append(self, block: Block) -> None:
        """Nobody holds a block any more."""
        self.append_n([block])

    def append_n(self, blocks: list[Any]) -> None:
        """Nobody holds these any more, the first of which would go first."""
        self._inner.append_n(blocks)
        self._order.keep(_cached(blocks))

    def prepend_n(self, blocks: list[Any]) -> None:
        """Blocks that are not cached: they go before all others."""
        self._inner.prepend_n(blocks)

    def _take(self) -> Any:
        inner, order = self._inner, self._order
        if not order.keeps(inner.fake_free_list_head.next_free_block.block_id):
            return inner.popleft()
        chosen = order.evict()
        if chosen is None:
            return inner.popleft()
        block = self._blocks[chosen]
        if block.ref_cnt or block.next_free_block is None:
            order.give_up(f"block {chosen} was chosen, which is not free")
            return inner.popleft()
        inner.remove(block)
        self.evictions += 1
        return block


def _cached(blocks: Iterable[Block]) -> list[int]:
    return [block.block_id for block in blocks if block.block_hash is not None]
