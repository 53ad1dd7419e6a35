"""Load a served plan and measure it: capacity in a closed loop, latency in an open one."""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import aiohttp
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from examples.load import ExecutionRecord, Load, Planned, planned
from examples.workflow import ExampleWorkflow
from scepsy.clock import ScaledClock
from scepsy.model.execution import Execution
from scepsy.model.workflow import LlmName

LOOKS = 12
"""At the engines' queues, during a window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of steady load, and the executions that ran in it. Scaled seconds."""

    begin_s: float
    end_s: float
    records: tuple[ExecutionRecord, ...]
    """Of all executions of the load, those before and after the window too."""
    queued: Mapping[LlmName, float] = field(default_factory=dict)
    """Mean number of calls that waited for the engines of each LLM, where that was watched."""

    @property
    def within(self) -> tuple[ExecutionRecord, ...]:
        """Those that arrived in the window."""
        return tuple(r for r in self.records if self.begin_s <= r.start_s < self.end_s)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes, on which clock."""

    client: AsyncOpenAI
    clock: ScaledClock
    workflows: Mapping[str, ExampleWorkflow]
    engines: Mapping[str, LlmName]
    """URL of each engine, and the LLM that it serves."""
    seed: int


async def saturate(
    target: Target, name: str, *, concurrency: int, warm_up_s: float, window_s: float
) -> Window:
    """Keep so many executions running; the window begins when the warm-up is over."""
    workflow = target.workflows[name]
    load = Load(target.client, [workflow], clock=target.clock, label=f"full{target.seed}")
    await load.prepare()
    begin_s = target.clock.now_s() + warm_up_s
    end_s = begin_s + window_s
    plan = planned(workflow, [0.0] * 10_000, seed=target.seed + 1)
    watch = asyncio.create_task(_watch_queues(target, begin_s, end_s))
    records = await load.closed_loop(_until(plan, target.clock, end_s), concurrency=concurrency)
    return Window(begin_s=begin_s, end_s=end_s, records=records, queued=await watch)


def _until(plan: Sequence[Planned], clock: ScaledClock, end_s: float) -> Iterator[Planned]:
    for each in plan:
        if clock.now_s() >= end_s:
            return
        yield each


async def _watch_queues(target: Target, begin_s: float, end_s: float) -> Mapping[LlmName, float]:
    """Mean number of calls that wait in the engines of each LLM, by their own metrics."""
    looks: list[Mapping[LlmName, float]] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        for look in range(1, LOOKS + 1):
            at_s = begin_s + look * (end_s - begin_s) / (LOOKS + 1)
            await asyncio.sleep(target.clock.real_s(max(0.0, at_s - target.clock.now_s())))
            waiting = dict.fromkeys(target.engines.values(), 0.0)
            for url, llm in target.engines.items():
                async with session.get(f"{url}/metrics") as reply:
                    waiting[llm] += _waiting(await reply.text())
            looks.append(waiting)
    return {llm: fmean(look[llm] for look in looks) for llm in looks[0]}


def _waiting(metrics: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(metrics)
        if family.name == "vllm:num_requests_waiting"
        for sample in family.samples
    )


async def offer(
    target: Target, rates: Mapping[str, float], *, label: str, warm_up_s: float, window_s: float
) -> Window:
    """Let executions arrive by chance at the rates; the window follows the warm-up.

    They go on for as long after the window, so that the last ones in it meet no emptying plan.
    """
    workflows = {name: target.workflows[name] for name in rates}
    load = Load(
        target.client,
        tuple(workflows.values()),
        clock=target.clock,
        label=f"{label}{target.seed}",
    )
    await load.prepare()
    begin_s = target.clock.now_s() + warm_up_s
    duration_s = warm_up_s + window_s + warm_up_s
    plan = [
        each
        for name, rate_per_s in rates.items()
        for each in _arrivals(workflows[name], rate_per_s, duration_s, target.seed)
    ]
    records = await load.open_loop(plan)
    return Window(begin_s=begin_s, end_s=begin_s + window_s, records=records)


def _arrivals(
    workflow: ExampleWorkflow, rate_per_s: float, duration_s: float, seed: int
) -> tuple[Planned, ...]:
    """Executions at independent, uniform instants: a Poisson process of known count.

    The count is fixed so that the rate is the one that was predicted for.
    """
    rng = random.Random(f"{seed}/{workflow.name}/arrivals")
    instants = [rng.uniform(0, duration_s) for _ in range(round(rate_per_s * duration_s))]
    return planned(workflow, sorted(instants), seed=seed + 2)


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
