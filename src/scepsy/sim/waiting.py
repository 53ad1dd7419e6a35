"""The queue of an engine: by priority, then first come, first served."""

from bisect import bisect_right
from collections import deque

from scepsy.sim.sequence import Sequence


class WaitingQueue:
    """Sequences that wait to be scheduled."""

    def __init__(self) -> None:
        self._queue: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def head(self) -> Sequence:
        """The one that is scheduled next; there must be one."""
        return self._queue[0]

    def add(self, sequence: Sequence) -> None:
        """Behind all that wait with the same priority or a lower number."""
        queue, priority = self._queue, sequence.call.priority
        if not queue or queue[-1].call.priority <= priority:
            queue.append(sequence)
        else:
            queue.insert(bisect_right(queue, priority, key=_priority), sequence)

    def put_back(self, sequence: Sequence) -> None:
        """One that was preempted: before all others."""
        self._queue.appendleft(sequence)

    def take(self) -> Sequence:
        """The head, which waits no longer."""
        return self._queue.popleft()

    def remove(self, sequence: Sequence) -> None:
        """One that was withdrawn."""
        self._queue.remove(sequence)


def _priority(sequence: Sequence) -> float:
    return sequence.call.priority
