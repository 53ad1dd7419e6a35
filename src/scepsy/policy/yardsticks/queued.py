"""What dispatchers have in common that keep a queue for each replica, and send what fits there.

An engine's own queue stays empty so, and the order of calls is the dispatcher's.
"""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from abc import ABC, abstractmethod
from collections.abc import Iterable

from scepsy.model.execution import ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.worker import Worker


class Queued(ABC):
    """Calls are put into a replica's queue when they arrive, and sent when they fit."""

    def __init__(self) -> None:
        """No replica is up."""
        self.workers: dict[ReplicaName, Worker] = {}
        self.queues: dict[ReplicaName, dict[str, CallView]] = {}
        self._homeless: dict[str, CallView] = {}
        self._at: dict[str, ReplicaName] = {}
        """Where each call waits or runs."""
        self._stirred: set[ReplicaName] = set()
        """Replicas of which more may fit now."""

    @abstractmethod
    def choose(self, now_s: float, call: CallView) -> ReplicaName:
        """A replica whose queue a call joins; one is up at least."""

    @abstractmethod
    def next_of(self, now_s: float, name: ReplicaName) -> CallView | None:
        """Which of a replica's queue, which is not empty, goes now; None: it does not fit."""

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """It may be chosen."""
        self.workers[replica] = Worker(capacity)
        self.queues[replica] = {}
        waiting, self._homeless = self._homeless, {}
        for call in waiting.values():
            self.arrived(now_s, call)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """It may not; what waits for it waits elsewhere."""
        del self.workers[replica]
        self._stirred.discard(replica)
        waiting = self.queues.pop(replica)
        self._at = {call: name for call, name in self._at.items() if name != replica}
        for call in waiting.values():
            self.arrived(now_s, call)

    def arrived(self, now_s: float, call: CallView) -> None:
        """It joins a queue."""
        if self.workers:
            self.put(call, self.choose(now_s, call))
        else:
            self._homeless[call.id] = call

    def put(self, call: CallView, name: ReplicaName) -> None:
        """Behind all others."""
        self.queues[name][call.id] = call
        self._at[call.id] = name
        self._stirred.add(name)

    def take(self, now_s: float) -> list[Dispatch]:
        """What fits."""
        found: list[Dispatch] = []
        for name in sorted(self._stirred):
            queue = self.queues[name]
            while queue and (call := self.next_of(now_s, name)) is not None:
                del queue[call.id]
                self.workers[name].start(call)
                found.append(Dispatch(call, name))
        self._stirred.clear()
        return found

    def first_token(self, now_s: float, call: CallView) -> None:
        """Its prompt is computed."""
        if (name := self._at.get(call.id)) is not None:
            self.workers[name].first_token(call)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """There is room again."""
        self.leave(call)

    def dropped(self, now_s: float, call: CallView) -> None:
        """It neither waits nor runs."""
        if self._homeless.pop(call.id, None) is None:
            self.leave(call)

    def leave(self, call: CallView) -> None:
        """It neither waits nor runs."""
        if (name := self._at.pop(call.id, None)) is None:
            return
        self._stirred.add(name)
        if self.queues[name].pop(call.id, None) is None:
            self.workers[name].end(call)

    def stir(self, names: Iterable[ReplicaName]) -> None:
        """More may fit now."""
        self._stirred.update(names)

    def fits(self, call: CallView, name: ReplicaName) -> bool:
        """Whether a replica has room for a call beside what is held there."""
        worker = self.workers[name]
        if len(worker.calls) >= worker.capacity.seqs:
            return False
        return worker.held_tokens + worker.more_tokens(call) <= worker.capacity.kv_tokens
