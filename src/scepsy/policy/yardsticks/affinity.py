"""Session affinity, as routers in front of vLLM have it: ``docs/reference/yardsticks``."""

# ruff: noqa: ARG002  (a dispatcher uses some of what it is told)

from collections import Counter

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.eager import Eager


class Homes:
    """Where each execution's calls go: where its first one went, with the fewest executions."""

    def __init__(self) -> None:
        self._home: dict[ExecutionId, ReplicaName] = {}
        self._live: Counter[ReplicaName] = Counter()

    def of(self, call: CallView, replicas: dict[ReplicaName, int]) -> ReplicaName:
        """A home, new where there is none among the replicas.

        Args:
            call: of the execution.
            replicas: those that are up, and the calls on each.
        """
        home = self._home.get(call.execution)
        if home is None or home not in replicas:
            live = self._live
            home = min(replicas, key=lambda name: (live[name], replicas[name], name))
            self.move(call.execution, home)
        return home

    def get(self, execution: ExecutionId) -> ReplicaName | None:
        """The home that it has."""
        return self._home.get(execution)

    def move(self, execution: ExecutionId, home: ReplicaName) -> None:
        """From now on it lives there."""
        self.over(execution)
        self._home[execution] = home
        self._live[home] += 1

    def over(self, execution: ExecutionId) -> None:
        """It needs none any more."""
        if (home := self._home.pop(execution, None)) is not None:
            self._live[home] -= 1


class SessionAffinity(Eager):
    """All calls of an execution go to one replica, the one with the fewest executions at first."""

    def __init__(self) -> None:
        """No execution has a home."""
        super().__init__()
        self._homes = Homes()

    def choose(self, call: CallView) -> ReplicaName:
        """The execution's home."""
        return self._homes.of(call, {name: len(w.calls) for name, w in self.workers.items()})

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Its home has one execution less."""
        self._homes.over(execution)
