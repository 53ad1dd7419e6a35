"""Recorded sessions through one KV cache, without an engine: for benchmarks.retention.

A call holds its blocks for as long as it took when it was recorded, and the next one follows after
the recorded gap. Nothing of that depends on what the cache has forgotten, so that all policies see
the same order of uses, and the future is known.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from random import Random
from time import perf_counter_ns

from scepsy.policy.retain import Retention
from scepsy.policy.retain_value import RecomputeCost
from scepsy.sim.kv_cache import KvCache

NEVER = 1 << 60
_MASK, _ODD = (1 << 63) - 1, 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of a program."""

    gap_s: float
    """From the end of the one before it."""
    held_s: float
    chain: tuple[int, ...]
    blocks: int
    """That it holds, its answer's included."""
    kind: str
    """Why it stopped."""
    output_tokens: int = 0

    def copy(self, number: int, shared: int) -> "Turn":
        """The same with other ids, but for the first ``shared`` blocks."""
        salt = (number * _ODD) & _MASK
        ids = self.chain[:shared] + tuple([block ^ salt for block in self.chain[shared:]])
        return replace(self, chain=ids)


@dataclass(frozen=True, slots=True)
class Program:
    """An agent's calls, one after the other."""

    name: str
    turns: tuple[Turn, ...]
    shared: int = 0
    """Blocks that its calls begin with and other sessions have too."""

    @property
    def life_s(self) -> float:
        return sum(turn.gap_s + turn.held_s for turn in self.turns)

    @property
    def block_s(self) -> float:
        """Blocks times seconds, from each call's start to the next one's."""
        follows = [turn.gap_s for turn in self.turns[1:]] + [0.0]
        return sum(
            turn.blocks * (turn.held_s + gap_s)
            for turn, gap_s in zip(self.turns, follows, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What the cache is told, in this order."""

    at_s: float
    what: str
    """arrives, starts or ends"""
    name: str
    turn: Turn
    number: int
    """Of the call, by arrival."""
    is_last: bool = False
    """Whether the program ends with it."""


def live_programs(programs: Sequence[Program], cache_blocks: int, pressure: float) -> int:
    """So many at a time need ``pressure`` times the cache."""
    mean_blocks = sum(p.block_s for p in programs) / sum(p.life_s for p in programs)
    return max(1, round(pressure * cache_blocks / mean_blocks))


class _Agents:
    """Programs in a shuffled order, so many at a time, each calling again after its gap."""

    def __init__(self, programs: Sequence[Program], seed: int) -> None:
        self._rng = Random(seed)
        self._serial, self._numbers = count(), count()
        self._upcoming = _shuffled(programs, self._rng)
        self._events: list[tuple[float, int, str, _Call]] = []

    def begin(self, now_s: float, *, midway: bool = False) -> None:
        number, program = next(self._upcoming)
        turns = program.turns
        if midway:
            turns = turns[self._rng.randrange(len(turns)) :]
        copies = deque(turn.copy(number, program.shared) for turn in turns)
        self._arrive(
            now_s + self._rng.uniform(0, 60), f"{program.name}/{number}", copies.popleft(), copies
        )

    def follow(self, now_s: float, call: "_Call") -> None:
        if not call.turns:
            self.begin(now_s)
        else:
            turn = call.turns.popleft()
            self._arrive(now_s + turn.gap_s, call.name, turn, call.turns)

    def _arrive(self, at_s: float, name: str, turn: Turn, turns: deque[Turn]) -> None:
        self.add(at_s, "arrives", _Call(name, turn, turns, next(self._numbers)))

    def add(self, at_s: float, what: str, call: "_Call") -> None:
        heappush(self._events, (at_s, next(self._serial), what, call))

    def take(self) -> tuple[float, str, "_Call"]:
        at_s, _, what, call = heappop(self._events)
        return at_s, what, call


@dataclass(slots=True, eq=False)
class _Call:
    name: str
    turn: Turn
    turns: deque[Turn]
    """Those that follow."""
    number: int
    held: list[int] = field(default_factory=list)


def timeline(
    programs: Sequence[Program], *, live: int, cache_blocks: int, calls: int, seed: int
) -> list[Step]:
    """So many programs at a time, in a shuffled order, for so many calls in all."""
    agents = _Agents(programs, seed)
    for _ in range(live):
        agents.begin(0.0, midway=True)
    steps: list[Step] = []
    queue: deque[_Call] = deque()
    cache = KvCache(cache_blocks)
    ended = 0
    while ended < calls:
        at_s, what, call = agents.take()
        steps.append(Step(at_s, what, call.name, call.turn, call.number, not call.turns))
        if what == "arrives":
            queue.append(call)
        else:
            ended += 1
            cache.release(call.held, call.turn.blocks - len(call.held))
            agents.follow(at_s, call)
        while queue:
            call = queue[0]
            hits = cache.hold(call.turn.chain, call.turn.blocks)
            if hits is None:
                break
            queue.popleft()
            chain = call.turn.chain
            call.held = [*chain[:hits], *cache.share(chain[hits:])]
            steps.append(Step(at_s, "starts", call.name, call.turn, call.number))
            agents.add(at_s + call.turn.held_s, "ends", call)
    return steps


def _shuffled(programs: Sequence[Program], rng: Random) -> Iterator[tuple[int, Program]]:
    """In rounds, numbered from 1."""
    numbers = count(1)
    while True:
        order = list(programs)
        rng.shuffle(order)
        yield from ((next(numbers), program) for program in order)


def next_uses(steps: Sequence[Step]) -> list[tuple[int, ...]]:
    """For each start, in order: which start uses each block of its chain next."""
    starts = [step.turn.chain for step in steps if step.what == "starts"]
    upcoming: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for at in reversed(range(len(starts))):
        chain = starts[at]
        found.append(tuple([upcoming.get(block, NEVER) for block in chain]))
        upcoming.update(dict.fromkeys(chain, at))
    found.reverse()
    return found


class Oracle:
    """The next use of blocks, as the replay has come so far."""

    def __init__(self, uses: Sequence[tuple[int, ...]]) -> None:
        self._uses = uses
        self._next: dict[int, int] = {}

    def started(self, at: int, chain: Sequence[int]) -> None:
        self._next.update(zip(chain, self._uses[at], strict=True))

    def __call__(self, block: int) -> int:
        return self._next.get(block, NEVER)


@dataclass(slots=True)
class Misses:
    """What had to be computed, of the calls that count."""

    blocks: int = 0
    seconds: float = 0.0
    first_blocks: int = 0
    """Of those, never computed before."""
    first_seconds: float = 0.0
    asked_blocks: int = 0
    decision_ns: int = 0
    """In the policy, all calls."""
    decisions: int = 0
    """Blocks that it chose."""
    worst_ns: int = 0
    """For one choice."""


class Timed:
    """A policy whose choices are timed."""

    def __init__(self, policy: Retention, into: Misses) -> None:
        self._policy, self._into = policy, into
        for name in ("arrived", "scheduled", "ended", "over", "keep", "wake", "evict"):
            setattr(self, name, self._timed(getattr(policy, name), count_it=name == "evict"))

    def __len__(self) -> int:
        return len(self._policy)

    def __contains__(self, block: object) -> bool:
        return block in self._policy

    def _timed(self, method, *, count_it: bool):  # type: ignore[no-untyped-def]
        into = self._into

        def call(*args: object) -> object:
            begin = perf_counter_ns()
            result = method(*args)
            took = perf_counter_ns() - begin
            into.decision_ns += took
            if count_it:
                into.decisions += 1
                into.worst_ns = max(into.worst_ns, took)
            return result

        return call


def replay(
    steps: Sequence[Step],
    policy: Retention,
    *,
    cache_blocks: int,
    cost: RecomputeCost,
    skip: int,
    oracle: Oracle | None = None,
    timed: bool = False,
    told_ends: bool = False,
) -> Misses:
    """What a policy misses; the first ``skip`` calls to start are not counted."""
    misses = Misses()
    cache = KvCache(cache_blocks, None, Timed(policy, misses) if timed else policy)  # type: ignore[arg-type]
    retention = cache.retention
    seen: set[int] = set()
    held_by: dict[int, list[int]] = {}
    started = 0
    for step in steps:
        chain, turn = step.turn.chain, step.turn
        cache.now_s = step.at_s
        if step.what == "arrives":
            retention.arrived(step.at_s, step.name, chain)
        elif step.what == "ends":
            held = held_by.pop(step.number)
            retention.ended(step.at_s, step.name, turn.kind, held)
            cache.release(held, turn.blocks - len(held))
            if told_ends and step.is_last:
                retention.over(step.at_s, step.name)
        else:
            hits = cache.hold(chain, turn.blocks, step.name)
            assert hits is not None
            if oracle is not None:
                oracle.started(started, chain)
            held_by[step.number] = [*chain[:hits], *cache.share(chain[hits:])]
            if started >= skip:
                _count(misses, chain, hits, seen, cost)
            seen.update(chain)
            started += 1
    return misses


def _count(
    misses: Misses, chain: Sequence[int], hits: int, seen: set[int], cost: RecomputeCost
) -> None:
    known = hits
    while known < len(chain) and chain[known] in seen:
        known += 1
    size = len(chain)
    misses.asked_blocks += size
    misses.blocks += size - hits
    misses.first_blocks += size - known
    misses.seconds += size * cost.mean_s(size) - hits * cost.mean_s(hits)
    misses.first_seconds += size * cost.mean_s(size) - known * cost.mean_s(known)
