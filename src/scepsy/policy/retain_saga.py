"""WA-LRU and TTL as published in SAGA (arXiv 2605.00528), a yardstick.

The unit is a program's whole cache. Of those whose time to live is over, and then of all others,
the one with the largest ``0.3 R + 0.5 (1 - P) + 0.2 S`` goes: R is the time since its last use
and S its size, each over the largest such, and P the chance of reuse. All are compared at each
choice, as R and S are relative to what else there is.

``docs/concepts/retention.md`` says what the publication leaves open.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, log, sqrt

RECENCY, NO_REUSE, SIZE = 0.3, 0.5, 0.2
"""Weights of the score."""
TTL_MAX_S = 300.0
_P95 = 1.6448536269514722
"""Standard deviations above the mean of a normal distribution."""
_COLD_CALLS = 30
"""The values below count as so many waits: the publication's number of tasks before it learns."""


class ToolClass(Enum):
    """Published times of a class of tools before any was seen: p50 and p95 (s)."""

    CODE = (0.180, 2.4)
    FILE = (0.045, 0.320)
    WEB = (0.850, 4.5)
    DATABASE = (0.120, 0.890)


class _Latency:
    """A log-normal distribution, from the class's published values on."""

    def __init__(self, tool: ToolClass) -> None:
        p50_s, p95_s = tool.value
        mean, deviation = log(p50_s), log(p95_s / p50_s) / _P95
        self._count = float(_COLD_CALLS)
        self._sum = self._count * mean
        self._squares = self._count * (mean**2 + deviation**2)

    def saw(self, wait_s: float) -> None:
        value = log(max(1e-3, wait_s))
        self._count += 1
        self._sum += value
        self._squares += value**2

    @property
    def p95_s(self) -> float:
        mean = self._sum / self._count
        return exp(mean + _P95 * sqrt(max(0.0, self._squares / self._count - mean**2)))


class _Kind:
    """What is known of the calls of one kind."""

    def __init__(self, tool: ToolClass) -> None:
        self.latency = _Latency(tool)
        self.ended = self.returned = 1  # so that all are thought to return at first
        self.new_blocks = 0


@dataclass(slots=True, eq=False)
class _Program:
    """A session, whose blocks are those that it was the last to use."""

    kind: _Kind
    idle: OrderedDict[int, None]
    blocks: int = 0
    used_s: float = 0.0
    expires_s: float = 0.0


class WaLruTtl(dict[int, _Program]):
    """See the module. As a mapping: the blocks that are kept, and who used each last."""

    def __init__(self, blocks: int, tools: Mapping[str, ToolClass] | None = None) -> None:
        """Nothing is kept.

        Args:
            blocks: that the cache has in all.
            tools: the class of a kind of wait; those that are not in it are ``CODE``.
        """
        super().__init__()
        self._blocks = blocks
        self._tools = tools or {}
        self._kinds: dict[str, _Kind] = {}
        self._programs: dict[str, _Program] = {}
        self._last = _Program(self._kind(""), OrderedDict())
        self._victim: tuple[_Program | None, float] = None, 0.0

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """Its wait was that long, and its prompt grew by so much."""
        found = self._programs.get(program)
        if found is not None and found.blocks:
            found.kind.latency.saw(now_s - found.used_s)
            found.kind.returned += 1
            found.kind.new_blocks += max(0, len(chain) - found.blocks)

    def scheduled(self, now_s: float, program: str) -> None:
        """Nothing is known of queues."""

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """The time to live begins; the fuller the cache, the shorter it is."""
        found = self._programs.get(program)
        if found is None:
            found = self._programs[program] = _Program(self._kind(kind), OrderedDict())
        found.kind = self._kind(kind)
        found.kind.ended += 1
        found.blocks, found.used_s = len(chain), now_s
        used = min(1.0, (len(self) + len(chain)) / self._blocks)
        pressure = min(1.0, max(0.0, (used - 0.7) / 0.2))
        ttl_s = min(found.kind.latency.p95_s * (1.0 - 0.5 * pressure), TTL_MAX_S)
        found.expires_s = now_s + ttl_s
        self._last = found

    def over(self, now_s: float, program: str) -> None:
        """As published, only its time to live ends it."""

    def keep(self, blocks: Sequence[int]) -> None:
        """They are the last caller's."""
        for block in blocks:
            self[block] = self._last
            self._last.idle[block] = None

    def wake(self, blocks: Sequence[int]) -> None:
        """They are nobody's while they are held."""
        for block in blocks:
            del self.pop(block).idle[block]

    def evict(self, now_s: float) -> int:
        """The last block of the program with the largest score."""
        victim, at_s = self._victim
        if victim is None or at_s != now_s or not victim.idle:
            victim = self._choose(now_s)
            self._victim = victim, now_s
        block = victim.idle.popitem(last=False)[0]
        del self[block]
        return block

    def _choose(self, now_s: float) -> _Program:
        held = [each for each in (self._last, *self._programs.values()) if each.idle]
        longest_s = max(now_s - each.used_s for each in held) or 1.0
        largest = max(len(each.idle) for each in held)

        def score(each: _Program) -> tuple[bool, float]:
            recency = (now_s - each.used_s) / longest_s
            size = len(each.idle) / largest
            total = RECENCY * recency + NO_REUSE * (1.0 - self._reuse(each)) + SIZE * size
            return each.expires_s <= now_s, total

        return max(held, key=score)

    def _reuse(self, program: _Program) -> float:
        """Chance that it returns, times the part of its next prompt that would be cached."""
        kind = program.kind
        new_blocks = kind.new_blocks / kind.returned
        overlap = len(program.idle) / (len(program.idle) + new_blocks)
        return kind.returned / kind.ended * overlap

    def _kind(self, name: str) -> _Kind:
        return self._kinds.setdefault(name, _Kind(self._tools.get(name, ToolClass.CODE)))
