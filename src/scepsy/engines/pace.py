"""Runs the engine model against a clock: who waits for a call learns of it when its time comes.

The model's instants are exact. A busy event loop only delays who is told of them, and that delay
is not carried on: the next calls are timed from their own arrivals.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from scepsy.clock import ScaledClock
from scepsy.sim.engine import (
    Engine,
    EngineCall,
    EngineStatistics,
    Finished,
    FirstToken,
    Preempted,
)
from scepsy.sim.turns import TurnTaker

_INF = float("inf")
_STREAM_GAP_S = 0.004
"""Real time between two looks at what streams have; tokens due meanwhile go out together."""
_TIMER_S = 0.0005
"""Timers go by whole milliseconds, to the nearest one. Half of one more, and none is early."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One call in the engine, as whoever sent it sees it. Instants are the clock's."""

    call: EngineCall
    arrived_s: float
    watch: "Watch"
    first_token_s: float | None = None
    produced_tokens: int = 0
    finished: Finished | None = None


@dataclass(slots=True, eq=False)
class Watch:
    """What a request waits for: the end of its calls or, if it streams, any news of them."""

    streams: bool
    tickets: list[Ticket] = field(default_factory=list)
    _waiter: asyncio.Future[None] | None = None
    _is_new: bool = False

    @property
    def is_done(self) -> bool:
        """Whether all calls have finished."""
        return all(ticket.finished is not None for ticket in self.tickets)

    async def news(self) -> None:
        """Wait until something changes; at once if something did since last time."""
        if not self._is_new:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._is_new = False

    def tell(self) -> None:
        """Wake who waits, if this is news to it."""
        if self.streams or self.is_done:
            self._is_new = True
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


class Pace:
    """When to look at engines: at one, or at all that take turns on the same GPUs."""

    def __init__(self, clock: ScaledClock) -> None:
        """Nobody is there yet."""
        self.clock = clock
        self.now_s = clock.now_s()
        """The latest instant that any engine was told."""
        self.engines: list[PacedEngine] = []
        self._loop = asyncio.get_running_loop()
        self._stopped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = _INF

    def at(self, at_s: float) -> float:
        """An instant, or the latest so far: for engines no time runs back."""
        self.now_s = max(self.now_s, at_s)
        return self.now_s

    def arm(self) -> None:
        """Make sure to look when something can have happened."""
        at_s = min(engine.due_s for engine in self.engines)
        if at_s >= self._timer_s or at_s == _INF:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay_s = self.clock.real_s(at_s - self.clock.now_s())
        self._timer = self._loop.call_later(max(0.0, delay_s) + _TIMER_S, self._wake)
        self._timer_s = at_s

    def stop(self) -> None:
        """One of them is stopped; the timer is, when all are: others wait for its turn to end."""
        self._stopped += 1
        if self._stopped < len(self.engines):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_s = None, -_INF

    def _wake(self) -> None:
        self._timer, self._timer_s = None, _INF
        for engine in self.engines:
            engine.look()
        self.arm()


class PacedEngine:
    """An engine in the running event loop. ``stop`` it at the end."""

    def __init__(
        self, engine: Engine | TurnTaker, pace: Pace, on_finished: Callable[[Ticket], None]
    ) -> None:
        self._engine = engine
        self._pace = pace
        self._on_finished = on_finished
        self._tickets: dict[str, Ticket] = {}
        self._streaming: dict[str, Ticket] = {}
        self._looked_s = pace.now_s
        pace.engines.append(self)

    def submit(self, call: EngineCall, arrived_s: float, watch: Watch) -> Ticket:
        """Let a call arrive; it is told to ``watch``.

        Raises:
            InputError: it can never fit the KV cache.
        """
        self._engine.submit(self._pace.at(arrived_s), call)
        ticket = Ticket(call, arrived_s, watch)
        watch.tickets.append(ticket)
        self._tickets[call.id] = ticket
        self._pace.arm()
        return ticket

    def cancel(self, watch: Watch) -> None:
        """Withdraw a request's calls that have not finished."""
        for ticket in watch.tickets:
            if self._tickets.pop(ticket.call.id, None) is not None:
                self._streaming.pop(ticket.call.id, None)
                self._engine.cancel(self._pace.at(self._pace.clock.now_s()), ticket.call.id)
        self._pace.arm()

    def statistics(self) -> EngineStatistics:
        """The engine's state now."""
        self.look()
        return self._engine.statistics()

    def stop(self) -> None:
        """Tell nobody anything any more."""
        self._pace.stop()

    @property
    def due_s(self) -> float:
        """When there can be news."""
        at_s = self._engine.next_event_s()
        if self._streaming:
            gap_s = _STREAM_GAP_S * self._pace.clock.speedup
            at_s = min(at_s, max(self._engine.next_token_s(), self._looked_s + gap_s))
        return at_s

    def look(self) -> None:
        """Tell what has happened by now."""
        self._looked_s = self._pace.at(self._pace.clock.now_s())
        for event in self._engine.advance(self._looked_s):
            ticket = self._tickets.get(event.call_id)
            if ticket is None or isinstance(event, Preempted):
                continue
            if isinstance(event, FirstToken):
                self._began(ticket, event)
            else:
                self._ended(ticket, event)
        for call_id, ticket in self._streaming.items():
            produced = self._engine.generated_tokens(call_id)
            if produced > ticket.produced_tokens:
                ticket.produced_tokens = produced
                ticket.watch.tell()

    def _began(self, ticket: Ticket, event: FirstToken) -> None:
        ticket.first_token_s = event.at_s
        if ticket.watch.streams:
            self._streaming[event.call_id] = ticket

    def _ended(self, ticket: Ticket, event: Finished) -> None:
        ticket.finished = event
        ticket.produced_tokens = event.output_tokens
        del self._tickets[event.call_id]
        self._streaming.pop(event.call_id, None)
        self._on_finished(ticket)
        ticket.watch.tell()
