"""The live executions: a table bounded in number and in time.

Every event costs the same however many executions are live. What it does not know, or cannot
hold, it refuses by name; a caller serves such a call all the same, only without what is known of
its execution.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from scepsy.errors import InputError
from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import Stage
from scepsy.policy.learned import Learned
from scepsy.policy.learned_counts import How
from scepsy.policy.program import (
    DROPPED,
    NO_TENANT,
    NO_TOOL,
    Event,
    Hints,
    Program,
    Refusal,
    State,
    TenantName,
    ToolName,
)

_ARRIVED, _STARTED, _ENDED = Event.CALL_ARRIVED, Event.CALL_STARTED, Event.CALL_ENDED
_RUNNING, _WAITING, _RETURNED = State.RUNNING, State.WAITING, How.RETURNED


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the table holds."""

    programs: int = 65_536
    """Live executions. Beyond, the one that has been in its gap for longest is given up."""
    gap_s: float = 3_600.0
    """An execution without a call for so long is taken to be abandoned."""

    def __post_init__(self) -> None:
        if self.programs < 1 or not self.gap_s > 0:
            raise InputError(
                f"limits must be at least 1 execution and more than 0 s, "
                f"got {self.programs} and {self.gap_s}"
            )


class CallArrived(NamedTuple):
    """A call, as far as it is known when it comes."""

    # Not a dataclass: see ``CallView``.

    execution: ExecutionId
    stage: Stage
    prompt_tokens: int
    tenant: TenantName = NO_TENANT
    new_tokens: int | None = None
    """Prompt tokens beyond the last call's KV; None: what its length says."""
    hints: Hints | None = None


class CallEnded(NamedTuple):
    """A call that ran, as far as it is known when it ends."""

    execution: ExecutionId
    stage: Stage
    output_tokens: int
    kv_tokens: int
    """Of this call, prompt and output, that are now in the KV cache."""
    gpu_s: float = 0.0
    tool: ToolName = NO_TOOL
    """What its answer asks for."""


