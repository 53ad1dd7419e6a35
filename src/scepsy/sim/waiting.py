"""The queue of an engine: by priority, then first come, first served."""

from bisect import bisect_right
from collections import deque

from scepsy.policy.retain import Retention
from scepsy.sim.sequence import Sequence


class WaitingQueue:
    """Sequences that wait to be scheduled."""

    def __init__(self, retention: Retention) -> None:
        """Nothing waits; whoever comes is told to what decides on KV blocks."""
        self._retention = retention
        self._queue: deque[Sequence] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def head(self) -> Sequence:
        """The one that is scheduled next; there must be one."""
        return self._queue[0]

    def add(self, sequence: Sequence) -> None:
        """Behind all that wait with the same priority or a lower number."""
        self._announce(sequence.arrived_s, sequence)
        queue, priority = self._queue, sequence.call.priority
        if not queue or queue[-1].call.priority <= priority:
            queue.append(sequence)
        else:
            queue.insert(bisect_right(queue, priority, key=_priority), sequence)

    def put_back(self, now_s: float, sequence: Sequence) -> None:
        """One that was preempted: before all others."""
        self._announce(now_s, sequence)
        self._queue.appendleft(sequence)

    def take(self) -> Sequence:
        """The head, which waits no longer."""
        return self._queue.popleft()

    def remove(self, now_s: float, sequence: Sequence) -> None:
        """One that was withdrawn."""
        self._queue.remove(sequence)
        self._retention.ended(now_s, sequence.call.program, sequence.call.kind, ())

    def _announce(self, now_s: float, sequence: Sequence) -> None:
        self._retention.arrived(now_s, sequence.call.program, sequence.chain)


def _priority(sequence: Sequence) -> float:
    return sequence.call.priority
