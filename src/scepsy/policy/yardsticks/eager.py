"""What dispatchers have in common that send every call when it arrives."""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from abc import ABC, abstractmethod

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.worker import Worker


class Eager(ABC):
    """A call waits only where no replica is up."""

    def __init__(self) -> None:
        """No replica is up."""
        self.workers: dict[ReplicaName, Worker] = {}
        self._waiting: dict[str, CallView] = {}
        self._sent: dict[str, ReplicaName] = {}

    @abstractmethod
    def choose(self, call: CallView) -> ReplicaName:
        """One of the replicas that are up, of which there is one at least."""

    def cached_tokens(self, call: CallView, replica: ReplicaName) -> int:
        """Prompt tokens that a replica is thought to have."""
        return 0

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """It may be chosen."""
        self.workers[replica] = Worker(capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """It may not."""
        del self.workers[replica]
        self._sent = {call: name for call, name in self._sent.items() if name != replica}

    def arrived(self, now_s: float, call: CallView) -> None:
        """It goes with the next ``take``."""
        self._waiting[call.id] = call

    def take(self, now_s: float) -> list[Dispatch]:
        """All that wait, first come first, if any replica is up."""
        if not self._waiting or not self.workers:
            return []
        found = []
        for call in self._waiting.values():
            name = self.choose(call)
            self.workers[name].start(call, self.cached_tokens(call, name))
            self._sent[call.id] = name
            found.append(Dispatch(call, name))
        self._waiting.clear()
        return found

    def first_token(self, now_s: float, call: CallView) -> None:
        """Its prompt is computed."""
        if (name := self._sent.get(call.id)) is not None:
            self.workers[name].first_token(call)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """It is no longer in flight."""
        self._leave(call)

    def dropped(self, now_s: float, call: CallView) -> None:
        """It neither waits nor is in flight."""
        if self._waiting.pop(call.id, None) is None:
            self._leave(call)

    def over(self, now_s: float, execution: ExecutionId) -> None:  # noqa: B027
        """Nothing is kept of executions."""

    @property
    def next_s(self) -> float:
        """Nothing comes of waiting."""
        return float("inf")

    def _leave(self, call: CallView) -> None:
        if (name := self._sent.pop(call.id, None)) is not None:
            self.workers[name].end(call)
