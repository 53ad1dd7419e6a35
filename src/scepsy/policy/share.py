"""In which order calls wait: tenants by shares, levels of expected work, deadlines, then arrival.

Of the tenants whose calls wait, the one goes first that was served least for its weight; who was
idle for a while has saved up nothing, and who was never seen goes behind all that wait: else ever
new tenants would keep out one. So what tenants have had since both wait differs by at most twice
what one of them may have under way, a call more included, however many calls they have.

Of one tenant's calls, those of the lowest level go first, and of those who must begin soonest to be
in time. Who cannot be any more has lost that place.
"""

from collections.abc import Collection, Mapping
from heapq import heappop, heappush, heapreplace
from typing import Generic, TypeVar

from scepsy.errors import InputError
from scepsy.policy.program import TenantName

ItemT = TypeVar("ItemT")
Rank = tuple[int, float]
"""Level, and when it must begin to be in time (s); infinite where it has no deadline."""
Entry = tuple[Rank, int, ItemT]
"""Rank, serial, and what waits."""
_INF = float("inf")


class _Tenant(Generic[ItemT]):
    __slots__ = ("heap", "served", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served = 0.0  # for its weight, or what it is taken to have been when it came back
        self.heap: list[Entry[ItemT]] = []


class FairQueue(Generic[ItemT]):
    """What waits, of several tenants. A look at it costs as many steps as tenants wait."""

    def __init__(self, weights: Mapping[TenantName, float] | None = None) -> None:
        """Nothing waits; a tenant without a weight has 1.

        Raises:
            InputError: a weight is not above 0.
        """
        self._weights = dict(weights or {})
        if any(not weight > 0 for weight in self._weights.values()):
            raise InputError("the weight of a tenant must be above 0")
        self._tenants: dict[TenantName, _Tenant[ItemT]] = {}
        self._waiting: dict[TenantName, _Tenant[ItemT]] = {}
        self._least = 0.0
        self._timed = 0  # that may be too late one day

    def __len__(self) -> int:
        return sum(len(tenant.heap) for tenant in self._waiting.values())

    @property
    def is_steady(self) -> bool:
        """Whether the order of what waits changes neither by what is served nor by time."""
        return len(self._waiting) <= 1 and not self._timed

    def put(self, tenant: TenantName, rank: Rank, serial: int, item: ItemT) -> None:
        """Something waits, behind what is of its rank and has a lower serial."""
        found = self._tenant(tenant)
        if not found.heap:
            found.served = max(found.served, self._least)
            self._waiting[tenant] = found
        self.put_back(tenant, (rank, serial, item))

    def put_back(self, tenant: TenantName, entry: Entry[ItemT]) -> None:
        """It waits on as if it had not been taken."""
        self._timed += entry[0][1] < _INF
        heappush(self._tenants[tenant].heap, entry)

    def order(self) -> Collection[TenantName]:
        """Tenants of whom something waits, who was served least first."""
        waiting = self._waiting
        if len(waiting) == 1:
            ((name, sole),) = waiting.items()
            if sole.heap:
                self._least = max(self._least, sole.served)
                return (name,)
        for name in [name for name, found in waiting.items() if not found.heap]:
            del waiting[name]
        names = sorted(waiting, key=self.served) if len(waiting) > 1 else tuple(waiting)
        if names:
            self._least = max(self._least, waiting[names[0]].served)
        return names

    def take(self, tenant: TenantName, now_s: float) -> Entry[ItemT] | None:
        """A tenant's first, which waits no longer; None where nothing waits."""
        heap = self._tenants[tenant].heap
        if not heap:
            return None
        while heap[0][0][1] < now_s:
            (level, _), serial, item = heap[0]
            heapreplace(heap, ((level, _INF), serial, item))
            self._timed -= 1
        entry = heappop(heap)
        self._timed -= entry[0][1] < _INF
        return entry

    def served(self, tenant: TenantName) -> float:
        """For its weight (s); at least what who waits was, if nothing of it waits."""
        found = self._tenants.get(tenant)
        if found is None or not found.heap:
            return self._least if found is None else max(self._least, found.served)
        return found.served

    def charge(self, tenant: TenantName, work_s: float) -> None:
        """A tenant was served for so long."""
        found = self._tenants.get(tenant) or self._tenant(tenant)
        found.served += work_s / found.weight

    def _tenant(self, name: TenantName) -> _Tenant[ItemT]:
        found = self._tenants.get(name)
        if found is None:
            served = (each.served for each in self._waiting.values() if each.heap)
            found = self._tenants[name] = _Tenant(self._weights.get(name, 1.0))
            found.served = max(served, default=self._least)
        return found
