"""Engines that share GPUs by turns: one computes at a time, with all KV room that there is.

Each engine runs on a clock of its own, which stands still while another has its turn; what it says
is told in real time. A turn ends with the step under way, and not before the prompts that waited
when it began are computed: prompts that came meanwhile are then computed together. An engine that
is alone at work is never interrupted. KV of others leaves for host memory where room is needed.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from math import nextafter

from scepsy.errors import InputError
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.sim.engine import (
    Engine,
    EngineCall,
    EngineEvent,
    EngineStatistics,
    Finished,
    FirstToken,
)
from scepsy.sim.turn_memory import make_room

GROUP_CALLS = 8
"""Calls whose prompts are computed at one turn at most before it may end."""
LONGEST_TURN_S = 4.0
ROUND_S = 0.1
"""In which each engine that has work gets an equal turn, prompts and whole steps allowing."""
_INF = float("inf")
_MOST_PAST_TURNS = 64


class TurnTaker:
    """An engine on GPUs that it shares, used like one that has them to itself."""

    def __init__(self, gpus: "SharedGpus", engine: Engine) -> None:
        """Idle."""
        self.engine = engine
        self.inflight: dict[str, float] = {}
        """When each call came, by its own clock; by arrival."""
        self.prompts: dict[str, tuple[float, int]] = {}
        """Arrival and prompt tokens of calls without a first token, by arrival."""
        self.prompt_tokens = 0
        """Of those calls."""
        self.own_s = 0.0
        """Its engine's clock; it never shows more than the real one."""
        self.offset_s = 0.0
        """What that clock is behind by, at its turn."""
        self.turn_s = 0.0
        """When its last turn began."""
        self.wanted_s = 0.0
        """When it last began to have something to do."""
        self.block_size = 1 / engine.spec.kv_blocks
        """Of a KV block, as a part of the room for KV."""
        self.away = 0.0
        """Of its KV in host memory, likewise."""
        self._gpus = gpus
        self._turns_s: list[float] = []
        """What its clock showed when turns began."""
        self._offsets_s: list[float] = []
        """And what it was behind by then."""
        self._events: list[EngineEvent] = []

    @property
    def waiting_calls(self) -> int:
        """As an engine's."""
        return self.engine.waiting_calls

    @property
    def kv_size(self) -> float:
        """KV of its calls, wherever it is."""
        return self.engine.statistics().kv_used_blocks * self.block_size if self.inflight else 0.0

    @property
    def due_s(self) -> float:
        """When it has something to say next, if it goes on computing."""
        return self.engine.next_event_s() + self.offset_s

    @property
    def is_at_work(self) -> bool:
        """Whether it has calls, or a step under way whose calls were all withdrawn."""
        return bool(self.inflight) or self.engine.next_token_s() < _INF

    def submit(self, now_s: float, call: EngineCall) -> None:
        """As an engine's."""
        self._gpus.submit(now_s, self, call)

    def next_event_s(self) -> float:
        """As an engine's; what others on the GPUs do may change it."""
        return self._gpus.now_s if self._events else self._gpus.next_event_s(self)

    def next_token_s(self) -> float:
        """As an engine's; infinite while others have their turn, who may change it."""
        return self._gpus.next_token_s(self)

    def advance(self, now_s: float) -> list[EngineEvent]:
        """As an engine's."""
        self._gpus.run_to(now_s)
        events, self._events = self._events, []
        return events

    def cancel(self, now_s: float, call_id: str) -> None:
        """As an engine's."""
        self._gpus.cancel(now_s, self, call_id)

    def generated_tokens(self, call_id: str) -> int:
        """As an engine's, by the instant that the GPUs were last advanced to."""
        self._gpus.show_now(self)
        return self.engine.generated_tokens(call_id)

    def statistics(self) -> EngineStatistics:
        """As an engine's, by the instant that the GPUs were last advanced to."""
        self._gpus.show_now(self)
        return self.engine.statistics()

    def leave(self, now_s: float) -> None:
        """Be gone, with all calls; nothing may be left to collect up to ``now_s``."""
        self._gpus.remove(now_s, self)

    def take(self, now_s: float, call: EngineCall, *, is_active: bool) -> None:
        """Let a call arrive."""
        if is_active and self.is_at_work:
            self.own_s = self.own_at(now_s)
        elif not self.inflight:
            self.own_s, self.offset_s = max(self.own_s, now_s), 0.0
            self._turns_s.clear()
            self._offsets_s.clear()
        if not self.inflight:
            self.wanted_s = now_s
        self.engine.submit(self.own_s, call)
        self.inflight[call.id] = self.own_s
        self.prompts[call.id] = now_s, call.prompt_tokens
        self.prompt_tokens += call.prompt_tokens

    def withdraw(self, now_s: float, call_id: str, *, is_active: bool) -> None:
        """Let one of its calls be gone."""
        if is_active:
            self.own_s = self.own_at(now_s)
        self.engine.cancel(self.own_s, call_id)
        del self.inflight[call_id]
        self.prompt_tokens -= self.prompts.pop(call_id, (0.0, 0))[1]
        if not is_active and self.is_at_work and not self.inflight:
            self.run(self.engine.next_token_s())  # a step that had begun on its clock alone

    def own_at(self, now_s: float) -> float:
        """What its clock shows at an instant of its turn, up to which it has said everything."""
        own_s = max(self.own_s, now_s - self.offset_s)
        next_s = self.engine.next_event_s()
        is_too_far = own_s >= next_s and next_s + self.offset_s > now_s  # by rounding alone
        return max(self.own_s, nextafter(next_s, -_INF)) if is_too_far else own_s

    def resume(self, at_s: float) -> None:
        """Let its clock go on."""
        self.offset_s = at_s - self.own_s
        if len(self._turns_s) >= _MOST_PAST_TURNS:
            self._forget_turns()
        self._turns_s.append(self.own_s)
        self._offsets_s.append(self.offset_s)

    def run(self, own_s: float) -> list[EngineEvent]:
        """Go on to an instant of its own clock; give what happened, in real time."""
        self.own_s = max(self.own_s, own_s)
        events = [self._told(event) for event in self.engine.advance(self.own_s)]
        if events:
            self._events += events
            self._gpus.has_news = True
        return events

    def _told(self, event: EngineEvent) -> EngineEvent:
        if isinstance(event, FirstToken | Finished) and event.call_id in self.prompts:
            self.prompt_tokens -= self.prompts.pop(event.call_id)[1]
        at_s = event.at_s + self.offset_s
        if isinstance(event, Finished):
            del self.inflight[event.call_id]
            return Finished(  # `replace` takes its time, and there are many
                at_s,
                event.call_id,
                event.output_tokens,
                event.cached_tokens,
                self._real_s(event.scheduled_s),
            )
        if isinstance(event, FirstToken):
            return FirstToken(at_s, event.call_id, event.cached_tokens)
        return replace(event, at_s=at_s)

    def _real_s(self, own_s: float) -> float:
        """The instant at which its clock showed so much, at its turn."""
        turn = bisect_right(self._turns_s, own_s)
        return own_s + self._offsets_s[turn - 1] if turn else own_s

    def _forget_turns(self) -> None:
        """Turns that ended before the oldest call came are asked for no more."""
        oldest_s = next(iter(self.inflight.values()), self.own_s)
        past = bisect_right(self._turns_s, oldest_s) - 1
        if 2 * past > len(self._turns_s):
            del self._turns_s[:past], self._offsets_s[:past]


