"""For how long calls may be passed over, and who has been for longest beyond that.

The bound of a call is set when it comes: a multiple of what it takes to serve in turn all that
wait, nothing of them cached. A few calls may then be let wait for longer: what is asked of the
99th percentile leaves one in a hundred, and where that is the first call of an execution of many,
it is nobody's context that is forgotten meanwhile.
"""

from heapq import heappop, heappush, heapreplace

from scepsy.policy.dispatch_call import Waiting
from scepsy.policy.dispatch_settings import Settings

_MOST_LATE = 16.0
"""Calls that may be let wait for longer at once, after a time in which none had to."""
_LONG_S = 60.0
"""Bounds from which on that is worth it: below, executions are hardly paused for others."""


class Bounds:
    """Of the calls that wait."""

    def __init__(self, settings: Settings) -> None:
        """None waits."""
        self._settings = settings
        self._due: list[tuple[float, int, Waiting]] = []  # a heap, also of calls that have left
        self._backlog_s = 0.0  # to compute the prompts of all that wait
        self._late = 0.0  # calls that may be let wait for longer

    def bound_s(self, replicas: int, *, of_many: bool = False) -> float:
        """After so long nobody passes a call that comes now at the door (s)."""
        turn_s = self._backlog_s / max(1, replicas)
        ratio = self._settings.many_ratio if of_many else 1.0
        return self._settings.least_bound_s + self._settings.patience * ratio * turn_s

    def add(self, now_s: float, call: Waiting, replicas: int, *, of_many: bool = False) -> None:
        """A call has come, of which it is known how long its prompt takes.

        Args:
            now_s: when.
            call: it may be let wait for longer if it says so.
            replicas: that share the work.
            of_many: whether its execution should have many.
        """
        call.turn_s = call.cold_s
        self._backlog_s += call.turn_s
        self._late = min(_MOST_LATE, self._late + self._settings.late_fraction)
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

    def let_wait(self, call: Waiting) -> bool:
        """Whether the first that is due may be passed over for longer; it is, from now on."""
        bound_s = call.due_s - call.arrived_s
        if not call.may_be_late or self._late < 1.0 or bound_s < _LONG_S:
            return False
        self._late -= 1.0
        call.may_be_late = False
        self._backlog_s -= call.turn_s  # it holds up nobody
        call.turn_s = 0.0
        call.due_s = call.arrived_s + self._settings.late_ratio * bound_s
        heapreplace(self._due, (call.due_s, call.serial, call))
        return True
