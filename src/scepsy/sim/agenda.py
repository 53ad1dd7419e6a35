"""Who has something to do next: members by the instants that they announced last."""

from heapq import heappop, heappush
from typing import Generic, TypeVar

from scepsy.model.execution import ReplicaName

_Member = TypeVar("_Member")
_INF = float("inf")


class Agenda(Generic[_Member]):
    """A heap in which what a member announced before it announced anew counts no more."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ReplicaName, _Member]] = []
        self._last: dict[ReplicaName, int] = {}
        """The entry of each member that holds."""
        self._serial = 0

    @property
    def next_s(self) -> float:
        """The least instant announced (s); infinite where there is none."""
        heap = self._heap
        while heap:
            at_s, serial, name, _ = heap[0]
            if self._last.get(name) == serial:
                return at_s
            heappop(heap)
        return _INF

    def take(self) -> _Member:
        """The member that ``next_s`` is of, which has announced nothing from now on."""
        _, _, name, member = heappop(self._heap)
        del self._last[name]
        return member

    def announce(self, name: ReplicaName, member: _Member, at_s: float) -> None:
        """A member has something to do at an instant, and no sooner; infinite: nothing."""
        serial = self._serial = self._serial + 1
        self._last[name] = serial
        if at_s < _INF:
            heappush(self._heap, (at_s, serial, name, member))

    def leave(self, name: ReplicaName) -> None:
        """A member is gone, with what it announced."""
        self._last.pop(name, None)
