"""For how long calls may be passed over, and who has been for longest beyond that.

The bound of a call is set when it comes: a multiple of what it takes to serve in turn all that
wait, nothing of them cached.
"""

from heapq import heappop, heappush

from scepsy.policy.dispatch_call import Waiting
from scepsy.policy.dispatch_settings import Settings


class Bounds:
    """Of the calls that wait."""

    def __init__(self, settings: Settings) -> None:
        """None waits."""
        self._settings = settings
        self._due: list[tuple[float, int, Waiting]] = []  # a heap, also of calls that have left
        self._backlog_s = 0.0  # to compute the prompts of all that wait

    def bound_s(self, replicas: int, *, of_many: bool = False) -> float:
        """After so long nobody passes a call that comes now at the door (s)."""
        turn_s = self._backlog_s / max(1, replicas)
        ratio = self._settings.many_ratio if of_many else 1.0
        return self._settings.least_bound_s + self._settings.patience * ratio * turn_s

    def add(self, now_s: float, call: Waiting, replicas: int, *, of_many: bool = False) -> None:
        """A call has come, of which it is known how long its prompt takes.

        Args:
            now_s: when.
            call: which.
            replicas: that share the work.
            of_many: whether its execution should have many.
        """
        call.turn_s = call.cold_s
        self._backlog_s += call.turn_s
        call.due_s = now_s + self.bound_s(replicas, of_many=of_many)
        heappush(self._due, (call.due_s, call.serial, call))

    def leave(self, call: Waiting, *, is_last: bool) -> None:
        """It waits no longer, and maybe nobody else does."""
        call.is_waiting = False
        self._backlog_s = 0.0 if is_last else self._backlog_s - call.turn_s

    def first(self) -> Waiting:
        """Who is due first of those that wait: there must be one."""
        due = self._due
        while not due[0][2].is_waiting:
            heappop(due)
        return due[0][2]

    def hard_s(self, call: Waiting) -> float:
        """When it goes before all others, whatever that costs."""
        return call.arrived_s + self._settings.revoke_ratio * (call.due_s - call.arrived_s)
