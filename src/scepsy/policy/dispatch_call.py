"""Calls and executions as a dispatcher of programs keeps them."""

from enum import Enum

from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Context, Replica, some_of
from scepsy.policy.program_table import CallArrived, CallEnded
from scepsy.policy.route import CallView

_LLM = LlmName("any")
"""A dispatcher sees one LLM alone."""
_DECODES = 4
"""Calls that are taken to share a decode step, where the work of an answer is counted."""


_OUTPUT_TOKENS = 300.0
"""Of an answer, before any was seen."""
_MOST_SHARED_FRACTION = 0.9


class Place(Enum):
    """Where a call is."""

    DOOR = 0
    """It waits for room on any replica."""
    REPLICA = 1
    """It waits for room where its context is."""
    SENT = 2
    GONE = 3


DOOR, REPLICA, SENT = Place.DOOR, Place.REPLICA, Place.SENT
"""To look a member up in its class takes as long as a call of a function, or two."""


class Live:
    """An execution that may call again."""

    __slots__ = ("calls", "contexts", "deadline_s", "has_begun", "is_over")

    def __init__(self) -> None:
        self.contexts: list[Context] = []
        self.calls = 0  # that wait or run
        self.deadline_s = float("inf")  # that its client told last
        self.has_begun = False  # a call of it has ended
        self.is_over = False


class Means:
    """Of the calls of one workflow and role: what was seen of them so far."""

    __slots__ = ("output_tokens", "shared_tokens", "stage")

    def __init__(self, workflow: WorkflowName, role: Role) -> None:
        self.stage = Stage(workflow, _LLM, role)
        self.output_tokens, self.shared_tokens = _OUTPUT_TOKENS, 0.0

    def shared_of(self, prompt_tokens: int) -> int:
        """Of so many: what other executions begin with too, and that counts once for all."""
        return int(min(self.shared_tokens, _MOST_SHARED_FRACTION * prompt_tokens))


class Waiting:
    """A call, from its arrival to its end."""

    __slots__ = (
        "arrived_s", "begin_by_s", "cached_tokens", "cold_s", "context", "due_s", "hard_s",
        "is_computing", "is_due", "is_tried", "is_waiting", "is_warm", "live", "marks", "means",
        "need_tokens", "place", "replica", "serial", "tenant", "turn_s", "view",
    )  # fmt: skip

    def __init__(
        self, view: CallView, live: Live, means: Means, arrived_s: float, serial: int
    ) -> None:
        self.view, self.live, self.means = view, live, means
        self.arrived_s, self.serial = arrived_s, serial
        self.marks = some_of(view.prefix_blocks)  # now, while they are at hand
        self.context: Context | None = None  # what it extends
        self.cached_tokens = 0  # of its prompt, in that
        self.need_tokens = view.prompt_tokens  # room that it takes
        self.cold_s = 0.0  # to compute its prompt where its context is not
        self.turn_s = 0.0  # that, as it was when it came
        if view.hints.deadline_s is not None:
            live.deadline_s = view.hints.deadline_s
        self.begin_by_s = live.deadline_s  # or its execution is late in any case
        self.due_s = float("inf")  # when it goes before all others of its tenant
        self.hard_s = float("inf")  # and when it does whatever that costs
        self.tenant = view.tenant  # whose share it counts to
        self.place = DOOR
        self.replica: Replica | None = None  # where it was sent
        self.is_waiting = True
        self.is_due = False  # and nobody of its tenant passes it
        self.is_tried = False  # at the door, on all replicas
        self.is_warm = False  # sent to its context
        self.is_computing = False


def as_arrived(call: CallView, stage: Stage) -> CallArrived:
    """What the table of programs is told."""
    return CallArrived(call.execution, stage, call.prompt_tokens, call.tenant, None, call.hints)


def as_ended(call: CallView, stage: Stage, result: CallResult) -> CallEnded:
    """What the table of programs is told."""
    output_tokens = result.output_tokens
    kv_tokens = call.prompt_tokens + output_tokens
    return CallEnded(call.execution, stage, output_tokens, kv_tokens, 0.0, result.tool)


def work_s(capacity: Capacity, call: CallView, result: CallResult) -> float:
    """Of a replica, for a call that has ended (s)."""
    cached_tokens = min(result.cached_tokens or 0, call.prompt_tokens)
    decoded_s = result.output_tokens * capacity.decode_s / _DECODES
    return capacity.prefill_s(call.prompt_tokens, cached_tokens) + decoded_s
