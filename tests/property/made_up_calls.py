"""Calls, settings and replicas made up for laws of a dispatcher alone, without engines."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import Hints, TenantName, ToolName
from scepsy.policy.route import CallView

SWITCHES = ("routes", "admits", "holds", "shares", "engines_ask")
CAPACITY = Capacity(kv_tokens=1000, seqs=4, prompt_token_s=0.01, decode_s=0.01, block_tokens=10)
MOST_S = 10.0
_INF = float("inf")


@st.composite
def the_settings(draw: st.DrawFn) -> Settings:
    """Any mechanism on or off."""
    return Settings(
        **{name: draw(st.booleans()) for name in SWITCHES},
        patience=draw(st.sampled_from([0.0, 1.0, 100.0])),
        least_bound_s=draw(st.sampled_from([0.0, 0.25, 4.0])),
        price=draw(st.sampled_from([0.0, 1.0, 100.0])),
        level_ratio=draw(st.sampled_from([1.0, 2.0])),
        least_level_s=0.1,
        fill_fraction=draw(st.sampled_from([0.5, 1.0])),
    )


def held(replica: Replica) -> tuple[int, ...]:
    """Tokens of all that is believed to be there."""
    return (
        replica.running_tokens,
        replica.idle_tokens,
        replica.claimed_tokens,
        replica.host_tokens,
    )


class MadeUp(NamedTuple):
    at_s: float
    view: CallView
    took_s: float
    result: CallResult


@st.composite
def the_calls(draw: st.DrawFn) -> list[MadeUp]:
    """Calls of several tenants and executions, with hints that need not be true."""
    found: list[MadeUp] = []
    at_s = 0.0
    for number in range(draw(st.integers(1, 40))):
        at_s += draw(st.integers(0, 64)) / 16
        execution = draw(st.integers(0, 12))
        prompt = draw(st.integers(1, 900))
        hints = Hints(
            gap_s=draw(st.sampled_from([None, 0.01, 1e4])),
            output_tokens=draw(st.sampled_from([None, 1.0, 1e5])),
            priority=draw(st.integers(-2, 2)),
        )
        view = CallView(
            id=str(number),
            execution=ExecutionId(str(execution)),
            workflow="w",
            role="r",
            prompt_tokens=prompt,
            prefix_blocks=tuple(1000 * execution + at for at in range(prompt // 10)),
            tenant=TenantName(draw(st.sampled_from("ab"))),
            hints=hints,
        )
        result = CallResult(
            output_tokens=draw(st.integers(0, 50)),
            cached_tokens=draw(st.sampled_from([None, 0, prompt - 1])),
            tool=ToolName(draw(st.sampled_from("xy"))),
        )
        took_s = draw(st.integers(1, int(16 * MOST_S))) / 16
        found.append(MadeUp(at_s, view, took_s, result))
    return found


class Harness:
    """Calls that take what they are made up to take, on replicas that refuse none."""

    def __init__(
        self, calls: Sequence[MadeUp], chosen: Settings, replicas: int, host_tokens: int = 0
    ) -> None:
        self.dispatcher = ByProgram(chosen)
        self.calls = calls
        self.names = [ReplicaName(f"r{number}") for number in range(replicas)]
        for name in self.names:
            self.dispatcher.joined(0.0, name, replace(CAPACITY, host_tokens=host_tokens))
        self.waiting: dict[int, float] = {}
        self.running: dict[int, ReplicaName] = {}
        self.sent_s: dict[int, float] = {}
        self.begun: set[ExecutionId] = set()
        """Executions of which a call has ended."""
        self.may_stay: set[int] = set()
        """Calls that may wait for their context: of an execution that had begun."""

    def run(self) -> Iterator[float]:
        """Instants after each of which all that goes has gone."""
        todo = [(call.at_s, 0, number) for number, call in enumerate(self.calls)]
        heapify(todo)
        while todo or self.waiting:
            now_s = min(self.dispatcher.next_s, todo[0][0] if todo else _INF)
            assert now_s < _INF, "calls wait for nothing"
            while todo and todo[0][0] <= now_s:
                _, kind, number = heappop(todo)
                self._happens(now_s, number, is_end=kind == 1)
            for view, name, *_ in self.dispatcher.take(now_s):
                number = int(view.id)
                del self.waiting[number]
                self.sent_s[number], self.running[number] = now_s, name
                heappush(todo, (now_s + self.calls[number].took_s, 1, number))
            assert self.dispatcher.next_s > now_s
            yield now_s

    def _happens(self, now_s: float, number: int, *, is_end: bool) -> None:
        call = self.calls[number]
        if is_end:
            del self.running[number]
            self.begun.add(call.view.execution)
            self.dispatcher.ended(now_s, call.view, call.result)
        else:
            self.waiting[number] = now_s
            if call.view.execution in self.begun:
                self.may_stay.add(number)
            self.dispatcher.arrived(now_s, call.view)
