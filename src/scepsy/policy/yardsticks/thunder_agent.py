"""ThunderAgent (arXiv 2602.13692): programs are paused at tool boundaries where KV is short.

``docs/reference/yardsticks/thunder-agent.md`` says what was taken and what was assumed.
"""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from collections.abc import Iterable
from dataclasses import dataclass, field

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.worker import Worker

INTERVAL_S = 5.0
"""Between two looks at the replicas."""
BUFFER_TOKENS = 100
"""Kept free for each program of a replica."""
FORCED_S = 1800.0
"""A program that has waited for so long goes on whatever there is."""

_Key = tuple[ExecutionId, Role]


@dataclass(slots=True, eq=False)
class _Program:
    """An agent of an execution."""

    key: _Key
    tokens: int = 0
    """Of its context, by the last call that began or ended."""
    home: ReplicaName | None = None
    """None: it is paused."""
    origin: ReplicaName | None = None
    """Its home before it was paused."""
    steps: int = 0
    running: dict[str, CallView] = field(default_factory=dict)
    """Calls that were sent."""
    waiting: list[CallView] = field(default_factory=list)
    """Calls that wait for it to be resumed."""
    paused_s: float = 0.0
    acting_s: float = 0.0
    """Since when a tool works."""
    is_marked: bool = False
    """To be paused when its calls have ended."""

    @property
    def is_reasoning(self) -> bool:
        return bool(self.running or self.waiting)


