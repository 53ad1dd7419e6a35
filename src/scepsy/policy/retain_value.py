"""Keep what saves most recompute seconds per byte-second held.

A program, e.g. an agent of an execution, has a value: the seconds that recomputing one of its
blocks takes, times the chance per second held that its next call comes. A block is worth the sum
over the programs that would use it, so a shared prefix counts once, with all of them. The block
worth least goes first: of equal ones the last of its chain, which trims a program to a prefix.

Blocks that the same programs use form a group, and only groups are compared. A program's value
changes when one of its calls comes or ends, and as it waits, at ages that grow by a constant
factor. So a decision costs no more with more blocks, and a logarithm with more programs.
"""

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count

from scepsy.policy.retain_return import AGES_S, EmpiricalReturns, ReturnTime, ReturnTimes, density

_SCALE = 2**40
"""Values are whole numbers, so that sums are exact and a block is never worth less than one that
follows it, whatever came and went."""
_QUEUED = 2**80
"""More than any chance is worth: the blocks of a call that waits in the engine's queue will be
used before those of any call that has not come yet, and those of the first in the queue first."""
_ASSUMED_QUEUE_S, _LEAST_QUEUE_S, _QUEUE_WEIGHT = 1.0, 0.1, 0.05
"""Wait in the engine's queue before any was seen, the least that is told apart, and how much each
one moves the mean."""
_LOOKS = 4
"""Programs whose value is looked at again before a choice, at most: what a choice costs is bounded,
and where more are due than choices are made, some values are older than they should be."""
_LEAST_HEAP, _STALE = 64, 4
"""The heap is rid of outdated entries when it has four times as many as hold."""


