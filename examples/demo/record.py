"""Record the workflows: three engines, the gateway in front, every call written down."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import chain, zip_longest

from examples.connect import connect
from examples.demo.settings import DemoSettings
from examples.load import ExecutionRecord, Load, Planned, planned
from scepsy.clock import ScaledClock
from scepsy.deploy.local import GatewayOptions, serve_locally
from scepsy.deploy.render import EngineCommand
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName


def recording_engines(settings: DemoSettings) -> tuple[EngineCommand, ...]:
    """The commands that start the engines that answer while recording."""
    return tuple(
        EngineCommand(
            ReplicaName(engine.llm),
            LlmName(engine.llm),
            (
                "engine",
                f"--model={engine.llm}",
                f"--gpu={settings.gpu}",
                f"--tp={engine.tensor_parallel}",
                f"--gpu-fraction={engine.gpu_fraction:g}",
                f"--speedup={settings.speedup:g}",
                "--port=0",
                *(f"--script={path}" for path in settings.scripts),
            ),
        )
        for engine in settings.engines
    )


async def record(
    settings: DemoSettings, on_end: Callable[[ExecutionRecord], None]
) -> tuple[ExecutionRecord, ...]:
    """Run every workflow so often, a few executions at a time; calls land in ``traces.db``."""
    options = GatewayOptions(speedup=settings.speedup, port=0, record=settings.path("traces.db"))
    workflows = tuple(settings.workflows.values())
    instants = [0.0] * settings.recorded_executions
    plans = [planned(workflow, instants, seed=settings.seed) for workflow in workflows]
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(
            serve_locally(recording_engines(settings), options)
        )
        client = await stack.enter_async_context(connect(f"{served.url}/v1"))
        load = Load(
            client,
            workflows,
            clock=ScaledClock(settings.speedup),
            label=f"rec{settings.seed}",
            on_end=on_end,
        )
        return await load.closed_loop(_in_turn(plans), concurrency=settings.recorded_concurrency)


def _in_turn(plans: Sequence[Sequence[Planned]]) -> tuple[Planned, ...]:
    return tuple(each for each in chain.from_iterable(zip_longest(*plans)) if each is not None)
