"""What a dispatcher believes of replicas: what runs there, and whose KV is there still.

A *context* is the KV that a call left behind, for the next call that extends it. Beliefs are the
dispatcher's own: engines are assumed to forget what was unused for longest, and what an engine
says that it found cached corrects that. A wrong belief costs time, never a call.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol

from scepsy.model.execution import ReplicaName
from scepsy.policy.dispatch import Capacity

_EIGHTHS = (8, 7, 6, 4, 2, 1)
"""Of a chain at which its block is remembered: where a prompt that was cut short, or that
another agent goes on with, leaves a context is found to so much."""
_SLOWER = 2.0
"""How much longer prompts take beside answers: what is assumed until a first token is seen."""
_HOST_FILL = 0.9
"""Of host memory that may be counted on, as other KV stays there until it is oldest."""
_INF = float("inf")
_SHRINK, _GROW, _LEAST = 0.97, 1.0005, 0.5
"""What a replica is taken to keep, after a context that was not there, and after one that was."""


class Running(Protocol):
    """A call that was sent, as far as it takes room."""

    need_tokens: int


def some_of(blocks: Sequence[int]) -> tuple[int, ...]:
    """The ids of some of a chain's blocks, from the last on: those at ``_EIGHTHS``."""
    length = len(blocks)
    return () if not length else (
        blocks[-1], blocks[length * 7 // 8 - 1], blocks[length * 6 // 8 - 1],
        blocks[length // 2 - 1], blocks[length // 4 - 1], blocks[length // 8 - 1],
    )  # fmt: skip


class Context:
    """KV of one agent. It is idle, or calls that extend it run; then it belongs to them."""

    __slots__ = (
        "_length", "_marks", "calls", "claim_until_s", "host_turn", "is_idle", "is_live",
        "is_wanted", "on_host", "replica", "tokens", "turn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.replica: Replica | None = None
        self.tokens = 0
        self._length = 0  # of the chain that it had, and some of its blocks
        self._marks: tuple[int, ...] = ()
        self.calls = 0
        self.claim_until_s = -1.0  # while it has one: until then no call at the door gets its room
        self.turn = 0  # counts claims; only the last one holds
        self.is_live = False  # it has a claim on host memory, where there is any
        self.host_turn = 0
        self.is_wanted = False  # a call waits for it
        self.is_idle = False
        self.on_host = False

    def vanish(self) -> None:
        """It was on a replica that is lost."""
        self.replica, self.is_idle, self.on_host = None, False, False
        self.claim_until_s, self.is_live = -1.0, False
        self.turn += 1
        self.host_turn += 1

    def remember(self, blocks: int, marks: tuple[int, ...]) -> None:
        """Of a call that ended: how many its prompt has, and the ids of some of them."""
        self._length, self._marks = blocks, marks

    def shared_blocks(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's blocks, from the first on, it surely has."""
        length, there = self._length, len(blocks)
        if 0 < length <= there and blocks[length - 1] == self._marks[0]:
            return length
        for eighths, mark in zip(_EIGHTHS, self._marks, strict=False):
            depth = length * eighths // 8
            if 0 < depth <= there and blocks[depth - 1] == mark:
                return depth
        return 0


class Replica:
    """One replica, as it is believed to be."""

    __slots__ = (
        "_claimed_last", "_trust", "busy_until_s", "capacity", "claimed_tokens", "computing",
        "free_tokens", "host", "host_tokens", "idle", "idle_tokens", "kv_tokens", "live_tokens",
        "name", "room_tokens", "running", "running_tokens", "seqs", "used_tokens", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        name: ReplicaName,
        capacity: Capacity,
        *,
        fill_fraction: float = 1.0,
        claimed_last: bool = True,
    ) -> None:
        """Nothing is there.

        Args:
            name: how it is called.
            capacity: what it holds.
            fill_fraction: of its KV, that calls and claims may take up.
            claimed_last: contexts with a claim are taken to be forgotten last.
        """
        self.name, self.capacity = name, capacity
        self.kv_tokens, self.seqs = capacity.kv_tokens, capacity.seqs
        self.room_tokens = fill_fraction * capacity.kv_tokens
        self.free_tokens = _INF
        """Of that, neither used nor claimed: a call of at most so many fits. Where nothing runs
        any call does."""
        self.running: dict[str, Running] = {}
        self.running_tokens = 0
        self.computing = 0  # calls whose prompts are not computed yet
        self.busy_until_s = float("-inf")  # with those
        self.idle: OrderedDict[Context, None] = OrderedDict()  # on the GPU, the oldest first
        self.idle_tokens = self.claimed_tokens = 0
        self.used_tokens = 0
        """By running calls and claims."""
        self.host: OrderedDict[Context, None] = OrderedDict()
        self.host_tokens = 0
        self.live_tokens = 0  # of contexts that have a claim on host memory
        self.waiting: deque[str] = deque()  # calls whose context is here
        self._trust = 1.0
        self._claimed_last = claimed_last

    def could_fit(self, need_tokens: int, room_tokens: float) -> bool:
        """Whether a call might run here, of which so much counts, if no context had a claim.

        A replica on which nothing runs takes any call.
        """
        if not self.running:
            return True
        used = self.running_tokens + need_tokens
        return used <= room_tokens and len(self.running) < self.seqs

    def takes_on(self, need_tokens: int) -> bool:
        """Whether host memory has room for one more, beside all that run or have a claim on it."""
        room_tokens = self.capacity.host_tokens
        if not room_tokens or not self.running:
            return True
        if self._claimed_last:
            room_tokens += self.kv_tokens  # else what runs may push out what waits there
        return self.running_tokens + self.live_tokens + need_tokens <= _HOST_FILL * room_tokens

    # ---- Calls

    def start(self, now_s: float, call_id: str, call: Running, prefill_s: float) -> None:
        """A call was sent, and older contexts may go for it."""
        self.running[call_id] = call
        self.running_tokens += call.need_tokens
        self._weigh()
        self.computing += 1
        self.busy_until_s = max(now_s, self.busy_until_s) + _SLOWER * prefill_s
        keeps = self.kv_tokens * self._trust
        while self.idle and self.running_tokens + self.idle_tokens > keeps:
            self._evict(self._next_to_go())

    def computed(self, now_s: float) -> None:
        """The prompt of one of its calls is, or will never be."""
        self.computing -= 1
        if not self.computing:
            self.busy_until_s = now_s

    def end(self, call_id: str) -> None:
        """A call has left."""
        self.running_tokens -= self.running.pop(call_id).need_tokens
        self._weigh()

    def found(self, *, as_believed: bool) -> None:
        """Whether a context that was believed to be here was."""
        self._trust = max(_LEAST, min(1.0, self._trust * (_GROW if as_believed else _SHRINK)))

    # ---- Contexts

    def keep(self, context: Context) -> None:
        """Nothing that runs uses it any more."""
        context.replica, context.is_idle, context.on_host = self, True, False
        self.idle[context] = None
        self.idle_tokens += context.tokens

    def claim(self, context: Context, until_s: float) -> None:
        """Calls at the door do not get its room before then."""
        context.claim_until_s = until_s
        context.turn += 1
        self.claimed_tokens += context.tokens
        self._weigh()

    def unclaim(self, context: Context) -> None:
        """They do."""
        if context.claim_until_s >= 0:
            context.claim_until_s = -1.0
            context.turn += 1
            self.claimed_tokens -= context.tokens
            self._weigh()

    def claim_host(self, context: Context) -> None:
        """Calls at the door do not get its room in host memory."""
        context.host_turn += 1
        if not context.is_live:
            context.is_live = True
            self.live_tokens += context.tokens

    def unclaim_host(self, context: Context) -> None:
        """They do."""
        if context.is_live:
            context.is_live = False
            context.host_turn += 1
            self.live_tokens -= context.tokens

    def revoke(self, need_tokens: int, room_tokens: float, spared: Context | None) -> None:
        """Let a call that could fit do so, by taking claims from the oldest on."""
        if not self.running:
            return
        used_tokens = self.used_tokens + need_tokens
        for context in self.idle:
            if used_tokens <= room_tokens:
                break
            if context.claim_until_s >= 0 and context is not spared:
                context.claim_until_s = -1.0
                context.turn += 1
                used_tokens -= context.tokens
        self.claimed_tokens = used_tokens - need_tokens - self.running_tokens
        self._weigh()

    def push_out(self, need_tokens: int) -> None:
        """Let a call be taken on, by taking claims on host memory, the oldest first."""
        if self.takes_on(need_tokens):
            return
        for context in (*self.host, *self.idle):
            if self.takes_on(need_tokens):
                return
            if not context.is_wanted:
                self.unclaim_host(context)

    def release(self, context: Context) -> None:
        """It is not idle here any more: a call uses it, or nobody will."""
        if context.claim_until_s >= 0:
            self.unclaim(context)
        if context.is_live:
            self.unclaim_host(context)
        if context.on_host:
            del self.host[context]
            self.host_tokens -= context.tokens
        elif context.is_idle:
            del self.idle[context]
            self.idle_tokens -= context.tokens
        context.is_idle = context.on_host = False

    def forget(self, context: Context) -> None:
        """Its KV is gone, as far as is known."""
        self.release(context)
        context.replica = None

    def _weigh(self) -> None:
        calls, used_tokens = len(self.running), self.running_tokens + self.claimed_tokens
        self.used_tokens = used_tokens
        if not calls:
            self.free_tokens = _INF
        elif calls >= self.seqs:
            self.free_tokens = -_INF
        else:
            self.free_tokens = self.room_tokens - used_tokens

    def _next_to_go(self) -> Context:
        if self._claimed_last:
            for context in self.idle:
                if context.claim_until_s < 0:
                    return context
        return next(iter(self.idle))

    def _evict(self, context: Context) -> None:
        room = self.capacity.host_tokens
        if context.tokens > room:
            self.forget(context)
            return
        self.unclaim(context)
        del self.idle[context]
        self.idle_tokens -= context.tokens
        context.is_idle = False
        context.on_host = True
        self.host[context] = None
        self.host_tokens += context.tokens
        while self.host and self.host_tokens > room:
            self.forget(self._next_on_host())

    def _next_on_host(self) -> Context:
        if self._claimed_last:
            for context in self.host:
                if not context.is_live:
                    return context
        return next(iter(self.host))
