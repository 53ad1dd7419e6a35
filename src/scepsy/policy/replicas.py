"""The replicas of one LLM as a router knows them: their names, and what is in flight on each."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from scepsy.errors import InputError
from scepsy.model.execution import ReplicaName

_STALE_PER_REPLICA = 4
"""Outdated entries of the heap for each replica before it is built anew."""


class NoReplicaLeft(Exception):  # noqa: N818 - an outcome, not a fault
    """Every replica of the LLM is among those that must not be used."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What one replica works on now."""

    calls: int
    tokens: int
    """Prompt tokens of those calls."""


class ReplicaSet:
    """Counts calls from their start to their end. The least loaded is found in logarithmic time."""

    def __init__(self, names: Iterable[ReplicaName] = ()) -> None:
        self._load: dict[ReplicaName, tuple[int, int]] = dict.fromkeys(names, (0, 0))
        self._heap = [(0, 0, name) for name in self._load]
        heapify(self._heap)
        self._answered = 0
        self._answer_tokens = 0

    @property
    def names(self) -> Collection[ReplicaName]:
        """The replicas, in the order in which they came."""
        return self._load.keys()

    def inflight(self, name: ReplicaName) -> InFlight:
        """What a replica of the set works on."""
        return InFlight(*self._load[name])

    @property
    def loads(self) -> Mapping[ReplicaName, tuple[int, int]]:
        """Calls in flight on each replica, and their prompt tokens."""
        return self._load

    def add(self, name: ReplicaName) -> None:
        """A replica has come; nothing is in flight on it."""
        if name in self._load:
            raise InputError(f"replica {name} is there already")
        self._put(name, (0, 0))

    def remove(self, name: ReplicaName) -> None:
        """A replica has gone, and what was in flight on it."""
        del self._load[name]

    def started(self, name: ReplicaName, prompt_tokens: int) -> None:
        """A call was sent to a replica."""
        calls, tokens = self._load[name]
        self._put(name, (calls + 1, tokens + prompt_tokens))

    @property
    def answer_tokens(self) -> float:
        """Output tokens of a call in the mean, of those that have ended and have some; else 0."""
        return self._answer_tokens / self._answered if self._answered else 0.0

    def answered(self, answer_tokens: int) -> None:
        """An answer came, of so many tokens; where ``ended`` is not told."""
        self._answered += 1
        self._answer_tokens += answer_tokens

    def ended(
        self, name: ReplicaName, prompt_tokens: int, answer_tokens: int | None = None
    ) -> None:
        """A call that was sent to a replica is over, however it ended.

        Where its answer did not come, or nobody knows how long it was, it has no tokens.
        """
        if answer_tokens is not None:
            self.answered(answer_tokens)
        if name in self._load:
            calls, tokens = self._load[name]
            self._put(name, (calls - 1, tokens - prompt_tokens))

    def least_loaded(self, without: Collection[ReplicaName] = ()) -> ReplicaName:
        """Fewest calls in flight, then fewest tokens; ties go to the first name.

        Raises:
            NoReplicaLeft: there is none, or all are in ``without``.
        """
        if without:
            left = ((*load, name) for name, load in self._load.items() if name not in without)
            best = min(left, default=None)
            if best is None:
                raise NoReplicaLeft
            return best[2]
        heap = self._heap
        while heap:
            calls, tokens, name = heap[0]
            if self._load.get(name) == (calls, tokens):
                return name
            heappop(heap)
        raise NoReplicaLeft

    def _put(self, name: ReplicaName, load: tuple[int, int]) -> None:
        self._load[name] = load
        if len(self._heap) > (1 + _STALE_PER_REPLICA) * len(self._load):
            self._heap = [(*load, name) for name, load in self._load.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (*load, name))
