"""Where the calls of one LLM wait until its dispatcher sends them.

All is told to the dispatcher when it happens, and after that it is asked what goes. One timer wakes
it when more may go by itself, or when a call has waited for too long.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from math import ceil

from scepsy.clock import ScaledClock
from scepsy.errors import InputError
from scepsy.gateway.openai import Refusal
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatcher
from scepsy.policy.route import CallView

_INF = float("inf")
_TIMER_S = 0.0005
"""Timers go by whole milliseconds, to the nearest one. Half of one more, and none is early."""
_LEAST_RETRY_S, _MOST_RETRY_S = 1, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """How many calls may wait, and for how long."""

    calls: int = 4096
    """Of one LLM; a further one gets status 429."""
    wait_s: float = 600.0
    """Then it gets status 503."""

    def __post_init__(self) -> None:
        if self.calls < 1 or not self.wait_s > 0:
            raise InputError("at a door at least one call may wait, and for more than 0 s")


@dataclass(slots=True, eq=False)
class Seat:
    """One call, from its arrival to its end or until its replica is lost."""

    view: CallView
    ready: "asyncio.Future[ReplicaName]"
    arrived_s: float
    replica: ReplicaName | None = None
    """Where it was sent."""
    can_restart: bool = True
    """Its client has got nothing yet."""
    scope: asyncio.Timeout | None = None
    """Of its sending: breaking it off lets the call arrive again."""
    is_lost: bool = False

    def begun(self) -> None:
        """Its client gets something: it stays where it is, whatever comes of that."""
        self.can_restart = False
        if self.scope is not None:
            self.scope.reschedule(None)

    def lose(self) -> None:
        """Its replica is gone."""
        self.is_lost = True
        if self.can_restart and self.scope is not None:
            self.scope.reschedule(asyncio.get_running_loop().time())


class Door:
    """Runs one dispatcher. Instants are those of the scaled clock."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        clock: ScaledClock,
        limits: DoorLimits,
        on_sent: Callable[[float, bool], None],
    ) -> None:
        """No replica is up.

        Args:
            dispatcher: decides.
            clock: tells it instants.
            limits: of what waits.
            on_sent: told how long a call has waited that is sent (s), and whether one that had come
                before it waits on.
        """
        self._on_sent = on_sent
        self._dispatcher = dispatcher
        self._clock = clock
        self._limits = limits
        self._up: set[ReplicaName] = set()
        self._waiting: OrderedDict[str, Seat] = OrderedDict()  # by arrival
        self._seated: dict[str, Seat] = {}
        self._executions: Counter[ExecutionId] = Counter()
        self._serial = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = _INF

    @property
    def waiting_calls(self) -> int:
        """That no replica has yet."""
        return len(self._waiting)

    @property
    def admitted_executions(self) -> int:
        """That have a call on a replica now."""
        return len(self._executions)

    @property
    def replicas_up(self) -> int:
        """That take calls."""
        return len(self._up)

    def is_up(self, replica: ReplicaName) -> bool:
        """Whether it takes calls."""
        return replica in self._up

    # ---- Replicas

    def joined(self, replica: ReplicaName, capacity: Capacity) -> None:
        """It takes calls from now on; that it was up already changes nothing."""
        if replica not in self._up:
            self._up.add(replica)
            self._dispatcher.joined(self._clock.now_s(), replica, capacity)
            self._pump()

    def lost(self, replica: ReplicaName) -> None:
        """It is gone: calls of which the client has got nothing are broken off."""
        if replica in self._up:
            self._up.remove(replica)
            self._dispatcher.lost(self._clock.now_s(), replica)
            for seat in [each for each in self._seated.values() if each.replica == replica]:
                self._unseat(seat)
                seat.lose()
            self._pump()

    # ---- Calls

    async def enter(self, view: CallView) -> Seat:
        """Wait until the dispatcher sends a call. Each call of this one needs a ``leave``.

        Raises:
            Refusal: too many wait, or this one has waited for too long.
        """
        if len(self._waiting) >= self._limits.calls:
            raise Refusal(
                429,
                f"{len(self._waiting)} calls wait already",
                code="too_many_waiting",
                retry_s=self._retry_s(),
            )
        # A call that is sent once more is another one to the dispatcher.
        view = view._replace(id=f"{view.id}.{next(self._serial)}")
        now_s = self._clock.now_s()
        seat = Seat(view, asyncio.get_running_loop().create_future(), now_s)
        self._waiting[view.id] = seat
        self._dispatcher.arrived(now_s, view)
        self._pump()
        try:
            await seat.ready
        except BaseException:
            self.leave(seat, None)
            raise
        return seat

    def first_token(self, seat: Seat) -> None:
        """The prompt of a call that was sent is computed."""
        if not seat.is_lost:
            self._dispatcher.first_token(self._clock.now_s(), seat.view)
            self._pump()

    def leave(self, seat: Seat, result: CallResult | None) -> None:
        """A call has ended; without a result it has left unanswered."""
        now_s = self._clock.now_s()
        if self._waiting.pop(seat.view.id, None) is not None:
            self._dispatcher.dropped(now_s, seat.view)
        elif seat.view.id in self._seated:
            self._unseat(seat)
            if result is None:
                self._dispatcher.dropped(now_s, seat.view)
            else:
                self._dispatcher.ended(now_s, seat.view, result)
        else:
            return
        self._pump()

    def over(self, execution: ExecutionId) -> None:
        """No call of it follows."""
        self._dispatcher.over(self._clock.now_s(), execution)
        self._pump()

    def stop(self) -> None:
        """Wake no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = None, -_INF

    # ---- What goes

    def _pump(self) -> None:
        now_s = self._clock.now_s()
        while self._waiting and self._first().arrived_s + self._limits.wait_s <= now_s:
            _, seat = self._waiting.popitem(last=False)
            self._dispatcher.dropped(now_s, seat.view)
            if not seat.ready.done():
                seat.ready.set_exception(self._too_late())
        for view, replica, *_ in self._dispatcher.take(now_s):
            passes = self._first().view.id != view.id
            seat = self._waiting.pop(view.id)
            self._on_sent(now_s - seat.arrived_s, passes)
            seat.replica = replica
            self._seated[view.id] = seat
            self._executions[view.execution] += 1
            if not seat.ready.done():  # else its client has left, and it will in a moment
                seat.ready.set_result(replica)
        self._arm()

    def _first(self) -> Seat:
        return next(iter(self._waiting.values()))

    def _unseat(self, seat: Seat) -> None:
        del self._seated[seat.view.id]
        self._executions[seat.view.execution] -= 1
        if not self._executions[seat.view.execution]:
            del self._executions[seat.view.execution]

    def _arm(self) -> None:
        at_s = self._dispatcher.next_s
        if self._waiting:
            at_s = min(at_s, self._first().arrived_s + self._limits.wait_s)
        if self._timer_s in {at_s, -_INF}:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = None, at_s
        if at_s < _INF:
            delay_s = self._clock.real_s(at_s - self._clock.now_s())
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, delay_s) + _TIMER_S, self._wake)

    def _wake(self) -> None:
        self._timer, self._timer_s = None, _INF
        self._pump()

    def _too_late(self) -> Refusal:
        waited = f"the call has waited for {self._limits.wait_s:g} s"
        why = "" if self._up else "; no replica is up"
        return Refusal(503, waited + why, code="waited_too_long", retry_s=self._retry_s())

    def _retry_s(self) -> int:
        """Real seconds after which to try again: about as long as the first one has waited."""
        waited_s = self._clock.now_s() - self._first().arrived_s if self._waiting else 0.0
        return max(_LEAST_RETRY_S, min(_MOST_RETRY_S, ceil(self._clock.real_s(waited_s))))
