"""What a dispatcher hears of calls that were sent, and when.

A gateway by itself hears at once. Where several gateways or a shared store stand between, what
happened comes late: then a dispatcher decides by what was true a while ago. That may cost time,
but no call: which calls wait here, and which replicas can be reached, each gateway knows itself.
And who goes on with a prompt has had the answer, whether that was heard or not.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from scepsy.errors import InputError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch, Dispatcher
from scepsy.policy.route import CallView

_INF = float("inf")


@dataclass(frozen=True, slots=True)
class Began:
    """The first token of a call came."""

    call: CallView


@dataclass(frozen=True, slots=True)
class Ended:
    """A call ended."""

    call: CallView
    result: CallResult


@dataclass(frozen=True, slots=True)
class Left:
    """A call left its replica without an answer."""

    call: CallView


@dataclass(frozen=True, slots=True)
class Over:
    """No call of an execution follows."""

    execution: ExecutionId


Happened = Began | Ended | Left | Over


class News(Protocol):
    """Where what happens is put, and from where it comes: a shared store would stand behind it."""

    def put(self, now_s: float, what: Happened) -> None:
        """Something happened here."""
        ...

    def take(self, now_s: float) -> list[Happened]:
        """What has come by now and was not taken yet, in the order in which it happened."""
        ...

    @property
    def next_s(self) -> float:
        """When something comes that has happened already; infinite where nothing has."""
        ...


class Late:
    """News of this gateway alone that is always so old."""

    def __init__(self, delay_s: float) -> None:
        """Nothing has happened.

        Raises:
            InputError: the delay is negative.
        """
        if not delay_s >= 0:
            raise InputError(f"news cannot come {-delay_s:g} s before it happens")
        self._delay_s = delay_s
        self._coming: deque[tuple[float, Happened]] = deque()

    def put(self, now_s: float, what: Happened) -> None:
        """It comes later."""
        self._coming.append((now_s + self._delay_s, what))

    def take(self, now_s: float) -> list[Happened]:
        """What is old enough."""
        found: list[Happened] = []
        while self._coming and self._coming[0][0] <= now_s:
            found.append(self._coming.popleft()[1])
        return found

    @property
    def next_s(self) -> float:
        """When the oldest is old enough."""
        return self._coming[0][0] if self._coming else _INF


class Informed:
    """A dispatcher that hears of calls that were sent through the news alone.

    A call that is sent a second time needs another id.
    """

    def __init__(self, inner: Dispatcher, news: News) -> None:
        """Take who decides, and how it hears."""
        self._inner, self._news = inner, news
        self._sent: dict[str, ReplicaName] = {}
        self._unheard: dict[ExecutionId, dict[str, CallView]] = {}
        """Calls that were sent, and of whose end nothing was heard."""

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """Known at once."""
        self._inner.joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """Known at once: it can't be reached."""
        gone = {call for call, name in self._sent.items() if name == replica}
        self._sent = {call: name for call, name in self._sent.items() if call not in gone}
        for own in tuple(self._unheard.values()):
            for call in [each for each in own.values() if each.id in gone]:
                self._heard(call)
        self._inner.lost(now_s, replica)

    def arrived(self, now_s: float, call: CallView) -> None:
        """Known at once: it waits here. If it goes on where another call ended, that one has."""
        self._hear(now_s)
        for before in tuple(self._unheard.get(call.execution, {}).values()):
            if before.id not in self._sent and _extends(call, before):
                tokens = call.prompt_tokens - before.prompt_tokens
                self._ended(now_s, before, CallResult(output_tokens=tokens))
        self._inner.arrived(now_s, call)

    def take(self, now_s: float) -> list[Dispatch]:
        """What goes by what is known."""
        self._hear(now_s)
        found = self._inner.take(now_s)
        for each in found:
            self._sent[each.call.id] = each.replica
            self._unheard.setdefault(each.call.execution, {})[each.call.id] = each.call
        return found

    def first_token(self, now_s: float, call: CallView) -> None:
        """For the news."""
        if call.id in self._sent:
            self._news.put(now_s, Began(call))

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """For the news."""
        if self._sent.pop(call.id, None) is not None:
            self._news.put(now_s, Ended(call, result))

    def dropped(self, now_s: float, call: CallView) -> None:
        """Known at once of a call that waited; of others for the news."""
        if self._sent.pop(call.id, None) is not None:
            self._news.put(now_s, Left(call))
        else:
            self._inner.dropped(now_s, call)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """For the news."""
        self._news.put(now_s, Over(execution))

    @property
    def next_s(self) -> float:
        """When something is heard, or more may go."""
        return min(self._inner.next_s, self._news.next_s)

    def _hear(self, now_s: float) -> None:
        for what in self._news.take(now_s):
            match what:
                case Began(call):
                    self._inner.first_token(now_s, call)
                case Ended(call, result):
                    self._ended(now_s, call, result)
                case Left(call):
                    self._heard(call)
                    self._inner.dropped(now_s, call)
                case Over(execution):
                    self._inner.over(now_s, execution)

    def _ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        if self._heard(call):
            self._inner.ended(now_s, call, result)

    def _heard(self, call: CallView) -> bool:
        own = self._unheard.get(call.execution, {})
        is_new = own.pop(call.id, None) is not None
        if is_new and not own:
            del self._unheard[call.execution]
        return is_new


def _extends(call: CallView, before: CallView) -> bool:
    """Whether a prompt is another one, with more."""
    blocks = before.prefix_blocks
    at = len(blocks) - 1
    return (
        0 <= at < len(call.prefix_blocks)
        and call.prefix_blocks[at] == blocks[at]
        and call.prompt_tokens > before.prompt_tokens
    )