class _Program:
    """Whoever calls again and again."""

    __slots__ = (
        "arrived_s", "blocks", "calls", "groups", "name", "own", "returns", "since_s", "turn",
        "value",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0  # in the engine
        self.groups: set[_Group] = set()
        self.own: _Group | None = None  # what only it uses, where it still does
        self.returns: ReturnTime | None = None  # None while it has a call in the engine
        self.since_s = 0.0  # since when its next call is waited for
        self.arrived_s = 0.0  # when its last call came
        self.blocks = 0  # of its last chain
        self.value = 0
        self.turn = 0  # counts its timers; only the last one holds


class _Group:
    """Cached blocks that the same programs would use."""

    __slots__ = ("depth", "idle", "size", "users", "value", "version")

    def __init__(self, depth: int) -> None:
        self.users: set[_Program] = set()
        self.idle: OrderedDict[int, None] = OrderedDict()  # the first goes first
        self.size = 0  # blocks, also those that are held
        self.value = 0  # of all its users
        self.depth = depth  # in a chain, of one of its blocks
        self.version = 0  # counts its entries in the heap; only the last one holds


class RecomputeCost:
    """Seconds to compute a block of a prompt again: so many, and more for each block before it."""

    def __init__(self, block_s: float = 1.0, per_block_before_s: float = 0.0) -> None:
        self.block_s, self.per_block_before_s = block_s, per_block_before_s

    def mean_s(self, blocks: int) -> float:
        """For a block of a chain of so many."""
        return self.block_s + self.per_block_before_s * max(0, blocks - 1) / 2


class ByValue(dict[int, _Group]):
    """Recompute seconds saved per byte-second held. See ``Retention``.

    As a mapping: the blocks that are kept, each with its group.
    """

    def __init__(
        self, returns: ReturnTimes | None = None, cost: RecomputeCost | None = None
    ) -> None:
        """Nothing is kept.

        Args:
            returns: when programs come back; learned from what happens where it is None.
            cost: of recomputing; the same for all blocks where it is None.
        """
        super().__init__()
        self._returns: ReturnTimes = EmpiricalReturns() if returns is None else returns
        self._cost = cost or RecomputeCost()
        self._programs: dict[str, _Program] = {}
        self._group_of: dict[int, _Group] = {}  # also of blocks that are held
        self._orphans = _Group(0)  # never has a user
        self._heap: list[tuple[int, int, int, int, _Group]] = []
        self._heap_limit = _LEAST_HEAP
        self._timers: list[tuple[float, int, int, int, _Program]] = []
        self._serial = count()
        self._queue_s = _ASSUMED_QUEUE_S

    # ---- What the engine tells

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """Its blocks are wanted as soon as it is scheduled."""
        if not program:
            return
        self._returns.arrived(now_s, program)
        found = self._programs.setdefault(program, _Program(program))
        found.arrived_s, found.returns = now_s, None
        found.calls += 1
        found.turn += 1
        self._use(found, chain)
        self._revalue(found, _QUEUED - next(self._serial))

    def scheduled(self, now_s: float, program: str) -> None:
        """How long calls wait in the engine's queue."""
        found = self._programs.get(program)
        if found is not None:
            waited_s = max(_LEAST_QUEUE_S, now_s - found.arrived_s)
            self._queue_s += _QUEUE_WEIGHT * (waited_s - self._queue_s)

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """From now on its next call is waited for."""
        if not program:
            return
        found = self._programs.setdefault(program, _Program(program))
        found.calls = max(0, found.calls - 1)
        self._use(found, chain)
        self._own(found, chain)
        if not found.calls:
            found.since_s, found.returns = now_s, self._returns.ended(now_s, program, kind)
            self._look(now_s, found, 0)

    def over(self, now_s: float, program: str) -> None:
        """What only it would use is worth nothing."""
        found = self._programs.pop(program, None)
        if found is not None:
            found.turn += 1
            for group in tuple(found.groups):
                self._leave(group, found)
        self._returns.over(now_s, program)

    def keep(self, blocks: Sequence[int]) -> None:
        """They take their place in their groups."""
        grown: set[_Group] = set()
        for block in blocks:
            group = self._group_of.get(block)
            if group is None:
                group = self._group_of[block] = self._orphans
                group.size += 1
            group.idle[block] = None
            self[block] = group
            grown.add(group)
        for group in grown:
            self._rank(group)

    def wake(self, blocks: Sequence[int]) -> None:
        """They leave the order of eviction, not their groups."""
        for block in blocks:
            del self.pop(block).idle[block]

    def evict(self, now_s: float) -> int:
        """The last block of the group that is worth least now."""
        timers = self._timers
        for _ in range(_LOOKS):
            if not timers or timers[0][0] > now_s:
                break
            _, _, turn, age, program = heappop(timers)
            if turn == program.turn:
                self._look(now_s, program, age + 1)
        heap = self._heap
        while True:
            _, _, _, version, group = heap[0]
            if version == group.version and group.idle:
                break
            heappop(heap)
        block = group.idle.popitem(last=False)[0]
        del self[block], self._group_of[block]
        group.size -= 1
        if not group.size:
            self._forget(group)
        return block

    # ---- Groups: a partition of the cached blocks that every chain refines

    def _use(self, program: _Program, chain: Sequence[int]) -> None:
        """Say which cached blocks a program would use: those of the chain, and no others."""
        program.blocks = len(chain)
        found = Counter(map(self._group_of.get, chain))
        for left in program.groups.difference(found):
            self._leave(left, program)
        for group, blocks in found.items():
            if group is None:
                continue
            if blocks == group.size and group is not self._orphans:
                self._join(group, program)
            elif program not in group.users:
                self._join(self._split(group, chain), program)
            else:
                self._split(group, chain)
                self._leave(group, program)

    def _own(self, program: _Program, chain: Sequence[int]) -> None:
        """Blocks that are cached since this call are the program's alone."""
        group_of = self._group_of
        own = program.own
        fresh = [at for at, block in enumerate(chain) if block not in group_of]
        if not fresh:
            return
        if own is None or not own.size or own.users != {program}:
            own = program.own = _Group(fresh[0])
            self._join(own, program)
        for at in fresh:
            group_of[chain[at]] = own
        own.size += len(fresh)

    def _split(self, group: _Group, chain: Sequence[int]) -> _Group:
        """Move those of a group's blocks that a chain has into a new one with the same users."""
        group_of = self._group_of
        inside = [at for at, block in enumerate(chain) if group_of.get(block) is group]
        new = _Group(inside[0])
        for at in reversed(inside):
            block = chain[at]
            group_of[block] = new
            if block in group.idle:
                del group.idle[block]
                new.idle[block] = None
                self[block] = new
        group.size -= len(inside)
        group.depth += len(inside)
        new.size = len(inside)
        for user in group.users:
            self._join(new, user)
        self._rank(new)
        if not group.size:
            self._forget(group)
        return new

    def _join(self, group: _Group, program: _Program) -> None:
        if program not in group.users:
            group.users.add(program)
            program.groups.add(group)
            group.value += program.value
            self._rank(group)

    def _leave(self, group: _Group, program: _Program) -> None:
        if program in group.users:
            group.users.remove(program)
            program.groups.remove(group)
            group.value -= program.value
            self._rank(group)

    def _forget(self, group: _Group) -> None:
        """A group has no blocks left."""
        if group is self._orphans:
            return
        group.version += 1
        for user in group.users:
            user.groups.remove(group)
        group.users.clear()

    # ---- Values

    def _look(self, now_s: float, program: _Program, age: int) -> None:
        """Value a program that waits and is of an age at least, and say when to look again."""
        assert program.returns is not None
        if not program.groups:
            del self._programs[program.name]
            return
        chance_per_s = density(program.returns, now_s, self._queue_s)
        self._revalue(program, round(_SCALE * chance_per_s * self._cost.mean_s(program.blocks)))
        program.turn += 1
        age = max(age, bisect_right(AGES_S, now_s - program.since_s) - 1)
        if age + 1 < len(AGES_S):
            due_s = program.since_s + AGES_S[age + 1]
            entry = (due_s, next(self._serial), program.turn, age, program)
            heappush(self._timers, entry)

    def _revalue(self, program: _Program, value: int) -> None:
        change = value - program.value
        program.value = value
        if change:
            for group in program.groups:
                group.value += change
                self._rank(group)

    def _rank(self, group: _Group) -> None:
        group.version += 1
        if not group.idle:
            return
        entry = (group.value, -group.depth, next(self._serial), group.version, group)
        heappush(self._heap, entry)
        if len(self._heap) > self._heap_limit:
            self._heap = [e for e in self._heap if e[3] == e[4].version and e[4].idle]
            heapify(self._heap)
            self._heap_limit = max(_LEAST_HEAP, _STALE * len(self._heap))
