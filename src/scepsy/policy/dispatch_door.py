"""Calls that may go to any replica, in order; who found no room is looked at where room was made.

Of the first few of a ``FairQueue`` those go that fit. Where none of these fits, nobody does: one
behind them that is smaller would pass them for ever.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_call import Place, Waiting
from scepsy.policy.dispatch_place import fit_nowhere
from scepsy.policy.program import TenantName
from scepsy.policy.share import Entry, FairQueue, Rank

_LOOKED_AT = 4
"""Calls, where the first does not fit."""


class Door:
    """See the module."""

    def __init__(self, weights: Mapping[TenantName, float], *, is_limited: bool = True) -> None:
        """Nobody waits.

        Args:
            weights: of tenants' shares.
            is_limited: whether it is for room alone that calls wait.
        """
        self._queue: FairQueue[Waiting] = FairQueue(weights)
        self._is_limited = is_limited
        self._tried: list[Waiting] = []
        """First when it was last looked at. All that changed since is known to those alone."""
        self._is_same = False
        """They are still the first."""
        self._last: tuple[Rank, int] | None = None
        """Of them, if nobody behind it would have been tried."""

    def put(self, tenant: TenantName, rank: Rank, call: Waiting) -> None:
        """A call waits here."""
        call.place, call.is_tried = Place.DOOR, False
        self._queue.put(tenant, rank, call.serial, call)
        if self._last is None or not self._queue.is_steady or (rank, call.serial) < self._last:
            self._is_same = False

    def left(self) -> None:
        """One of them waits no longer."""
        self._is_same = False

    def charge(self, tenant: TenantName, work_s: float) -> None:
        """A tenant was served for so long."""
        self._queue.charge(tenant, work_s)

    def passed(self) -> None:
        """Somewhere room was made, and nobody may look: it is there for all later."""
        for call in self._tried:
            call.is_tried = False
        self._tried, self._is_same = [], False

    def fitting(
        self,
        now_s: float,
        changed: Collection[Replica],
        shared_tokens: float,
        place: Callable[[float, Waiting], Replica | None],
    ) -> Iterator[tuple[Waiting, Replica]]:
        """Who goes, and where to; each must be sent before the next is asked for.

        Args:
            now_s: when.
            changed: where more may fit than when this was asked last.
            shared_tokens: of prompts, that count once for all calls of a replica.
            place: gives where a call fits, of those replicas alone if it was tried before.
        """
        if self._is_same and fit_nowhere(self._tried, changed, shared_tokens):
            self._queue.look()
            return
        put_back: list[tuple[TenantName, Entry[Waiting]]] = []
        while len(put_back) < _LOOKED_AT and (entry := self._queue.take(now_s)) is not None:
            call = entry[1][2]
            if call.place is not Place.DOOR:
                continue
            replica = place(now_s, call)
            if replica is None:
                put_back.append(entry)
            else:
                yield call, replica
        self.passed()
        for tenant, (rank, serial, call) in put_back:
            self._queue.put(tenant, rank, serial, call)
            call.is_tried = True
            self._tried.append(call)
        self._is_same = self._queue.is_steady and self._is_limited
        self._last = put_back[-1][1][:2] if len(put_back) == _LOOKED_AT else None
