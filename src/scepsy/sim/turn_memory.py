"""Room for KV that engines share which take turns: whose leaves for host memory."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class KeepsKv(Protocol):
    """An engine that takes turns."""

    away: float
    """Of its KV in host memory, by the same measure as all sizes."""
    turn_s: float
    """When its last turn began."""

    @property
    def kv_size(self) -> float:
        """KV of its calls, wherever it is."""
        ...


_Engine = TypeVar("_Engine", bound=KeepsKv)


def make_room(
    engine: _Engine, room: float, engines: Iterable[_Engine]
) -> list[tuple[_Engine, float]]:
    """Let KV of others leave for an engine's turn, of the last turn first.

    Args:
        engine: whose turn it is; all its KV comes back.
        room: for KV of all.
        engines: all of them.

    Returns:
        Whose KV leaves, and how much of it.
    """
    engine.away = 0.0
    over = engine.kv_size - room
    there: list[tuple[_Engine, float]] = []
    for other in engines:
        if other is not engine:
            size = other.kv_size
            other.away = min(other.away, size)
            if size > other.away:
                there.append((other, size - other.away))
                over += size - other.away
    left: list[tuple[_Engine, float]] = []
    for other, size in sorted(there, key=_latest_turn) if over > 0 else ():
        leaves = max(0.0, min(over, size))
        other.away += leaves
        over -= leaves
        left.append((other, leaves))
    return left


def _latest_turn(there: tuple[KeepsKv, float]) -> float:
    return -there[0].turn_s
