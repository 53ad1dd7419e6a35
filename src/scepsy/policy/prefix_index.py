"""Which prefix blocks each replica is thought to hold: a router's guess, bounded in memory."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from scepsy.model.execution import ReplicaName

MOST_HITS = 32
"""Replicas that are told of one prompt. A short prefix may be on every one, and a decision must not
take longer for that."""
BLOCKS_PER_REPLICA = 65_536
"""At 64 tokens a block, 4 million tokens: more than any engine holds. About 10 MB a replica."""


class PrefixIndex:
    """For each block, the replicas that had it last; of a replica, the blocks it used last.

    A set of replicas is the bits of one integer, so that to follow a prompt's blocks costs one
    look-up and one AND for each, however many replicas there are.
    """

    def __init__(self, blocks_per_replica: int = BLOCKS_PER_REPLICA) -> None:
        self._room = blocks_per_replica
        self._holders: dict[int, int] = {}
        self._used: dict[ReplicaName, OrderedDict[int, None]] = {}
        self._bit: dict[ReplicaName, int] = {}
        self._name: list[ReplicaName] = []

    def hits(self, blocks: Sequence[int], most: int = MOST_HITS) -> Mapping[ReplicaName, int]:
        """How many of the blocks, from the first on, replicas hold.

        Args:
            blocks: of one prompt.
            most: replicas at most, those that hold more of it first.
        """
        left: list[tuple[int, int]] = []  # how many blocks, and who holds just so many
        before, holders = 0, self._holders
        for depth, block in enumerate(blocks):
            now = holders.get(block, 0)
            if depth:
                now &= before
                if now != before:
                    left.append((depth, before & ~now))
            before = now
            if not now:
                break
        else:
            left.append((len(blocks), before))
        found: dict[ReplicaName, int] = {}
        for depth, these in reversed(left):
            bits = these
            while bits and len(found) < most:
                lowest = bits & -bits
                found[self._name[lowest.bit_length() - 1]] = depth
                bits ^= lowest
        return found

    def saw(self, name: ReplicaName, blocks: Sequence[int]) -> None:
        """A replica has, or will soon have, these blocks of one prompt."""
        bit = self._bit.get(name)
        if bit is None:
            bit = self._bit[name] = 1 << len(self._name)
            self._name.append(name)
        used = self._used.setdefault(name, OrderedDict())
        holders = self._holders
        for block in reversed(blocks):  # so that of one prompt the last block goes first
            if block in used:
                used.move_to_end(block)
            else:
                used[block] = None
                holders[block] = holders.get(block, 0) | bit
        over = len(used) - self._room
        if over > 0:
            self._drop([used.popitem(last=False)[0] for _ in range(over)], bit)

    def forget(self, name: ReplicaName) -> None:
        """A replica has lost all its blocks."""
        used = self._used.pop(name, None)
        if used is not None:
            self._drop(used, self._bit[name])

    def _drop(self, blocks: Iterable[int], bit: int) -> None:
        holders = self._holders
        for block in blocks:
            left = holders[block] & ~bit
            if left:
                holders[block] = left
            else:
                del holders[block]
