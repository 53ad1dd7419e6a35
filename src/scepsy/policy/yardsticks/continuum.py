"""Continuum (arXiv 2511.02230): KV of a program in a tool is kept for a time; first program first.

``docs/reference/yardsticks/continuum.md`` says what was taken and what was assumed.
"""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role
from scepsy.policy.dispatch import CallResult, Dispatch
from scepsy.policy.program import ToolName
from scepsy.policy.retain import Retention
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.affinity import Homes
from scepsy.policy.yardsticks.queued import Queued
from scepsy.policy.yardsticks.time_to_live import TimeToLive

_Key = tuple[ExecutionId, Role]


@dataclass(slots=True, eq=False)
class _Program:
    began_s: float
    calls: int = 0
    tool: ToolName | None = None
    """That works since the last call."""
    ended_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Pin:
    home: ReplicaName
    until_s: float
    blocks: Sequence[int]


class Continuum(Queued):
    """A queue for each replica: kept programs first, then by their first arrival."""

    def __init__(self) -> None:
        """Nothing is known."""
        super().__init__()
        self._times = TimeToLive()
        self._homes = Homes()
        self._programs: dict[_Key, _Program] = {}
        self._pins: dict[_Key, _Pin] = {}
        self._pinned_names: set[str] = set()
        self._now_s = float("-inf")

    def is_kept(self, program: str) -> bool:
        """Whether an engine is to keep what a program, by the engine's name of it, has cached."""
        return program in self._pinned_names

    def arrived(self, now_s: float, call: CallView) -> None:
        """Its program's tool has ended."""
        program = self._programs.setdefault(_key(call), _Program(now_s))
        if program.tool is not None:
            self._times.tool_took(program.tool, now_s - program.ended_s)
            program.tool = None
        super().arrived(now_s, call)

    def choose(self, now_s: float, call: CallView) -> ReplicaName:
        """Where its execution lives."""
        return self._homes.of(call, {name: len(w.calls) for name, w in self.workers.items()})

    def next_of(self, now_s: float, name: ReplicaName) -> CallView | None:
        """The first in order if it fits; where nothing runs room is made for it."""
        self._expire(now_s, name)
        queue, worker = self.queues[name], self.workers[name]

        def rank(call: CallView) -> tuple[bool, float, float]:
            key = _key(call)
            program = self._programs.get(key)
            began_s = program.began_s if program else call.start_s
            return key not in self._pins, began_s, call.start_s

        call = min(queue.values(), key=rank)
        while not self.fits(call, name):
            others = [key for key, pin in self._pins.items() if pin.home == name]
            others = [key for key in others if key != _key(call)]
            if len(worker.calls) > 1:
                return None
            if not others:
                return None if worker.calls else self._admit(now_s, call)
            self._unpin(max(others, key=lambda key: self._pins[key].until_s))
        return self._admit(now_s, call)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """Where it asks for a tool its program's KV may be kept."""
        name = self._at[call.id]
        super().ended(now_s, call, result)
        program = self._programs.get(_key(call))
        if program is None or not result.tool:
            return
        program.tool, program.ended_s = result.tool, now_s
        context_tokens = call.prompt_tokens + result.output_tokens
        ttl_s = self._times.of(result.tool, self.workers[name].capacity.prefill_s(context_tokens))
        if ttl_s > 0:
            self._unpin(_key(call))
            self._pin(_key(call), _Pin(name, now_s + ttl_s, call.prefix_blocks))

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Its programs need nothing any more."""
        self._homes.over(execution)
        for key in [key for key in self._programs if key[0] == execution]:
            self._times.memory.ended(self._programs.pop(key).calls)
            self._unpin(key)

    def take(self, now_s: float) -> list[Dispatch]:
        """What fits, now that some times to live have ended."""
        self._now_s = now_s
        self.stir(
            pin.home
            for pin in self._pins.values()
            if pin.until_s <= now_s and self.queues[pin.home]
        )
        return super().take(now_s)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """It may not, and keeps nothing."""
        for key in [key for key, pin in self._pins.items() if pin.home == replica]:
            self._unpin(key)
        super().lost(now_s, replica)

    @property
    def next_s(self) -> float:
        """When the next time to live ends where calls wait."""
        return min(
            (
                pin.until_s
                for pin in self._pins.values()
                if pin.until_s > self._now_s and self.queues[pin.home]
            ),
            default=float("inf"),
        )

    def _admit(self, now_s: float, call: CallView) -> CallView:
        key = _key(call)
        program = self._programs.get(key)
        if program is not None:
            if program.calls and key not in self._pins:
                self._times.waited(now_s - call.start_s)
            program.calls += 1
        self._unpin(key)
        return call

    def _expire(self, now_s: float, name: ReplicaName) -> None:
        """Those in time's end, but for programs whose call waits already."""
        waiting = {_key(call) for call in self.queues[name].values()}
        for key, pin in list(self._pins.items()):
            if pin.home == name and pin.until_s <= now_s and key not in waiting:
                self._unpin(key)

    def _pin(self, key: _Key, pin: _Pin) -> None:
        self._pins[key] = pin
        self._pinned_names.add(f"{key[0]}/{key[1]}")
        self.workers[pin.home].hold(pin.blocks)

    def _unpin(self, key: _Key) -> None:
        if (pin := self._pins.pop(key, None)) is not None:
            self._pinned_names.discard(f"{key[0]}/{key[1]}")
            if pin.home in self.workers:
                self.workers[pin.home].free(pin.blocks)
                self.stir([pin.home])


