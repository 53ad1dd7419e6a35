"""Calls that may go to any replica, in order; who found no room is looked at where room was made.

Of the first few of a ``FairQueue`` those go that fit. Where none of these fits, nobody does: one
behind them that is smaller would pass them for ever.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_call import DOOR, Waiting
from scepsy.policy.dispatch_place import fit_nowhere
from scepsy.policy.program import TenantName
from scepsy.policy.share import Entry, FairQueue, Rank

_LOOKED_AT = 4
"""Calls, where the first does not fit."""


class Door:
    """See the module."""

    def __init__(
        self,
        weights: Mapping[TenantName, float],
        *,
        due: Callable[[TenantName, float], Waiting | None],
        place: Callable[[float, Waiting], Replica | None],
        is_limited: bool = True,
    ) -> None:
        """Nobody waits.

        Args:
            weights: of tenants' shares.
            due: gives whom of a tenant's calls nobody may pass at an instant (s).
            place: gives where a call fits then, of what has changed alone if it was tried before.
            is_limited: whether it is for room alone that calls wait.
        """
        self._due, self._place = due, place
        self._queue: FairQueue[Waiting] = FairQueue(weights)
        self._is_limited = is_limited
        self._tried: list[Waiting] = []
        """First when it was last looked at. All that changed since is known to those alone."""
        self._least_tokens = 0
        """The least that any of them needs."""
        self._is_same = False
        """They are still the first."""
        self._last: tuple[Rank, int] | None = None
        """Of them, if nobody behind it would have been tried."""

    def put(self, tenant: TenantName, rank: Rank, call: Waiting) -> None:
        """A call waits here."""
        call.place, call.is_tried = DOOR, False
        self._queue.put(tenant, rank, call.serial, call)
        if self._last is None or not self._queue.is_steady or (rank, call.serial) < self._last:
            self._is_same = False

    def left(self) -> None:
        """One of them waits no longer."""
        self._is_same = False

    def charge(self, tenant: TenantName, work_s: float) -> None:
        """A tenant was served for so long."""
        self._queue.charge(tenant, work_s)

    def served(self, tenant: TenantName) -> float:
        """How much a tenant was, for its weight (s)."""
        return self._queue.served(tenant)

    def fitting(
        self, now_s: float, changed: Collection[Replica], shared_tokens: float
    ) -> Iterator[tuple[Waiting, Replica]]:
        """Who goes, and where to; each must be sent before the next is asked for.

        Of the tenant that was served least who is due, then by its order; then of the next one.

        Args:
            now_s: when.
            changed: where more may fit than when this was asked last.
            shared_tokens: of prompts, that count once for all calls of a replica.
        """
        tried: list[Waiting] = []
        put_back: list[tuple[TenantName, Entry[Waiting]]] = []
        for tenant in self._queue.order():
            yield from self._due_of(tenant, now_s, tried)
            if tried:
                break
            if self._is_same and fit_nowhere(self._least_tokens + shared_tokens, changed):
                return
            yield from self._first_of(tenant, now_s, put_back)
            if len(put_back) == _LOOKED_AT:
                break
        is_held_up = bool(tried)
        for tenant, entry in put_back:
            self._queue.put_back(tenant, entry)
            tried.append(entry[2])
        for call in self._tried:  # room may be made for it where nothing changes any more
            call.is_tried = False
        for call in tried:
            call.is_tried = True
        self._tried = tried
        self._least_tokens = min((call.need_tokens for call in tried), default=0)
        self._is_same = not is_held_up and self._queue.is_steady and self._is_limited
        self._last = put_back[-1][1][:2] if len(put_back) == _LOOKED_AT else None

    def _due_of(
        self, tenant: TenantName, now_s: float, tried: list[Waiting]
    ) -> Iterator[tuple[Waiting, Replica]]:
        """Who is due, up to one that does not fit: it is added to those that were tried."""
        while (call := self._due(tenant, now_s)) is not None:
            if not call.is_due:  # it does not wait for room in host memory any more
                call.is_due, call.is_tried = True, False
            replica = self._place(now_s, call)
            if replica is None:
                tried.append(call)
                return
            yield call, replica

    def _first_of(
        self, tenant: TenantName, now_s: float, put_back: list[tuple[TenantName, Entry[Waiting]]]
    ) -> Iterator[tuple[Waiting, Replica]]:
        """Who is first by the queue's order; those that do not fit are to be put back."""
        while len(put_back) < _LOOKED_AT:
            entry = self._queue.take(tenant, now_s)
            if entry is None:
                return
            call = entry[2]
            if call.place is not DOOR:
                continue
            replica = self._place(now_s, call)
            if replica is None:
                put_back.append((tenant, entry))
            else:
                yield call, replica
