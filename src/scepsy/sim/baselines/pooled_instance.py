"""GPUs that several LLMs have by turns, of which not all fit: to switch can cost a transfer.

What fits stays in GPU memory; other weights and KV come from host memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from scepsy.errors import UnknownNameError
from scepsy.model.workflow import LlmName
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.baselines.turns import quotas_s
from scepsy.sim.engine import Engine, EngineCall, EngineEvent
from scepsy.sim.turn_memory import make_room
from scepsy.sim.turns import SharedGpus, TurnTaker


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


class _Slot(TurnTaker):
    """One LLM."""

    def __init__(self, gpus: SharedGpus, model: PooledLlm) -> None:
        super().__init__(gpus, Engine(model.spec))
        self.model = model
        self.block_size = model.block_bytes


class PooledInstance(SharedGpus):
    """Used like an engine, but for the LLM of each call."""

    def __init__(self, spec: PooledSpec) -> None:
        super().__init__()
        self.spec = spec
        self._slots = {model.llm: _Slot(self, model) for model in spec.llms}
        self.members += self._slots.values()
        self._loaded: _Slot | None = None
        """Whose weights are there, of those that do not stay."""
        self._all_stay = all(model.stays for model in spec.llms)

    def serve(self, now_s: float, llm: LlmName, call: EngineCall) -> None:
        """Let a call arrive.

        Raises:
            UnknownNameError: the LLM is not served here.
        """
        slot = self._slots.get(llm)
        if slot is None:
            raise UnknownNameError("LLM of the instance", llm, self._slots)
        self.submit(now_s, slot, call)

    @property
    def next_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when idle."""
        return self.now_s if self.has_news else self.next_of_active_s

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since last time, in time order."""
        self.run_to(now_s)
        if not self.has_news:
            return []
        self.has_news = False
        events = [event for slot in self._slots.values() for event in slot.advance(now_s)]
        return sorted(events, key=_at_s)

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
        waits_s = sum(slot.prompt_tokens * slot.model.prompt_token_s for slot in busy)
        return waits_s + step_s * steps + adds_s * (1 + self.inflight)

    def _switch(self, at_s: float) -> None:
        super()._switch(at_s)
        slot = self._slot_of(self._active)
        if not slot.model.stays:
            self._loaded = slot

    def _turn_length_s(self, active: TurnTaker) -> float:
        busy = [slot for slot in self._slots.values() if slot.inflight]
        steps_s = [slot.model.decode_s(len(slot.inflight)) for slot in busy]
        return self._quotas_s(steps_s, self._loads_s(busy))[busy.index(self._slot_of(active))]

    def _slot_of(self, member: TurnTaker | None) -> _Slot:
        assert isinstance(member, _Slot), "no others are added"
        return member

    def _quotas_s(self, steps_s: Sequence[float], loads_s: Sequence[float]) -> list[float]:
        return quotas_s(steps_s, switching_s=sum(loads_s), token_target_s=self.spec.token_target_s)

    def _step_s(self, busy: Sequence[_Slot], joins: _Slot | None = None) -> float:
        """Seconds in which each call gets a token, in the mean over a round, if one more joins."""
        steps_s = [slot.model.decode_s(len(slot.inflight) + (slot is joins)) for slot in busy]
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

    def _stall_s(self, member: TurnTaker, at_s: float) -> float:
        """Its weights and KV come in, others' KV goes out."""
        slot = self._slot_of(member)
        in_s = slot.away / self.spec.host_bytes_per_s
        if not slot.model.stays and self._loaded not in (None, slot):
            ahead_s = at_s - max(self._ready_s, slot.wanted_s) if self.spec.prefetches else 0.0
            in_s += max(0.0, self._load_s(slot) - max(0.0, ahead_s))
        room_bytes = slot.model.spec.kv_blocks * slot.model.block_bytes
        went_bytes = sum(size for _, size in make_room(slot, room_bytes, self._slots.values()))
        return max(in_s, went_bytes / self.spec.host_bytes_per_s)

    def _turn_cost_s(self, at_s: float) -> float:
        """What is measured of turns of LLMs that all stay; others have longer turns, and stalls."""
        return super()._turn_cost_s(at_s) if self._all_stay else 0.0


def _at_s(event: EngineEvent) -> float:
    return event.at_s
