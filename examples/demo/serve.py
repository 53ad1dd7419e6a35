"""Serve the plan and load it, one load after the other, each on the fastest clock it allows."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.connect import connect
from examples.demo.compare import Expectation
from examples.demo.measure import Target, Window, offer, saturate
from examples.demo.settings import DemoSettings
from scepsy.clock import ScaledClock
from scepsy.deploy.process import Service

SERVED_GPUS = 4
"""The plan that is served is the one for so many GPUs."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load that ran: its window, and the store that recorded its calls."""

    window: Window
    store: Path


@dataclass(frozen=True, slots=True)
class Measured:
    """All loads on the served plan; those that ran alone by workflow."""

    target: Loaded
    part_loaded: Mapping[str, Loaded]
    saturated: Mapping[str, Loaded]


async def measure(
    settings: DemoSettings, expectation: Expectation, on_done: Callable[[], None]
) -> Measured:
    """Load the plan: both workflows at the target rates, then each alone, in part and in full."""
    bench = _Bench(settings, expectation)
    target = await bench.offered("target", settings.rates)
    on_done()
    part_loaded: dict[str, Loaded] = {}
    saturated: dict[str, Loaded] = {}
    for name in settings.rates:
        rate = settings.load_fraction * expectation.capacity_per_s(name)
        part_loaded[name] = await bench.offered(f"part-{name}", {name: rate})
        on_done()
        saturated[name] = await bench.saturated(f"full-{name}", name)
        on_done()
    return Measured(target, part_loaded, saturated)


class _Bench:
    def __init__(self, settings: DemoSettings, expectation: Expectation) -> None:
        self._settings = settings
        self._expectation = expectation

    async def offered(self, label: str, rates: Mapping[str, float]) -> Loaded:
        predicted = self._expectation.at(rates).workflows
        warm_up_s = max(workflow.execution_s_p95 for workflow in predicted)
        window_s = max(self._settings.measured_executions[name] / rates[name] for name in rates)
        store = self._settings.path(f"served-{label}.db")
        async with self._served(store, rates) as target:
            window = await offer(target, rates, warm_up_s=warm_up_s, window_s=window_s)
        return Loaded(window, store)

    async def saturated(self, label: str, name: str) -> Loaded:
        capacity_per_s = self._expectation.capacity_per_s(name)
        rate = self._settings.full_fraction * capacity_per_s
        (full,) = self._expectation.at({name: rate}).workflows
        store = self._settings.path(f"served-{label}.db")
        async with self._served(store, {name: capacity_per_s}) as target:
            window = await saturate(
                target,
                name,
                # By Little's law; twice as many leave no doubt that all engines are kept busy.
                concurrency=round(2 * rate * full.execution_s_mean),
                warm_up_s=2 * full.execution_s_mean,
                window_s=self._settings.measured_executions[name] / capacity_per_s,
            )
        return Loaded(window, store)

    def _speedup(self, rates: Mapping[str, float]) -> float:
        calls_per_s = sum(
            rate * self._expectation.calls_per_execution(name) for name, rate in rates.items()
        )
        wanted = self._settings.calls_per_real_s / calls_per_s
        return round(min(self._settings.max_speedup, wanted), 2)

    @asynccontextmanager
    async def _served(self, store: Path, rates: Mapping[str, float]) -> AsyncIterator[Target]:
        speedup = self._speedup(rates)
        arguments = (
            "deploy",
            "local",
            str(self._settings.path(f"plan-{SERVED_GPUS}.json")),
            f"--speedup={speedup:g}",
            "--port=0",
            f"--record={store}",
            *(f"--script={path}" for path in self._settings.scripts),
        )
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(Service("deployment", arguments))
            client = await stack.enter_async_context(connect(f"{service.url}/v1"))
            yield Target(client, ScaledClock(speedup), self._settings.seed)
