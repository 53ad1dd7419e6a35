"""GPUs that several LLMs have by turns: one computes at a time, and to switch costs time.

Each LLM has an engine of its own, on a clock of its own that stands still while another has its
turn. What fits stays in GPU memory; other weights and KV come from host memory.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.workflow import LlmName
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.baselines.turns import GROUP_CALLS, LONGEST_TURN_S, quotas_s
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished, FirstToken

_INF = float("inf")


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledLlm:
    """One of the LLMs of an instance."""

    llm: LlmName
    spec: EngineSpec
    """KV blocks are those that it can have at its turn."""
    weight_bytes: int
    """Over all GPUs of the instance."""
    block_bytes: int
    """Of a KV block, likewise."""
    stays: bool
    """Whether its weights never leave GPU memory."""
    answer_tokens: float
    """Output tokens of a call in the mean."""
    context_tokens: float
    """In KV of a call that decodes, in the mean."""

    @cached_property
    def prompt_token_s(self) -> float:
        """Seconds of prefill for each prompt token."""
        tokens = self.spec.chunk_tokens
        step_s = self.spec.times.step_s(
            prefill_tokens=tokens, prefill_context_tokens=0, decodes=0, decode_context_tokens=0
        )
        return step_s / tokens

    def decode_s(self, calls: int) -> float:
        """Seconds of a step in which so many calls decode."""
        if not calls:
            return 0.0
        decodes = min(calls, self.spec.max_seqs)
        known = self._decode_s.get(decodes)
        if known is None:
            tokens = round(decodes * self.context_tokens)
            known = self._decode_s[decodes] = self.spec.times.decode_run_s(
                decodes=decodes, decode_context_tokens=tokens, steps=1
            )
        return known

    @cached_property
    def _decode_s(self) -> dict[int, float]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledSpec:
    """What an instance is."""

    llms: tuple[PooledLlm, ...]
    host_bytes_per_s: float
    """Between host and GPU memory in each direction, over all GPUs of the instance."""
    prefetches: bool
    """Whether weights are loaded while another LLM computes, for which there must be room."""
    token_target_s: float
    """Time between output tokens that turns keep to; 0: turns end with their prefills."""


class _Slot:
    """One LLM: its engine, what it has to do, and how its clock goes."""

    def __init__(self, model: PooledLlm) -> None:
        self.model = model
        self.engine = Engine(model.spec)
        self.own_s = 0.0
        """Its engine's clock; it never shows more than the real one."""
        self.offset_s = 0.0
        """What that clock is behind by, at its turn."""
        self.turns_s: list[float] = []
        """What the clock showed when turns began."""
        self.offsets_s: list[float] = []
        """And what it was behind by then."""
        self.inflight = 0
        self.new: dict[str, tuple[float, int]] = {}
        """Arrival and prompt tokens of calls without a first token, by arrival."""
        self.new_tokens = 0
        self.away_bytes = 0
        """Of its KV, in host memory."""
        self.wanted_s = 0.0
        """When it last began to have something to do."""
        self.turn_s = 0.0
        """When its last turn began."""

    @property
    def kv_bytes(self) -> int:
        """KV of its calls, wherever it is."""
        return self.engine.statistics().kv_used_blocks * self.model.block_bytes

    def real_s(self, own_s: float) -> float:
        """The instant at which its clock showed so much, at its turn."""
        turn = bisect_right(self.turns_s, own_s)
        return own_s + self.offsets_s[turn - 1] if turn else own_s

    def wake(self, now_s: float) -> None:
        """Nothing is in flight: its clock can jump to the real one."""
        self.own_s, self.offset_s = max(self.own_s, now_s), 0.0
        self.turns_s.clear()
        self.offsets_s.clear()

    def resume(self, at_s: float) -> None:
        """Let its clock go on."""
        self.offset_s = at_s - self.own_s
        self.turns_s.append(self.own_s)
        self.offsets_s.append(self.offset_s)


