"""What is known of one live execution, and the states that it goes through.

All transitions are in ``TABLE``: for each state and event either the states that may follow, of
which the calls in flight choose one, or why the event is refused. A refused event changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import NewType

from scepsy.errors import InputError
from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.learned_counts import Counts

TenantName = NewType("TenantName", str)
NO_TENANT = TenantName("")
ToolName = NewType("ToolName", str)
"""What an answer asks for next: a tool's name, or one of the two below."""
NO_TOOL = ToolName("")
"""The answer called no tool: a person, or the program itself, goes on."""
DROPPED = ToolName("(dropped)")
"""There was no answer: the call left before it ran."""


class State(StrEnum):
    """What an execution does now."""

    WAITING = "waiting"
    """Calls wait and none runs."""
    RUNNING = "running"
    """At least one call runs."""
    TOOL_GAP = "tool gap"
    """No call is in flight: a tool, a person or the framework works."""
    PAUSED = "paused"
    """Held at a tool boundary: its calls wait until it is resumed."""
    FINISHED = "finished"
    ABANDONED = "abandoned"
    """Its client left, or nothing was heard of it for too long."""


class Event(StrEnum):
    """What may happen to an execution."""

    CALL_ARRIVED = "call arrived"
    CALL_STARTED = "call started"
    CALL_ENDED = "call ended"
    CALL_DROPPED = "call dropped"
    """A call that waited was refused, or left."""
    PAUSED = "paused"
    RESUMED = "resumed"
    TIMED_OUT = "timed out"
    CLIENT_GONE = "client gone"
    TOLD_FINISHED = "told finished"
    """The client says that no call follows; those in flight go on."""


class Refusal(StrEnum):
    """Why an event is not possible."""

    NO_CALL_WAITS = "no call waits"
    NO_CALL_RUNS = "no call runs"
    CALLS_WAIT = "calls wait"
    CALLS_RUN = "calls run"
    IS_PAUSED = "it is paused"
    NOT_PAUSED = "it is not paused"
    IS_OVER = "it is over"
    UNKNOWN = "no such execution is live"
    FULL = "the table is full of executions with calls in flight"


Step = frozenset[State] | Refusal
"""The states that may follow, or why none does."""


def _to(*states: State) -> frozenset[State]:
    return frozenset(states)


_WAITING, _RUNNING, _GAP, _PAUSED = State.WAITING, State.RUNNING, State.TOOL_GAP, State.PAUSED
_FINISHED, _ABANDONED = State.FINISHED, State.ABANDONED

TABLE: Mapping[State, Mapping[Event, Step]] = {
    _WAITING: {
        Event.CALL_ARRIVED: _to(_WAITING),
        Event.CALL_STARTED: _to(_RUNNING),
        Event.CALL_ENDED: Refusal.NO_CALL_RUNS,
        Event.CALL_DROPPED: _to(_WAITING, _GAP, _FINISHED),
        Event.PAUSED: _to(_PAUSED),
        Event.RESUMED: Refusal.NOT_PAUSED,
        Event.TIMED_OUT: Refusal.CALLS_WAIT,
        Event.CLIENT_GONE: _to(_ABANDONED),
        Event.TOLD_FINISHED: _to(_WAITING),
    },
    _RUNNING: {
        Event.CALL_ARRIVED: _to(_RUNNING),
        Event.CALL_STARTED: _to(_RUNNING),
        Event.CALL_ENDED: _to(_RUNNING, _WAITING, _GAP, _FINISHED),
        Event.CALL_DROPPED: _to(_RUNNING),
        Event.PAUSED: Refusal.CALLS_RUN,
        Event.RESUMED: Refusal.NOT_PAUSED,
        Event.TIMED_OUT: Refusal.CALLS_RUN,
        Event.CLIENT_GONE: _to(_ABANDONED),
        Event.TOLD_FINISHED: _to(_RUNNING),
    },
    _GAP: {
        Event.CALL_ARRIVED: _to(_WAITING),
        Event.CALL_STARTED: Refusal.NO_CALL_WAITS,
        Event.CALL_ENDED: Refusal.NO_CALL_RUNS,
        Event.CALL_DROPPED: Refusal.NO_CALL_WAITS,
        Event.PAUSED: _to(_PAUSED),
        Event.RESUMED: Refusal.NOT_PAUSED,
        Event.TIMED_OUT: _to(_ABANDONED),
        Event.CLIENT_GONE: _to(_ABANDONED),
        Event.TOLD_FINISHED: _to(_FINISHED),
    },
    _PAUSED: {
        Event.CALL_ARRIVED: _to(_PAUSED),
        Event.CALL_STARTED: Refusal.IS_PAUSED,
        Event.CALL_ENDED: Refusal.NO_CALL_RUNS,
        Event.CALL_DROPPED: _to(_PAUSED, _FINISHED),
        Event.PAUSED: Refusal.IS_PAUSED,
        Event.RESUMED: _to(_WAITING, _GAP),
        Event.TIMED_OUT: _to(_ABANDONED),
        Event.CLIENT_GONE: _to(_ABANDONED),
        Event.TOLD_FINISHED: _to(_PAUSED, _FINISHED),
    },
    _FINISHED: dict.fromkeys(Event, Refusal.IS_OVER),
    _ABANDONED: dict.fromkeys(Event, Refusal.IS_OVER),
}

