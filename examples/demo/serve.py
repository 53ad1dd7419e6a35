"""Serve the plan, and load it in one way after the other."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from examples.connect import connect
from examples.demo.compare import Expectation
from examples.demo.measure import Target, Window, offer, saturate
from examples.demo.settings import DemoSettings
from scepsy.clock import ScaledClock
from scepsy.deploy.process import Service

SERVED_GPUS = 4
"""The plan that is served is the one for so many GPUs."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All loads on the served plan; those that ran alone by workflow."""

    target: Window
    part_loaded: Mapping[str, Window]
    saturated: Mapping[str, Window]


async def measure(
    settings: DemoSettings, expectation: Expectation, on_done: Callable[[], None]
) -> Measured:
    """Load the plan: both workflows at the target rates, then each alone, in part and in full."""
    part_loaded: dict[str, Window] = {}
    saturated: dict[str, Window] = {}
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(Service("deployment", _arguments(settings)))
        client = await stack.enter_async_context(connect(f"{service.url}/v1"))
        target = Target(
            client,
            ScaledClock(settings.speedup),
            settings.workflows,
            {engine["url"]: engine["llm"] for engine in service.announced["engines"]},
            settings.seed,
        )
        on_done()
        together = await _offered(settings, expectation, target, "target", settings.rates)
        on_done()
        for name in settings.rates:
            rate = settings.load_fraction * expectation.capacity_per_s(name)
            part_loaded[name] = await _offered(settings, expectation, target, "part", {name: rate})
            on_done()
            saturated[name] = await _saturated(settings, expectation, target, name)
            on_done()
    return Measured(together, part_loaded, saturated)


def _arguments(settings: DemoSettings) -> tuple[str, ...]:
    return (
        "deploy",
        "local",
        str(settings.path(f"plan-{SERVED_GPUS}.json")),
        f"--speedup={settings.speedup:g}",
        "--port=0",
        f"--record={settings.path('served.db')}",
        *(f"--script={path}" for path in settings.scripts),
    )


async def _offered(
    settings: DemoSettings,
    expectation: Expectation,
    target: Target,
    label: str,
    rates: Mapping[str, float],
) -> Window:
    predicted = expectation.at(rates).workflows
    return await offer(
        target,
        rates,
        label=label,
        warm_up_s=max(workflow.execution_s_p95 for workflow in predicted),
        window_s=max(settings.offered_executions[name] / rates[name] for name in rates),
    )


async def _saturated(
    settings: DemoSettings, expectation: Expectation, target: Target, name: str
) -> Window:
    capacity_per_s = expectation.capacity_per_s(name)
    rate = settings.full_fraction * capacity_per_s
    (full,) = expectation.at({name: rate}).workflows
    return await saturate(
        target,
        name,
        # By Little's law; twice as many leave no doubt that all engines are kept busy.
        concurrency=round(2 * rate * full.execution_s_mean),
        warm_up_s=1.5 * full.execution_s_mean,
        window_s=settings.saturating_executions[name] / capacity_per_s,
    )
