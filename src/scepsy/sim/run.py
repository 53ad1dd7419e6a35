"""Executions through a plan in virtual time: they arrive, their calls are served, they end.

A call goes to its LLM when the calls that it waits for have ended and the recorded time in tools
and in the program has passed: the next call never starts before the last end plus the gap.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import count

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.program import NO_TOOL
from scepsy.policy.route import CallView
from scepsy.profiles.workload import SegmentRun
from scepsy.sim.arrivals import ArrivalSource
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.fleet import Fleet, Serving
from scepsy.sim.script import Script

MIN_PROMPT_TOKENS = 1
"""An engine computes at least one token of a prompt."""
_UNKNOWN_S = float("nan")
_INF = float("inf")


@dataclass(slots=True, eq=False)
class ServedCall:
    """One call as it was served; instants are seconds of virtual time, NaN until they come."""

    position: int
    """In its script."""
    stage: Stage
    prompt_tokens: int
    start_s: float
    """Arrival at the router."""
    scheduled_s: float = _UNKNOWN_S
    """When its first step began."""
    first_token_s: float = _UNKNOWN_S
    end_s: float = _UNKNOWN_S
    output_tokens: int = 0
    cached_tokens: int = 0
    replica: ReplicaName | None = None
    """Where it ended."""
    preemptions: int = 0
    restarts: int = 0
    """How often it began anew as its replica was lost."""

    @property
    def e2e_s(self) -> float:
        """From arrival to the last token."""
        return self.end_s - self.start_s

    @property
    def ttft_s(self) -> float:
        """From arrival to the first token, or to the end where there are no output tokens."""
        first_s = self.first_token_s
        return (first_s if first_s == first_s else self.end_s) - self.start_s  # noqa: PLR0124


@dataclass(slots=True, eq=False)
class ServedExecution:
    """One execution on its way, and when it has ended all that became of it."""

    script: Script
    number: int
    """By arrival, from 0."""
    start_s: float
    progress: SegmentRun = field(init=False, repr=False)
    calls: list[ServedCall] = field(default_factory=list)
    """By start."""
    end_s: float = float("inf")
    """Infinite until the last call has ended."""

    def __post_init__(self) -> None:
        self.progress = SegmentRun(self.script.segment)

    @property
    def workflow(self) -> WorkflowName:
        """Whose execution it is."""
        return self.script.workflow

    @property
    def is_over(self) -> bool:
        """Whether all calls have ended."""
        return self.progress.is_over

    @property
    def execution_s(self) -> float:
        """Execution latency; infinite while it runs."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Fault:
    """A replica that is lost, and when it is back."""

    at_s: float
    llm: LlmName
    replica: ReplicaName
    back_s: float = float("inf")
    """Its start-up included; infinite where it never comes back."""


class Simulation:
    """Executions from a source through what serves them. Iterate ``run`` for as long as needed."""

    def __init__(
        self,
        source: ArrivalSource,
        serving: Serving,
        *,
        order: OrderPolicy = first_come,
        on_over: Callable[[float, ExecutionId], None] | None = None,
    ) -> None:
        """Nothing has arrived, and what serves is idle at time 0.

        Args:
            source: gives the executions.
            serving: takes their calls.
            order: which of the calls that wait in an engine comes first.
            on_over: told when the last call of an execution has ended, by whoever should know.
        """
        self.now_s = 0.0
        self.executions = 0
        """That have arrived."""
        self._source = source
        self._serving = serving
        self._order = order
        self._on_over = on_over
        self._serial = count()
        self._starts: list[tuple[float, int, ServedExecution, int]] = []  # a heap
        self._inflight: dict[str, tuple[ServedExecution, ServedCall]] = {}

    def run(self) -> Iterator[ServedExecution]:
        """Executions as they end; the iteration is over when none is under way or to come."""
        while (next_s := self.next_s) < _INF:
            yield from self.step(next_s)

    @property
    def next_s(self) -> float:
        """When something happens next; infinite when nothing will."""
        starts_s = self._starts[0][0] if self._starts else _INF
        return min(starts_s, self._source.next_s, self._serving.next_event_s())

    def step(self, now_s: float) -> list[ServedExecution]:
        """Go to an instant that is not after ``next_s``; give the executions that end."""
        self.now_s = now_s
        ended: list[ServedExecution] = []
        for event in self._serving.advance(now_s):
            over = self._see(event)
            if over is not None:
                ended.append(over)
                self._source.ended(now_s + over.script.tail_s)
                if self._on_over is not None:
                    self._on_over(now_s, ExecutionId(str(over.number)))
        while self._source.next_s <= now_s:
            arrival = self._source.take()
            execution = ServedExecution(arrival.script, self.executions, now_s)
            self.executions += 1
            self._release(execution, execution.progress.first())
        while self._starts and self._starts[0][0] <= now_s:
            _, _, execution, position = heappop(self._starts)
            self._submit(execution, position)
        return ended

    def _see(self, event: EngineEvent) -> ServedExecution | None:
        """Note what happened to a call; give its execution when that was its end."""
        execution, call = self._inflight[event.call_id]
        if isinstance(event, FirstToken):
            call.first_token_s = event.at_s
        elif isinstance(event, Finished):
            del self._inflight[event.call_id]
            call.end_s = event.at_s
            call.scheduled_s = event.scheduled_s
            call.output_tokens = event.output_tokens
            call.cached_tokens = event.cached_tokens
            call.replica = self._serving.replica_of(event.call_id)
            self._release(execution, execution.progress.ended(call.position))
            if execution.progress.is_over:
                execution.end_s = event.at_s + execution.script.tail_s
                return execution
        else:
            call.preemptions += 1
        return None

    def _release(self, execution: ServedExecution, positions: Iterable[int]) -> None:
        calls = execution.script.segment.calls
        for position in positions:
            at_s = self.now_s + calls[position].after_s
            heappush(self._starts, (at_s, next(self._serial), execution, position))

    def _submit(self, execution: ServedExecution, position: int) -> None:
        recorded = execution.script.segment.calls[position]
        stage = execution.script.stages[position]
        prefix_blocks, output_blocks = recorded.copy_blocks(execution.number + 1)
        prompt_tokens = max(MIN_PROMPT_TOKENS, recorded.prompt_tokens)
        call_id = f"{execution.number}-{position}"
        tools = execution.script.tools
        tool = tools[position] if tools else NO_TOOL
        view = CallView(
            id=call_id,
            tenant=execution.script.tenant,
            execution=ExecutionId(str(execution.number)),
            workflow=stage.workflow,
            role=stage.role,
            prompt_tokens=prompt_tokens,
            prefix_blocks=prefix_blocks,
            start_s=self.now_s,
            execution_start_s=execution.start_s,
            step=len(execution.calls),
        )
        call = EngineCall(
            id=call_id,
            prompt_tokens=prompt_tokens,
            output_tokens=recorded.output_tokens,
            prefix_blocks=prefix_blocks,
            output_blocks=output_blocks,
            program=f"{execution.number}/{stage.role}",
            kind=f"{stage.workflow}/{stage.role}/{tool}"
            if tool
            else f"{stage.workflow}/{stage.role}",
            tool=tool,
            priority=self._order(view),
        )
        served = ServedCall(position, stage, prompt_tokens, self.now_s)
        execution.calls.append(served)
        self._inflight[call.id] = (execution, served)
        self._serving.submit(self.now_s, stage.llm, view, call)