class PooledInstance:
    """Used like an engine, but for the LLM of each call."""

    def __init__(self, spec: PooledSpec) -> None:
        self.spec = spec
        self.switches = 0
        """Turns that began with another LLM than the last."""
        self.switching_s = 0.0
        """Seconds in which nothing was computed for them."""
        self.inflight = 0
        """Calls that have come and not ended."""
        self._slots = {model.llm: _Slot(model) for model in spec.llms}
        self._now_s = 0.0
        self._active: _Slot | None = None
        self._loaded: _Slot | None = None
        """Whose weights are there, of those that do not stay."""
        self._served: set[_Slot] = set()
        """That have had their turn in this round."""
        self._group: set[str] = set()
        """Calls whose prefill belongs to this turn."""
        self._ready_s = 0.0
        """When the turn began to compute."""
        self._turn_end_s = _INF
        """When it is next seen whether the turn is over; infinite while nobody else waits."""
        self._step_end_s = -_INF
        """On the active engine's clock, where that is the end of a step."""
        self._events: list[EngineEvent] = []

    def submit(self, now_s: float, llm: LlmName, call: EngineCall) -> None:
        """Let a call arrive.

        Raises:
            UnknownNameError: the LLM is not served here.
        """
        slot = self._slots.get(llm)
        if slot is None:
            raise UnknownNameError("LLM of the instance", llm, self._slots)
        self._run_to(now_s)
        if not slot.inflight:
            slot.wake(now_s)
            slot.wanted_s = now_s
        elif slot is self._active:
            slot.own_s = max(slot.own_s, now_s - slot.offset_s)
        slot.engine.submit(slot.own_s, call)
        slot.inflight += 1
        self.inflight += 1
        slot.new[call.id] = (now_s, call.prompt_tokens)
        slot.new_tokens += call.prompt_tokens
        if self.inflight == 1:
            self._switch(now_s)
        elif slot is not self._active and self._turn_end_s == _INF:
            self._served.clear()
            self._limit_turn(now_s)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when idle."""
        if self._events:
            return self._now_s
        slot = self._active
        if slot is None or not slot.inflight:
            return _INF
        return min(slot.engine.next_event_s() + slot.offset_s, self._turn_end_s)

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since last time, in time order."""
        self._run_to(now_s)
        events, self._events = self._events, []
        return events

    def cost_s(self, llm: LlmName) -> float:
        """Seconds that a call would take here, and that it would keep others, roughly."""
        own = self._slots[llm]
        busy = [slot for slot in self._slots.values() if slot.inflight]
        step_s = self._step_s(busy)
        slower_s = self._step_s(busy if own in busy else [*busy, own], own) - step_s
        steps = 1 + own.model.answer_tokens
        is_there = own.model.stays or self._loaded is own or self._loaded is None
        adds_s = slower_s * steps + own.model.context_tokens * own.model.prompt_token_s
        adds_s += 0.0 if is_there else self._load_s(own)
        waits_s = sum(slot.new_tokens * slot.model.prompt_token_s for slot in busy)
        return waits_s + step_s * steps + adds_s * (1 + self.inflight)

    def _run_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise InputError(f"time ran back from {self._now_s} s to {now_s} s")
        while (slot := self._active) is not None and slot.inflight:
            until_s = min(now_s, self._turn_end_s)
            if until_s >= self._ready_s:
                self._collect(slot, until_s)
            if not slot.inflight and self.inflight:
                self._switch(self._events[-1].at_s)
            elif now_s < self._turn_end_s or not slot.inflight:
                break
            else:
                self._end_turn(slot)
        self._now_s = now_s

    def _collect(self, slot: _Slot, until_s: float) -> None:
        """Advance the active engine, and note what happens."""
        engine = slot.engine
        while (own_s := engine.next_event_s()) + slot.offset_s <= until_s:
            slot.own_s = max(slot.own_s, own_s)
            for event in engine.advance(slot.own_s):
                self._see(slot, event)
        if slot.inflight and until_s == self._turn_end_s:
            if self._step_end_s > -_INF:
                slot.own_s = max(slot.own_s, self._step_end_s)
            else:
                slot.own_s = max(slot.own_s, until_s - slot.offset_s)
            for event in engine.advance(slot.own_s):
                self._see(slot, event)

    def _see(self, slot: _Slot, event: EngineEvent) -> None:
        if isinstance(event, FirstToken | Finished) and event.call_id in slot.new:
            slot.new_tokens -= slot.new.pop(event.call_id)[1]
            self._group.discard(event.call_id)
        at_s = event.at_s + slot.offset_s
        if isinstance(event, Finished):
            slot.inflight -= 1
            self.inflight -= 1
            event = replace(event, at_s=at_s, scheduled_s=slot.real_s(event.scheduled_s))
        elif slot.offset_s:
            event = replace(event, at_s=at_s)
        self._events.append(event)

    def _end_turn(self, slot: _Slot) -> None:
        """Let the step under way end; then go over to the next LLM, unless prompts are left."""
        at_s = self._turn_end_s
        is_step_end = slot.own_s >= self._step_end_s > -_INF
        is_long = at_s >= self._ready_s + LONGEST_TURN_S
        if is_step_end and (not self._group or is_long):
            self._switch(at_s)
        else:
            self._step_end_s = slot.engine.next_token_s()
            self._turn_end_s = max(at_s, self._step_end_s + slot.offset_s)

    def _switch(self, at_s: float) -> None:
        """Begin the turn of the LLM whose turn it is."""
        active, slot = self._active, self._next()
        ready_s = at_s
        if slot is not active:
            if active is not None:
                ready_s += self._stall_s(slot, at_s)
                self.switches += 1
                self.switching_s += ready_s - at_s
            slot.resume(ready_s)
            self._active = slot
            if not slot.model.stays:
                self._loaded = slot
        self._ready_s = slot.turn_s = ready_s
        self._group = set(islice(slot.new, GROUP_CALLS))
        self._step_end_s, self._turn_end_s = -_INF, _INF
        if self.inflight > slot.inflight:
            self._limit_turn(ready_s)

    def _next(self) -> _Slot:
        """Of the LLMs that have work and had no turn in this round: prompts first, first come."""
        if self._active is not None:
            self._served.add(self._active)
        busy = [slot for slot in self._slots.values() if slot.inflight]
        left = [slot for slot in busy if slot not in self._served]
        if not left:
            self._served.clear()
            left = [slot for slot in busy if slot is not self._active] or busy
        return min(left, key=_precedence)

    def _limit_turn(self, now_s: float) -> None:
        """Give the active LLM its quota, and no more, as others wait."""
        assert self._active is not None
        busy = [slot for slot in self._slots.values() if slot.inflight]
        steps_s = [slot.model.decode_s(slot.inflight) for slot in busy]
        quotas = self._quotas_s(steps_s, self._loads_s(busy))
        self._turn_end_s = max(now_s, self._ready_s + quotas[busy.index(self._active)])

    def _quotas_s(self, steps_s: Sequence[float], loads_s: Sequence[float]) -> list[float]:
        return quotas_s(steps_s, switching_s=sum(loads_s), token_target_s=self.spec.token_target_s)

    def _step_s(self, busy: Sequence[_Slot], joins: _Slot | None = None) -> float:
        """Seconds in which each call gets a token, in the mean over a round, if one more joins."""
        steps_s = [slot.model.decode_s(slot.inflight + (slot is joins)) for slot in busy]
        loads_s = self._loads_s(busy)
        if not any(loads_s):
            return sum(steps_s)
        quotas = self._quotas_s(steps_s, loads_s)
        computing_s = sum(quotas) or sum(steps_s)
        if self.spec.prefetches:
            pairs = zip(loads_s, quotas, strict=True)
            loads_s = [max(0.0, load_s - (computing_s - quota_s)) for load_s, quota_s in pairs]
        return sum(steps_s) * (1 + sum(loads_s) / computing_s)

    def _loads_s(self, busy: Sequence[_Slot]) -> list[float]:
        """Seconds that each LLM's weights take to load in a round."""
        guests = sum(not slot.model.stays for slot in busy)
        return [self._load_s(slot) if guests > 1 else 0.0 for slot in busy]

    def _load_s(self, slot: _Slot) -> float:
        model = slot.model
        return 0.0 if model.stays else model.weight_bytes / self.spec.host_bytes_per_s

    def _stall_s(self, slot: _Slot, at_s: float) -> float:
        """Seconds until an LLM can go on: its weights and KV come in, others' KV goes out."""
        in_s = slot.away_bytes / self.spec.host_bytes_per_s
        slot.away_bytes = 0
        if not slot.model.stays and self._loaded not in (None, slot):
            ahead_s = at_s - max(self._ready_s, slot.wanted_s) if self.spec.prefetches else 0.0
            in_s += max(0.0, self._load_s(slot) - max(0.0, ahead_s))
        return max(in_s, self._make_room(slot) / self.spec.host_bytes_per_s)

    def _make_room(self, slot: _Slot) -> int:
        """Bytes of other LLMs' KV that must leave for an LLM's turn, of the last turn first."""
        own_bytes = slot.kv_bytes
        over_bytes = own_bytes - slot.model.spec.kv_blocks * slot.model.block_bytes
        there: list[tuple[_Slot, int]] = []
        for other in self._slots.values():
            if other is not slot and other.inflight:
                kv_bytes = other.kv_bytes
                other.away_bytes = min(other.away_bytes, kv_bytes)
                there.append((other, kv_bytes - other.away_bytes))
                over_bytes += kv_bytes - other.away_bytes
            elif other is not slot:
                other.away_bytes = 0
        went_bytes = 0
        for other, bytes_there in sorted(there, key=lambda pair: -pair[0].turn_s):
            leaves_bytes = max(0, min(over_bytes - went_bytes, bytes_there))
            other.away_bytes += leaves_bytes
            went_bytes += leaves_bytes
        return went_bytes


def _precedence(slot: _Slot) -> tuple[bool, float]:
    """Those with prompts by their oldest, then the others by their last turn."""
    oldest = next(iter(slot.new.values()), None)
    return (oldest is None, slot.turn_s if oldest is None else oldest[0])
