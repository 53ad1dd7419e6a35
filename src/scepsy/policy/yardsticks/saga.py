"""SAGA (arXiv 2605.00528): where its calls go, what is stolen, and whose turn it is.

What its engines keep is in ``scepsy.policy.retain_saga``. ``docs/reference/yardsticks/saga.md``
says what was taken and what was assumed.
"""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from random import Random

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.prefix_index import PrefixIndex
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.affinity import Homes
from scepsy.policy.yardsticks.fair_share import FairShare
from scepsy.policy.yardsticks.queued import Queued

BUSY = 0.8
"""Load from which on a session is not sent home."""
EPOCH_S = 0.1
"""Between two looks for work to steal, and how long a thief must have been idle."""
APART = 2.0
"""Most over least load from which on work is stolen."""
STEALS = 4
"""In one epoch."""
MOVE_S = 0.23
"""Published mean time to move a session with its KV."""
_ALL = 1 << 20
"""Replicas that are told of one prompt: there are fewer."""
STICKY_S = 1.0
"""A session that was stolen stays for so long. Assumed: a guard is named, no value."""


class Saga(Queued):
    """A queue for each replica, in the order of arrival within a tenant."""

    def __init__(self, *, load_is_kv: bool = False, seed: int = 0) -> None:
        """Nothing is known.

        Args:
            load_is_kv: a replica's load is its KV in use over what there is; else its calls over
                what its batch takes.
            seed: of what chance decides: whom to steal from.
        """
        super().__init__()
        self._load_is_kv = load_is_kv
        self._rng = Random(seed)
        self._homes = Homes()
        self._shares = FairShare()
        self._idle_s: dict[ReplicaName, float] = {}
        self._stolen_s: dict[ExecutionId, float] = {}
        self._moved: dict[str, int] = {}
        """Calls that come with so many blocks."""
        self._epoch_s = float("inf")
        self._index = PrefixIndex()

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """It is idle."""
        if not self.workers:
            self._index = PrefixIndex(capacity.kv_tokens // capacity.block_tokens)
        self._idle_s[replica] = now_s
        super().joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """Nothing can be stolen from it or by it."""
        self._idle_s.pop(replica, None)
        self._index.forget(replica)
        super().lost(now_s, replica)

    def arrived(self, now_s: float, call: CallView) -> None:
        """Its task is live."""
        self._shares.arrived(now_s, call)
        super().arrived(now_s, call)

    def choose(self, now_s: float, call: CallView) -> ReplicaName:
        """Home, unless that is busy: then the least loaded, which is home from now on."""
        home = self._homes.get(call.execution)
        if home in self.workers and self._load(home) < BUSY:
            return home
        least = min(self.workers, key=lambda name: (self._load(name), self._calls(name), name))
        if home is None or home not in self.workers or self._load(least) < self._load(home):
            self._homes.move(call.execution, least)
            return least
        return home

    def next_of(self, now_s: float, name: ReplicaName) -> CallView | None:
        """The oldest of the tenant whose turn it is, if it fits or nothing runs."""
        call = self._shares.first(now_s, self.queues[name].values())
        return call if self.fits(call, name) or not self.workers[name].calls else None

    def take(self, now_s: float) -> list[Dispatch]:
        """What fits, after stealing."""
        if now_s >= self._epoch_s:
            self._steal_all(now_s)
        found = []
        for call, name, *_ in super().take(now_s):
            self._index.saw(name, call.prefix_blocks)
            moved = self._moved.pop(call.id, 0)
            found.append(Dispatch(call, name, moved, MOVE_S if moved else 0.0))
        for name in self.workers:
            if self._calls(name):
                self._idle_s.pop(name, None)
            else:
                self._idle_s.setdefault(name, now_s)
        self._epoch_s = now_s + EPOCH_S if self._is_uneven() else float("inf")
        return found

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """What it took counts for its tenant."""
        name = self._at[call.id]
        self._index.saw(name, call.prefix_blocks)
        capacity = self.workers[name].capacity
        cached = min(result.cached_tokens or 0, call.prompt_tokens)
        decode_s = result.output_tokens * capacity.decode_s
        self._shares.used(call, capacity.prefill_s(call.prompt_tokens, cached) + decode_s)
        super().ended(now_s, call, result)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Its task has ended."""
        self._homes.over(execution)
        self._shares.over(now_s, execution)
        self._stolen_s.pop(execution, None)

    @property
    def next_s(self) -> float:
        """The next look for work to steal, while there may be any."""
        return self._epoch_s

    def _calls(self, name: ReplicaName) -> int:
        return len(self.workers[name].calls) + len(self.queues[name])

    def _load(self, name: ReplicaName) -> float:
        worker = self.workers[name]
        if not self._load_is_kv:
            return self._calls(name) / worker.capacity.seqs
        queued = sum(call.prompt_tokens for call in self.queues[name].values())
        return (worker.held_tokens + queued) / worker.capacity.kv_tokens

    def _is_uneven(self) -> bool:
        if not any(self.queues.values()):
            return False
        counts = [self._calls(name) for name in self.workers]
        return max(counts) > APART * min(counts)

    def _steal_all(self, now_s: float) -> None:
        for _ in range(STEALS):
            thief = min(self.workers, key=lambda name: (self._calls(name), name))
            least = self._calls(thief)
            if not least and now_s - self._idle_s.get(thief, now_s) < EPOCH_S:
                return
            victims = [
                name
                for name in self.workers
                if self.queues[name] and self._calls(name) > max(1, APART * least)
            ]
            if not victims or not self._steal(now_s, thief, self._rng.choice(victims)):
                return

    def _steal(self, now_s: float, thief: ReplicaName, victim: ReplicaName) -> bool:
        """The session that has waited for longest, with its KV."""
        for call in self.queues[victim].values():
            stolen_s = self._stolen_s.get(call.execution)
            if stolen_s is not None and now_s - stolen_s < STICKY_S:
                continue
            del self.queues[victim][call.id]
            self._homes.move(call.execution, thief)
            self._stolen_s[call.execution] = now_s
            self._moved[call.id] = self._index.hits(call.prefix_blocks, _ALL).get(victim, 0)
            self.put(call, thief)
            return True
        return False