class SharedGpus:
    """GPUs on which engines take turns."""

    def __init__(self) -> None:
        """Nobody is on them."""
        self.members: list[TurnTaker] = []
        self.now_s = 0.0
        """The instant last advanced to."""
        self.has_news = False
        """Whether an engine may have something to be collected."""
        self.inflight = 0
        """Calls that have come and not ended."""
        self.switches, self.switching_s = 0, 0.0
        """Turns that began with another engine than the last; seconds in which it cost all."""
        self._active: TurnTaker | None = None
        self._served: set[TurnTaker] = set()
        """That have had their turn in this round."""
        self._group: set[str] = set()
        """Calls whose prompts belong to this turn."""
        self._ready_s = 0.0
        """When the turn began to compute."""
        self._shared_s = _INF
        """Since when in this turn others wait; infinite while nobody does."""
        self._turn_end_s = _INF
        """When it is next seen whether the turn is over; infinite while nobody else waits."""
        self._step_end_s = -_INF
        """On the active engine's clock, where that is the end of a step."""

    def add(self, engine: Engine) -> TurnTaker:
        """Let an idle engine take turns with those that are there."""
        member = TurnTaker(self, engine)
        self.members.append(member)
        return member

    def remove(self, now_s: float, member: TurnTaker) -> None:
        """An engine is gone with its work, of which nothing may be left to collect."""
        self.run_to(now_s)
        self.members.remove(member)
        self.inflight -= len(member.inflight)
        self._served.discard(member)
        if member is self._active:
            self._active = None
            if self.inflight:
                self._switch(now_s)

    def submit(self, now_s: float, member: TurnTaker, call: EngineCall) -> None:
        """Let a call arrive at one of the engines."""
        self.run_to(now_s)
        is_idle = self._active is None or not self._active.is_at_work
        member.take(now_s, call, is_active=member is self._active)
        self.inflight += 1
        if is_idle:
            self._shared_s = _INF
            self._switch(now_s)
        elif member is not self._active and self._turn_end_s == _INF:
            self._served.clear()
            self._limit_turn(now_s)

    def cancel(self, now_s: float, member: TurnTaker, call_id: str) -> None:
        """Withdraw a call, if it is there; the step under way ends all the same."""
        self.run_to(now_s)
        if call_id not in member.inflight:
            return
        member.withdraw(now_s, call_id, is_active=member is self._active)
        self.inflight -= 1
        self._group.discard(call_id)

    def next_event_s(self, member: TurnTaker) -> float:
        """An instant (s) before which an engine has nothing to say; infinite: others come first."""
        return self.next_of_active_s if member is self._active else _INF

    @property
    def next_of_active_s(self) -> float:
        """An instant (s) before which nobody has anything new to say; infinite: all are idle."""
        active = self._active
        if active is None or not active.is_at_work:
            return _INF
        due_s, end_s = active.due_s, self._turn_end_s
        return due_s if due_s < end_s else end_s

    def next_token_s(self, member: TurnTaker) -> float:
        """When an engine's step under way ends (s); infinite while it computes nothing."""
        self.show_now(member)
        is_active = member is self._active
        return member.engine.next_token_s() + member.offset_s if is_active else _INF

    def show_now(self, member: TurnTaker) -> None:
        """Let an engine be looked at as it is at the instant last advanced to."""
        if member is self._active and member.is_at_work:
            member.run(member.own_at(self.now_s))

    def run_to(self, now_s: float) -> None:
        """Let the engines run up to and including an instant; they keep what happened.

        Raises:
            InputError: time ran back.
        """
        if now_s < self.now_s:
            raise InputError(f"time ran back from {self.now_s} s to {now_s} s")
        while (active := self._active) is not None and active.is_at_work:
            until_s = min(now_s, self._turn_end_s)
            last_s = self._collect(active, until_s) if until_s >= self._ready_s else until_s
            if not active.is_at_work and self.inflight:
                self._switch(last_s)
            elif now_s < self._turn_end_s or not active.is_at_work:
                break
            else:
                self._end_turn(active)
        self.now_s = now_s

    def _collect(self, active: TurnTaker, until_s: float) -> float:
        """Advance the active engine; give the instant of what happened last."""
        last_s = until_s
        while (own_s := active.engine.next_event_s()) + active.offset_s <= until_s:
            last_s = self._see(active.run(own_s), own_s + active.offset_s)
        if active.is_at_work and until_s == self._turn_end_s:
            is_step_end = self._step_end_s > -_INF
            own_s = self._step_end_s if is_step_end else until_s - active.offset_s
            last_s = self._see(active.run(own_s), last_s)
        return last_s

    def _see(self, events: Sequence[EngineEvent], last_s: float) -> float:
        for event in events:
            if isinstance(event, FirstToken | Finished):
                self._group.discard(event.call_id)
            self.inflight -= isinstance(event, Finished)
            last_s = event.at_s
        return last_s

    def _end_turn(self, active: TurnTaker) -> None:
        """Let the step under way end; then go over to the next engine, unless prompts are left."""
        at_s = self._turn_end_s
        is_step_end = active.own_s >= self._step_end_s > -_INF
        is_long = at_s >= self._ready_s + LONGEST_TURN_S
        if is_step_end and (not self._group or is_long):
            self._switch(at_s)
        else:
            self._step_end_s = active.engine.next_token_s()
            self._turn_end_s = max(at_s, self._step_end_s + active.offset_s)

    def _switch(self, at_s: float) -> None:
        """Begin the turn of the engine whose turn it is."""
        before, member = self._active, self._next()
        ready_s = at_s
        if member is not before:
            if before is not None:
                ready_s += self._stall_s(member, at_s) + self._turn_cost_s(at_s)
                self.switches += 1
                self.switching_s += ready_s - at_s
            member.resume(ready_s)
            self._active = member
        self._ready_s = member.turn_s = ready_s
        self._group = set(islice(member.prompts, GROUP_CALLS))
        self._step_end_s = -_INF
        self._turn_end_s = self._shared_s = _INF
        if self.inflight > len(member.inflight):
            self._limit_turn(ready_s)

    def _next(self) -> TurnTaker:
        """Of those that have work and had no turn in this round: prompts first, first come."""
        if self._active is not None:
            self._served.add(self._active)
        busy = self.busy
        left = [member for member in busy if member not in self._served]
        if not left:
            self._served.clear()
            left = [member for member in busy if member is not self._active] or busy
        return min(left, key=_precedence)

    @property
    def busy(self) -> list[TurnTaker]:
        """Those that have work."""
        return [member for member in self.members if member.inflight]

    def _limit_turn(self, now_s: float) -> None:
        """Give the active engine its part of a round, and no more, as others wait."""
        assert self._active is not None
        self._shared_s = max(now_s, self._ready_s)
        self._turn_end_s = max(now_s, self._ready_s + self._turn_length_s(self._active))

    def _turn_length_s(self, _active: TurnTaker) -> float:
        return ROUND_S / len(self.busy)

    def _turn_cost_s(self, at_s: float) -> float:
        """Seconds that were lost over the turn that ends, as others had work too."""
        turn_s = max(0.0, at_s - self._shared_s)
        return turn_s * TURN_COST_FRACTION / (1 - TURN_COST_FRACTION)

    def _stall_s(self, member: TurnTaker, _at_s: float) -> float:
        """Seconds until an engine can go on: its KV comes back, that of others leaves."""
        in_s = member.away * member.engine.spec.kv_move_s
        left = make_room(member, 1.0, self.members)
        return max(in_s, sum(size * other.engine.spec.kv_move_s for other, size in left))


def _precedence(member: TurnTaker) -> tuple[bool, float]:
    """Those with prompts by their oldest, then the others by their last turn."""
    oldest = next(iter(member.prompts.values()), None)
    return (oldest is None, member.turn_s if oldest is None else oldest[0])