class ThunderAgent:
    """A call of a program that runs goes at once; those of paused programs wait."""

    def __init__(self, *, acting_decays: bool = False) -> None:
        """No replica is up.

        Args:
            acting_decays: count the KV of a program in its tool for less, by half each second,
                when it is decided what to resume.
        """
        self._acting_decays = acting_decays
        self._workers: dict[ReplicaName, Worker] = {}
        self._homed: dict[ReplicaName, dict[_Key, _Program]] = {}
        self._programs: dict[_Key, _Program] = {}
        self._paused: dict[_Key, _Program] = {}
        self._ready: list[Dispatch] = []
        self._check_s = float("inf")

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """It may take programs."""
        self._workers[replica] = Worker(capacity)
        self._homed[replica] = {}

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """Its programs are paused, and their calls arrive again."""
        del self._workers[replica]
        for program in self._homed.pop(replica).values():
            program.running.clear()
            program.home, program.is_marked = None, False
            self._wait(now_s, program)

    def arrived(self, now_s: float, call: CallView) -> None:
        """It is sent to its program's home, or waits until there is one."""
        key = call.execution, call.role
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = _Program(key)
        program.steps += 1
        others = sum(each.prompt_tokens for each in program.running.values())
        program.tokens = call.prompt_tokens + others
        if self._check_s == float("inf"):
            self._check_s = now_s + INTERVAL_S
        if program.home is None and key not in self._paused:
            self._settle(program)
        if program.home is None:
            program.waiting.append(call)
            if key not in self._paused:
                self._wait(now_s, program)
        else:
            self._send(program, program.home, call)

    def take(self, now_s: float) -> list[Dispatch]:
        """What arrived for programs that run, and what was resumed."""
        if now_s >= self._check_s:
            self._look(now_s)
        ready, self._ready = self._ready, []
        return ready

    def first_token(self, now_s: float, call: CallView) -> None:
        """A program runs from the arrival of its calls to their end."""

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """With the last call its program begins to act, or is paused if it was to be."""
        self._leave(now_s, call, call.prompt_tokens + result.output_tokens)

    def dropped(self, now_s: float, call: CallView) -> None:
        """It neither waits nor runs."""
        program = self._programs.get((call.execution, call.role))
        if program is not None and call in program.waiting:
            program.waiting.remove(call)
        else:
            self._leave(now_s, call, call.prompt_tokens)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Its programs are released."""
        for key in [key for key in self._programs if key[0] == execution]:
            program = self._programs.pop(key)
            self._paused.pop(key, None)
            if program.home is not None:
                del self._homed[program.home][key]
                for call in program.running.values():
                    self._workers[program.home].end(call)

    @property
    def next_s(self) -> float:
        """The next look at the replicas; at once where calls can go."""
        return float("-inf") if self._ready else self._check_s

    def _leave(self, now_s: float, call: CallView, tokens: int) -> None:
        program = self._programs.get((call.execution, call.role))
        if program is None or program.running.pop(call.id, None) is None:
            return
        assert program.home is not None
        self._workers[program.home].end(call)
        if program.running:
            return
        program.tokens, program.acting_s = tokens, now_s
        if program.is_marked:
            self._pause(now_s, program)

    def _send(self, program: _Program, home: ReplicaName, call: CallView) -> None:
        program.running[call.id] = call
        self._workers[home].start(call)
        self._ready.append(Dispatch(call, home))

    def _settle(self, program: _Program) -> None:
        """A new program has the replica with the least in use, if nobody waits and it fits."""
        if self._paused:
            return
        room = [
            (self._used_tokens(name), name)
            for name in self._workers
            if self._room_tokens(name) >= program.tokens + BUFFER_TOKENS
        ]
        if room:
            self._house(program, min(room)[1])

    def _house(self, program: _Program, home: ReplicaName) -> None:
        program.home, program.origin = home, None
        self._homed[home][program.key] = program

    def _pause(self, now_s: float, program: _Program) -> None:
        assert program.home is not None
        del self._homed[program.home][program.key]
        program.origin, program.home, program.is_marked = program.home, None, False
        self._wait(now_s, program)

    def _wait(self, now_s: float, program: _Program) -> None:
        program.paused_s = now_s
        self._paused[program.key] = program

    def _resume(self, program: _Program, home: ReplicaName) -> None:
        del self._paused[program.key]
        self._house(program, home)
        for call in program.waiting:
            self._send(program, home, call)
        program.waiting.clear()

    def _look(self, now_s: float) -> None:
        """Resume what fits, then pause until each replica has room for its programs."""
        self._check_s = now_s + INTERVAL_S if self._programs else float("inf")
        if not self._workers:
            return
        for program in list(self._paused.values()):
            if program.waiting and now_s - program.paused_s >= FORCED_S:
                origin = program.origin if program.origin in self._workers else None
                least = min(self._workers, key=lambda name: (len(self._homed[name]), name))
                self._resume(program, origin or least)
        self._resume_all(now_s)
        for name in self._workers:
            self._pause_until_it_fits(now_s, name)

    def _resume_all(self, now_s: float) -> None:
        """Those with calls, new ones, those in their tools, each by size, as many as fit.

        Then the largest goes to the replica with most room, and so on.
        """
        room = {name: self._room_tokens(name, now_s) for name in self._workers}
        room = {name: tokens for name, tokens in room.items() if tokens > BUFFER_TOKENS}
        left = sum(room.values())
        chosen: list[_Program] = []
        for program in sorted(self._paused.values(), key=_resume_order):
            if program.tokens + BUFFER_TOKENS <= left:
                chosen.append(program)
                left -= program.tokens + BUFFER_TOKENS
        for program in sorted(chosen, key=lambda each: -each.tokens):
            if not room:
                return
            home = max(room, key=lambda name: room[name])
            needed = program.tokens + BUFFER_TOKENS
            if needed <= room[home]:
                self._resume(program, home)
                room[home] -= needed
                if room[home] <= BUFFER_TOKENS:
                    del room[home]

    def _pause_until_it_fits(self, now_s: float, name: ReplicaName) -> None:
        """The smallest of those in their tools, then the smallest of those that run."""
        room = self._room_tokens(name)
        if room >= 0:
            return
        programs = sorted(self._homed[name].values(), key=_pause_order)
        room += sum(each.tokens for each in programs if each.is_marked)
        for program in programs:
            if room >= 0:
                return
            if program.is_marked:
                continue
            room += program.tokens + BUFFER_TOKENS
            if program.running:
                program.is_marked = True
            else:
                self._pause(now_s, program)

    def _used_tokens(self, name: ReplicaName, now_s: float | None = None) -> float:
        """KV of a replica's programs: of those that run what is held, each shared block once."""
        programs = self._homed[name].values()
        return self._workers[name].held_tokens + sum(
            self._weight(each, now_s) * each.tokens for each in _acting(programs)
        )

    def _room_tokens(self, name: ReplicaName, now_s: float | None = None) -> float:
        capacity, programs = self._workers[name].capacity, len(self._homed[name])
        return capacity.kv_tokens - self._used_tokens(name, now_s) - BUFFER_TOKENS * programs

    def _weight(self, program: _Program, now_s: float | None) -> float:
        if now_s is None or not self._acting_decays:
            return 1.0
        return float(2.0 ** (program.acting_s - now_s))


def _acting(programs: Iterable[_Program]) -> Iterable[_Program]:
    return (program for program in programs if not program.running)


def _resume_order(program: _Program) -> tuple[int, int]:
    if program.steps <= 1:
        return 1, program.tokens
    return 0 if program.is_reasoning else 2, program.tokens


def _pause_order(program: _Program) -> tuple[bool, int]:
    return bool(program.running), program.tokens
