"""What the demo does with the engines: record, profile, load."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from examples.demo.compare import Expectation, served_executions
from examples.demo.measure import Target, Window, offer, saturate
from examples.demo_real.engines import alone, served
from examples.demo_real.settings import ENGINES, RealSettings
from examples.load import ExecutionRecord, Load, planned
from scepsy.clock import ScaledClock
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Execution
from scepsy.model.workflow import LlmName
from scepsy.profiles.curve import ProfileCurve, ProfileKey
from scepsy.profiles.measure import LiveEngine, measure_stage
from scepsy.profiles.workload import Workload, stage_workload

REAL_TIME = ScaledClock(1.0)


async def record(
    settings: RealSettings, on_end: Callable[[ExecutionRecord], None]
) -> tuple[ExecutionRecord, ...]:
    """Run every workflow so often, a few executions at a time; calls land in ``traces.db``."""
    workflows = tuple(settings.workflows.values())
    instants = [0.0] * settings.recorded_executions
    plans = [planned(workflow, instants, seed=settings.seed) for workflow in workflows]
    async with served(settings, "traces.db") as client:
        label = f"rec{settings.seed}"
        load = Load(client, workflows, clock=REAL_TIME, label=label, on_end=on_end)
        mixed = chain.from_iterable(zip(*plans, strict=True))
        return await load.closed_loop(mixed, concurrency=settings.recorded_concurrency)


def workloads(
    settings: RealSettings, executions: Sequence[Execution]
) -> Mapping[str, tuple[Workload, ...]]:
    """What profiling replays on the engine of each LLM: each stage's calls of a few executions."""
    found: dict[str, tuple[Workload, ...]] = {}
    for stage in sorted({call.stage for execution in executions for call in execution.calls}):
        workload = stage_workload(executions, stage)
        few = replace(workload, segments=workload.segments[: settings.profiled_executions])
        found[stage.llm] = (*found.get(stage.llm, ()), few)
    return found


async def profile(
    settings: RealSettings,
    replayed: Mapping[str, Sequence[Workload]],
    on_step: Callable[[], None],
) -> tuple[ProfileCurve, ...]:
    """Measure every stage on its engine, both engines at once: so are they when they serve.

    Raises:
        EngineError: an engine cannot be reached, or refused a call.
    """

    async def measure(gpu_type: str, url: str, llm: str) -> list[ProfileCurve]:
        engine = LiveEngine(
            url=url, model=llm, clock=REAL_TIME, source=f"measured over HTTP on {gpu_type}"
        )
        return [
            await measure_stage(
                workload,
                ProfileKey(
                    stage=workload.stage,
                    gpu_type=GpuTypeName(gpu_type),
                    tensor_parallel=1,
                    gpu_fraction=1.0,
                    replicas=1,
                ),
                engine,
                seed=settings.seed,
                min_calls=1,
                utilizations=settings.profiled_loads,
                inflight=(settings.profiled_in_flight,),
                progress=on_step,
            )
            for workload in replayed[llm]
        ]

    async with alone(settings) as urls:
        try:
            async with asyncio.TaskGroup() as group:
                lanes = [
                    group.create_task(measure(engine.gpu_type, urls[engine.llm], engine.llm))
                    for engine in ENGINES
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
    return tuple(curve for lane in lanes for curve in lane.result())


@dataclass(frozen=True, slots=True)
class Measured:
    """Both workflows at their target rates, and each alone in a closed loop."""

    target: Window
    saturated: Mapping[str, Window]


async def load_plan_served(
    settings: RealSettings, expectation: Expectation, on_done: Callable[[], None]
) -> Measured:
    """Serve the plan: its two replicas are the two engines; send both workflows, then each."""
    saturated: dict[str, Window] = {}
    rates = {str(rate.workflow): rate.rate_per_s for rate in expectation.plan.rates}
    async with served(settings, "served.db") as client:
        target = Target(client, REAL_TIME, settings.workflows, {}, settings.seed)
        on_done()
        together = await offer(
            target,
            rates,
            label="target",
            warm_up_s=settings.warm_up_s,
            window_s=min(settings.target_s_max, settings.target_executions / min(rates.values())),
        )
        on_done()
        for name in settings.workflows:
            saturated[name] = await saturate(
                target,
                name,
                concurrency=settings.saturating_executions,
                warm_up_s=settings.warm_up_s,
                window_s=settings.saturated_s,
            )
            on_done()
    return Measured(together, saturated)


def with_queues(settings: RealSettings, window: Window) -> tuple[Window, list[Execution]]:
    """The window with the calls that waited, and the executions of its one workflow.

    llama.cpp's metrics can take seconds when it is busy, so the recording is asked: calls of an
    LLM in flight, in the mean, beyond those that its engine answers at a time.
    """
    (executions,) = served_executions(settings.path("served.db"), window).values()
    length_s = window.end_s - window.begin_s
    queued = {LlmName(engine.llm): -float(engine.slots) for engine in ENGINES}
    for call in chain.from_iterable(execution.calls for execution in executions):
        inside_s = min(call.end_s, window.end_s) - max(call.start_s, window.begin_s)
        queued[call.stage.llm] += max(0.0, inside_s) / length_s
    return replace(window, queued=queued), executions
