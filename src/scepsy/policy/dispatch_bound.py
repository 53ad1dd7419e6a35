"""For how long calls may be passed over, and who of a tenant has been for longest beyond that.

The bound of a call is set when it comes: a multiple of what it takes to serve in turn all that
wait, or its own tenant's calls in turn with the others' if that is less, nothing of them cached.
"""

from collections.abc import Callable, Collection
from heapq import heappop, heappush

from scepsy.policy.dispatch_call import DOOR, Waiting
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import TenantName


class _Own:
    """Of one tenant whose calls wait."""

    __slots__ = ("backlog_s", "calls", "due", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.calls = 0
        self.backlog_s = 0.0  # to compute the prompts of those
        self.due: list[tuple[float, int, Waiting]] = []  # a heap, also of calls that have left

    def first(self) -> Waiting:
        due = self.due
        while not due[0][2].is_waiting:
            heappop(due)
        return due[0][2]


class Bounds:
    """Of the calls that wait."""

    def __init__(self, settings: Settings) -> None:
        """None waits."""
        self._settings = settings
        self._tenants: dict[TenantName, _Own] = {}
        self._backlog_s = self._weight = 0.0  # of all tenants whose calls wait

    @property
    def tenants(self) -> Collection[TenantName]:
        """Those whose calls wait."""
        return self._tenants.keys()

    def add(self, now_s: float, call: Waiting, replicas: int, *, of_many: bool = False) -> None:
        """A call has come, of which it is known how long its prompt takes.

        Args:
            now_s: when.
            call: which.
            replicas: that share the work.
            of_many: whether its execution should have many.
        """
        settings = self._settings
        own = self._tenants.get(call.tenant)
        if own is None:
            own = self._tenants[call.tenant] = _Own(settings.weights.get(call.tenant, 1.0))
            self._weight += own.weight
        call.turn_s = call.cold_s
        own.calls += 1
        own.backlog_s += call.turn_s
        self._backlog_s += call.turn_s
        in_turn_s = min(self._backlog_s, own.backlog_s * (self._weight / own.weight))
        ratio = settings.patience * (settings.many_ratio if of_many else 1.0)
        bound_s = settings.least_bound_s + ratio * (in_turn_s / max(1, replicas))
        call.due_s = now_s + bound_s
        call.hard_s = call.arrived_s + settings.revoke_ratio * (call.due_s - call.arrived_s)
        heappush(own.due, (call.due_s, call.serial, call))

    def leave(self, call: Waiting, *, is_last: bool) -> None:
        """It waits no longer, and maybe nobody else does."""
        call.is_waiting = False
        own = self._tenants[call.tenant]
        own.calls -= 1
        own.backlog_s -= call.turn_s
        self._backlog_s = 0.0 if is_last else self._backlog_s - call.turn_s
        if not own.calls:
            del self._tenants[call.tenant]
            self._weight = 0.0 if is_last else self._weight - own.weight

    def first(self, tenant: TenantName) -> Waiting:
        """Who is due first of a tenant's calls that wait: there must be one."""
        return self._tenants[tenant].first()

    def first_of_least(self, served: Callable[[TenantName], float]) -> Waiting:
        """The same, of the tenant that was served least."""
        tenants = self._tenants
        return self.first(next(iter(tenants)) if len(tenants) == 1 else min(tenants, key=served))

    def due_at_door(self, tenant: TenantName, now_s: float) -> Waiting | None:
        """That one, if nobody may pass it at the door."""
        own = self._tenants.get(tenant)
        if own is None:
            return None
        first = own.first()
        return first if first.place is DOOR and now_s >= first.due_s else None

    def next_s(self, now_s: float) -> float:
        """When a call that is first of its tenant's is due, or more than that; infinite: never."""
        next_s = float("inf")
        for own in self._tenants.values():
            first = own.first()
            for at_s in (first.due_s, first.hard_s):
                if now_s < at_s < next_s:
                    next_s = at_s
        return next_s