class Programs:
    """Live executions by id. Those that are over leave the table, and what they did is learned.

    Instants come from the caller and must not run back.
    """

    def __init__(self, learned: Learned | None = None, limits: Limits | None = None) -> None:
        self.learned = learned or Learned()
        self.limits = limits or Limits()
        self._live: dict[ExecutionId, Program] = {}
        self._idle: dict[ExecutionId, None] = {}
        self._expires_s = float("-inf")  # no gap reaches the limit before then

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Program]:
        return iter(self._live.values())

    def get(self, execution: ExecutionId) -> Program | None:
        """The record of a live execution."""
        return self._live.get(execution)

    @property
    def idle(self) -> int:
        """Live executions without a call in flight."""
        return len(self._idle)

    def arrived(self, call: CallArrived, now_s: float) -> State | Refusal:
        """A call arrived; the first one makes its execution live."""
        execution, stage = call.execution, call.stage
        program = self._live.get(execution)
        if program is None:
            if not self._has_room(now_s):
                return Refusal.FULL
            program = self._live[execution] = Program(
                execution=execution,
                tenant=call.tenant,
                workflow=stage.workflow,
                start_s=now_s,
            )
        elif execution in self._idle:
            del self._idle[execution]
            self.learned.gap_over(program, now_s, _RETURNED)
        if not self.learned.of_gaps_alone:
            self.learned.arrived(program, stage, call.prompt_tokens, call.new_tokens)
        program.stage_before, program.stage = program.stage, stage
        program.prompt_tokens += call.prompt_tokens
        program.hints = program.hints.wishes() if call.hints is None else call.hints
        return program.handle(_ARRIVED)

    def started(self, execution: ExecutionId) -> State | Refusal:
        """One of its waiting calls runs."""
        program = self._live.get(execution)
        return Refusal.UNKNOWN if program is None else program.handle(_STARTED)

    def ended(self, call: CallEnded, now_s: float) -> State | Refusal:
        """One of its running calls is over."""
        program = self._live.get(call.execution)
        if program is None:
            return Refusal.UNKNOWN
        state = program.handle(_ENDED)
        if isinstance(state, Refusal):
            return state
        if not self.learned.of_gaps_alone:
            is_alone = not program.calls_in_flight
            self.learned.answered(program, call.stage, call.output_tokens, alone=is_alone)
        program.output_tokens += call.output_tokens
        program.gpu_s += call.gpu_s
        program.kv_tokens[call.stage.llm] = call.kv_tokens
        program.tool = call.tool
        if state is not _RUNNING and state is not _WAITING:
            self._settle(program, now_s)
        return state

    def failed(self, execution: ExecutionId, now_s: float) -> State | Refusal:
        """One of its running calls left without an answer."""
        return self._without_answer(execution, Event.CALL_ENDED, now_s)

    def dropped(self, execution: ExecutionId, now_s: float) -> State | Refusal:
        """One of its waiting calls left without having run."""
        return self._without_answer(execution, Event.CALL_DROPPED, now_s)

    def _without_answer(
        self, execution: ExecutionId, event: Event, now_s: float
    ) -> State | Refusal:
        state = self._handle(execution, event)
        program = self._live.get(execution)
        if program is not None and not isinstance(state, Refusal):
            if not program.calls_in_flight:
                program.tool = DROPPED
            self._settle(program, now_s)
        return state

    def paused(self, execution: ExecutionId) -> State | Refusal:
        """It is held from now on."""
        return self._handle(execution, Event.PAUSED)

    def resumed(self, execution: ExecutionId) -> State | Refusal:
        """It is held no longer."""
        return self._handle(execution, Event.RESUMED)

    def told_finished(self, execution: ExecutionId, now_s: float) -> State | Refusal:
        """Its client says that no call follows."""
        return self._last_words(execution, Event.TOLD_FINISHED, now_s)

    def client_gone(self, execution: ExecutionId, now_s: float) -> State | Refusal:
        """Its client left; what is in flight is of no use any more."""
        return self._last_words(execution, Event.CLIENT_GONE, now_s)

    def kv_lost(self, execution: ExecutionId) -> None:
        """None of its KV is live any more, on any LLM."""
        if (program := self._live.get(execution)) is not None:
            program.kv_tokens.clear()

    def expire(self, now_s: float) -> tuple[Program, ...]:
        """Give up those whose gap has reached the limit."""
        if now_s < self._expires_s:
            return ()
        found: list[Program] = []
        while self._idle:
            program = self._live[next(iter(self._idle))]
            self._expires_s = program.gap_start_s + self.limits.gap_s
            if now_s < self._expires_s:
                break
            program.handle(Event.TIMED_OUT)
            self._leave(program, self._expires_s, How.UNSEEN, How.RETURNED)
            found.append(program)
        return tuple(found)

    def _handle(self, execution: ExecutionId, event: Event) -> State | Refusal:
        program = self._live.get(execution)
        return Refusal.UNKNOWN if program is None else program.handle(event)

    def _last_words(self, execution: ExecutionId, event: Event, now_s: float) -> State | Refusal:
        state = self._handle(execution, event)
        program = self._live.get(execution)
        if program is not None and program.is_over:
            self._leave(program, now_s, How.ENDED, How.RETURNED)
        return state

    def _settle(self, program: Program, now_s: float) -> None:
        """After a call has left: the execution is over, in its gap, or goes on."""
        if program.is_over:
            self._leave(program, now_s, How.ENDED, How.RETURNED)
        elif not (program.waiting_calls or program.running_calls):
            program.gap_start_s = now_s
            self._idle[program.execution] = None
            self.learned.gap_began(program)

    def _leave(self, program: Program, now_s: float, gap: How, execution: How) -> None:
        """It is over: how its gap ended, where it was in one, and how the execution did."""
        del self._live[program.execution]
        if program.execution in self._idle:
            del self._idle[program.execution]
            self.learned.gap_over(program, now_s, gap)
        self.learned.ended(program, execution)

    def _has_room(self, now_s: float) -> bool:
        if len(self._live) < self.limits.programs:
            return True
        if not self._idle:
            return False
        oldest = self._live[next(iter(self._idle))]
        oldest.handle(Event.TIMED_OUT)
        self._leave(oldest, now_s, How.UNSEEN, How.UNSEEN)
        return True