class FaultySimulation(Simulation):
    """The same with replicas that are lost, and that come back."""

    def __init__(
        self,
        source: ArrivalSource,
        fleet: Fleet,
        faults: Iterable[Fault],
        *,
        order: OrderPolicy = first_come,
        on_over: Callable[[float, ExecutionId], None] | None = None,
    ) -> None:
        """As ``Simulation``; ``faults`` name replicas of the fleet, by their instants."""
        super().__init__(source, fleet, order=order, on_over=on_over)
        self._fleet = fleet
        self._faults = [(fault.at_s, at, fault, True) for at, fault in enumerate(faults)]
        heapify(self._faults)
        self._back_s: dict[ReplicaName, float] = {}  # of replicas that are lost

    @property
    def next_s(self) -> float:
        """When something happens next; a fault alone is nothing where no execution is left."""
        next_s = super().next_s
        if not self._faults or (next_s == float("inf") and not self._inflight):
            return next_s
        return min(next_s, self._faults[0][0])

    def step(self, now_s: float) -> list[ServedExecution]:
        """Go to an instant that is not after ``next_s``; give the executions that end."""
        ended = super().step(now_s)
        while self._faults and self._faults[0][0] <= now_s:
            _, at, fault, is_loss = heappop(self._faults)
            if is_loss:
                self._lose(now_s, fault)
                if fault.back_s < float("inf"):
                    heappush(self._faults, (max(fault.back_s, now_s), at, fault, False))
            elif self._back_s.get(fault.replica, float("inf")) <= now_s:
                del self._back_s[fault.replica]
                self._fleet.join(now_s, fault.llm, fault.replica)
        return ended

    def _lose(self, now_s: float, fault: Fault) -> None:
        """A replica that is lost again while it is down stays down until the later return."""
        is_down = fault.replica in self._back_s
        back_s = self._back_s.get(fault.replica, now_s)
        self._back_s[fault.replica] = max(back_s, fault.back_s)
        if is_down:
            return
        for call_id in self._fleet.lose(now_s, fault.replica):
            _, call = self._inflight[call_id]
            call.first_token_s = call.scheduled_s = _UNKNOWN_S
            call.restarts += 1


def steady(simulation: Simulation, *, executions: int, warm_up: int) -> tuple[ServedExecution, ...]:
    """Executions in their order of arrival, all ended, from a source that does not end.

    Load goes on until the last of them has ended, so that none runs in a plan that empties.

    Args:
        simulation: nothing has arrived yet.
        executions: how many are given.
        warm_up: how many come before them.
    """
    counted: list[ServedExecution] = []
    for execution in simulation.run():
        if warm_up <= execution.number < warm_up + executions:
            counted.append(execution)
            if len(counted) == executions:
                break
    return tuple(sorted(counted, key=_number))


def _number(execution: ServedExecution) -> int:
    return execution.number