def _key(call: CallView) -> _Key:
    return call.execution, call.role


class KeptLru(dict[int, str | None]):
    """LRU, but for the blocks of programs that are kept: those go when nothing else is left."""

    def __init__(self, is_kept: Callable[[str], bool], below: "KeptLru | None" = None) -> None:
        """Nothing is kept.

        Args:
            is_kept: whether a program's blocks are to stay, asked when room is needed.
            below: for blocks in host memory.
        """
        super().__init__()
        self.below: Retention | None = below
        self._is_kept = is_kept
        self._asked_s = float("-inf")
        self._owner: dict[int, str] = {}
        self._loose: OrderedDict[int, None] = OrderedDict()
        self._aside: dict[str, OrderedDict[int, None]] = {}
        """Blocks of programs that were kept when it was asked last; as a mapping: for each block
        the one of those that it is set aside for."""

    def arrived(self, now_s: float, program: str, chain: Sequence[int]) -> None:
        """What waits is not counted as used."""

    def scheduled(self, now_s: float, program: str) -> None:
        """Blocks count when they are let go of."""

    def ended(self, now_s: float, program: str, kind: str, chain: Sequence[int]) -> None:
        """Note whose its blocks are."""
        self._owner.update(dict.fromkeys(chain, program))
        if self.below is not None:
            self.below.ended(now_s, program, kind, chain)

    def over(self, now_s: float, program: str) -> None:
        """It is not kept any more."""

    def keep(self, blocks: Sequence[int]) -> None:
        """They were used last."""
        for block in blocks:
            self[block] = self._loose[block] = None

    def wake(self, blocks: Sequence[int]) -> None:
        """They are not to be forgotten while they are held."""
        for block in blocks:
            self._take_out(block)

    def evict(self, now_s: float) -> int:
        """The one that was kept first of those that are not to stay, if there is one.

        Who is to stay is asked once at each instant: whole chains go at one.
        """
        if now_s != self._asked_s:
            self._asked_s = now_s
            for program in [each for each in self._aside if not self._is_kept(each)]:
                for block in self._aside.pop(program):
                    self[block] = self._loose[block] = None
        while self._loose:
            block = next(iter(self._loose))
            owner = self._owner.get(block, "")
            if not self._is_kept(owner):
                break
            del self._loose[block]
            self._aside.setdefault(owner, OrderedDict())[block] = None
            self[block] = owner
        else:
            block = next(iter(next(iter(self._aside.values()))))
        self._take_out(block)
        self._owner.pop(block, None)
        return block

    def _take_out(self, block: int) -> None:
        owner = self.pop(block)
        if owner is None:
            del self._loose[block]
            return
        del self._aside[owner][block]
        if not self._aside[owner]:
            del self._aside[owner]
