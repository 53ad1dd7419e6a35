"""The queue of an engine: by priority, then first come, first served."""

from bisect import bisect_right
from collections import deque

from scepsy.policy.retain import Retention
from scepsy.sim.sequence import Sequence


class WaitingQueue(deque[Sequence]):
    """Sequences that wait to be scheduled; the first one is next."""

    def __init__(self, retention: Retention) -> None:
        """Nothing waits; whoever comes is told to what decides on KV blocks."""
        super().__init__()
        self._retention = retention

    def add(self, sequence: Sequence) -> None:
        """Behind all that wait with the same priority or a lower number."""
        call = sequence.call
        self._retention.arrived(sequence.arrived_s, call.program, sequence.chain)
        if not self or self[-1].call.priority <= call.priority:
            self.append(sequence)
        else:
            self.insert(bisect_right(self, call.priority, key=_priority), sequence)

    def put_back(self, now_s: float, sequence: Sequence) -> None:
        """One that was preempted: before all others."""
        self._retention.arrived(now_s, sequence.call.program, sequence.chain)
        self.appendleft(sequence)

    def withdraw(self, now_s: float, sequence: Sequence) -> None:
        """One that waits no longer."""
        self.remove(sequence)
        self._retention.ended(now_s, sequence.call.program, sequence.call.kind, ())


def _priority(sequence: Sequence) -> float:
    return sequence.call.priority