_OVER = frozenset({_FINISHED, _ABANDONED})
_NEXT: Mapping[State, Mapping[Event, State | Refusal | None]] = {
    state: {
        event: step if isinstance(step, Refusal) else next(iter(step)) if len(step) == 1 else None
        for event, step in row.items()
    }
    for state, row in TABLE.items()
}
"""The same table; None where several states may follow."""
_ARRIVED, _STARTED = Event.CALL_ARRIVED, Event.CALL_STARTED
_ENDED, _DROPPED = Event.CALL_ENDED, Event.CALL_DROPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a client says ahead. Forecasts are checked against what happens; wishes are not."""

    next_tool: ToolName | None = None
    """The tool that this call's answer will ask for."""
    gap_s: float | None = None
    """Expected time from this call's end to the next call, > 0."""
    output_tokens: float | None = None
    """Expected length of this call's answer, > 0."""
    deadline_s: float | None = None
    """A wish: when the execution should be over, on the caller's clock."""
    priority: int = 0
    """A wish: the higher, the sooner."""

    def __post_init__(self) -> None:
        for name, value in (("gap_s", self.gap_s), ("output_tokens", self.output_tokens)):
            if value is not None and not (isfinite(value) and value > 0):
                raise InputError(f"hint {name} must be a number > 0, got {value}")
        if self.deadline_s is not None and not isfinite(self.deadline_s):
            raise InputError(f"hint deadline_s must be finite, got {self.deadline_s}")

    def wishes(self) -> "Hints":
        """What still holds for calls that come without hints."""
        if self.next_tool is None and self.gap_s is None and self.output_tokens is None:
            return self
        return Hints(deadline_s=self.deadline_s, priority=self.priority)


NO_HINTS = Hints()


@dataclass(slots=True, kw_only=True)
class Program:
    """A live execution. Only ``handle`` changes its state and its calls.

    Calls are conserved: those that arrived wait, run, have ended, or were dropped.
    """

    execution: ExecutionId
    tenant: TenantName
    workflow: WorkflowName
    start_s: float
    state: State = State.TOOL_GAP
    told_finished: bool = False

    waiting_calls: int = 0
    running_calls: int = 0
    ended_calls: int = 0
    dropped_calls: int = 0

    prompt_tokens: int = 0
    """Of all its calls so far."""
    output_tokens: int = 0
    gpu_s: float = 0.0
    """GPU time that its calls took so far: their GPUs times seconds, as the caller counts it."""
    kv_tokens: dict[LlmName, int] = field(default_factory=dict)
    """Live KV of its last call, on each LLM: what a next call there would start with."""

    stage: Stage | None = None
    """Of the call that arrived last."""
    stage_before: Stage | None = None
    tool: ToolName = NO_TOOL
    """What the answer that ended last asked for."""
    gap_start_s: float = 0.0
    """When the last call in flight left; has a meaning only while none is in flight."""
    gap_node: Counts | None = None
    """What its gap counts for, while it is in one."""
    hints: Hints = NO_HINTS

    @property
    def steps(self) -> int:
        """Calls that arrived so far."""
        return self.waiting_calls + self.running_calls + self.ended_calls + self.dropped_calls

    @property
    def calls_in_flight(self) -> int:
        """Calls that wait or run."""
        return self.waiting_calls + self.running_calls

    @property
    def is_over(self) -> bool:
        """No event is possible any more."""
        return self.state in _OVER

    def handle(self, event: Event) -> State | Refusal:
        """Take an event; give the state that follows, or why the event is refused."""
        found = _NEXT[self.state][event]
        if isinstance(found, Refusal):
            return found
        if event is _ARRIVED:
            self.waiting_calls += 1
        elif event is _ENDED:
            self.running_calls -= 1
            self.ended_calls += 1
        elif event is _STARTED or event is _DROPPED:
            if not self.waiting_calls:
                return Refusal.NO_CALL_WAITS
            self.waiting_calls -= 1
            if event is _STARTED:
                self.running_calls += 1
            else:
                self.dropped_calls += 1
        elif event is Event.TIMED_OUT and self.waiting_calls:
            return Refusal.CALLS_WAIT
        else:
            self._told(event)
        self.state = found = found or self._next(event)
        return found

    def _told(self, event: Event) -> None:
        if event is Event.TOLD_FINISHED:
            self.told_finished = True
        elif event is Event.CLIENT_GONE:
            self.dropped_calls += self.waiting_calls + self.running_calls
            self.waiting_calls = self.running_calls = 0

    def _next(self, event: Event) -> State:
        """Where several states may follow."""
        if self.state is _PAUSED and event is not Event.RESUMED:
            return _PAUSED if self.waiting_calls or not self.told_finished else _FINISHED
        if self.running_calls:
            return _RUNNING
        if self.waiting_calls:
            return _WAITING
        return _FINISHED if self.told_finished else _GAP
