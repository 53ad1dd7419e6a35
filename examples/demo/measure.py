"""Load a served plan and measure it: capacity in a closed loop, latency in an open one."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from openai import AsyncOpenAI

from examples.load import ExecutionRecord, Load, Planned, planned
from examples.registry import WORKFLOWS
from scepsy.clock import ScaledClock
from scepsy.model.execution import Execution
from scepsy.model.workflow import LlmName


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of steady load, and the executions that ran in it. Scaled seconds."""

    begin_s: float
    end_s: float
    records: tuple[ExecutionRecord, ...]
    """Of all executions of the load, those before and after the window too."""

    @property
    def within(self) -> tuple[ExecutionRecord, ...]:
        """Those that arrived in the window."""
        return tuple(r for r in self.records if self.begin_s <= r.start_s < self.end_s)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes, on which clock."""

    client: AsyncOpenAI
    clock: ScaledClock
    seed: int


async def saturate(
    target: Target, workflow: str, *, concurrency: int, warm_up_s: float, window_s: float
) -> Window:
    """Keep so many executions running; the window begins when the warm-up is over."""
    load = Load(target.client, [WORKFLOWS[workflow]], clock=target.clock, label="full")
    await load.prepare()
    begin_s = target.clock.now_s() + warm_up_s
    end_s = begin_s + window_s
    plan = planned(WORKFLOWS[workflow], [0.0] * 10_000, seed=target.seed + 1)
    records = await load.closed_loop(_until(plan, target.clock, end_s), concurrency=concurrency)
    return Window(begin_s=begin_s, end_s=end_s, records=records)


def _until(plan: Sequence[Planned], clock: ScaledClock, end_s: float) -> Iterator[Planned]:
    for each in plan:
        if clock.now_s() >= end_s:
            return
        yield each


async def offer(
    target: Target, rates: Mapping[str, float], *, warm_up_s: float, window_s: float
) -> Window:
    """Let executions arrive by chance at the rates; the window follows the warm-up."""
    load = Load(
        target.client, [WORKFLOWS[name] for name in rates], clock=target.clock, label="offered"
    )
    await load.prepare()
    begin_s = target.clock.now_s() + warm_up_s
    plan = [
        each
        for name, rate_per_s in rates.items()
        for each in _arrivals(name, rate_per_s, warm_up_s + window_s, target.seed)
    ]
    records = await load.open_loop(plan)
    return Window(begin_s=begin_s, end_s=begin_s + window_s, records=records)


def _arrivals(
    workflow: str, rate_per_s: float, duration_s: float, seed: int
) -> tuple[Planned, ...]:
    """Executions at independent, uniform instants: a Poisson process of known count.

    The count is fixed so that the rate is the one that was predicted for.
    """
    rng = random.Random(f"{seed}/{workflow}/arrivals")
    instants = [rng.uniform(0, duration_s) for _ in range(round(rate_per_s * duration_s))]
    return planned(WORKFLOWS[workflow], sorted(instants), seed=seed + 2)


def throughput_per_s(window: Window, executions: Sequence[Execution]) -> float:
    """Executions/s completed in the window.

    An execution that is only partly in the window counts by the part of its calls that ended in
    it, so that the window's edges cost no precision.
    """
    done = 0.0
    for execution in executions:
        ended = sum(window.begin_s <= call.end_s < window.end_s for call in execution.calls)
        done += ended / len(execution.calls)
    return done / (window.end_s - window.begin_s)


def busiest_llm(window: Window, executions: Sequence[Execution]) -> LlmName:
    """The LLM with most calls in flight during the window: where they queue up."""
    inflight_s: dict[LlmName, float] = {}
    for execution in executions:
        for call in execution.calls:
            inside_s = min(call.end_s, window.end_s) - max(call.start_s, window.begin_s)
            inflight_s[call.llm] = inflight_s.get(call.llm, 0.0) + max(inside_s, 0.0)
    return max(sorted(inflight_s), key=lambda llm: inflight_s[llm])
