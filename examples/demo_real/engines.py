"""The real engines, behind a gateway that records."""

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop
from openai import AsyncOpenAI

from examples.connect import connect
from examples.demo_real.settings import ENGINES, RealSettings
from scepsy.deploy.local import GatewayOptions, serve_locally
from scepsy.deploy.render import EngineCommand
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName

T = TypeVar("T")
TERMINATED = 143
"""Exit status of a program that SIGTERM has ended."""


def commands(settings: RealSettings) -> tuple[EngineCommand, ...]:
    """What starts the engines: the same weights, served in different ways."""
    return tuple(
        EngineCommand(
            ReplicaName(f"{engine.llm}-0"),
            LlmName(engine.llm),
            (
                "engine",
                f"--real={settings.model}",
                f"--served-model-name={engine.llm}",
                f"--slots={engine.slots}",
                f"--batch-tokens={engine.batch_tokens}",
                "--port=0",
            ),
        )
        for engine in ENGINES
    )


@asynccontextmanager
async def served(settings: RealSettings, record: str) -> AsyncIterator[AsyncOpenAI]:
    """A client of the gateway, with both engines behind it; calls land in the file ``record``."""
    options = GatewayOptions(port=0, record=settings.path(record))
    async with (
        serve_locally(commands(settings), options) as deployment,
        connect(f"{deployment.url}/v1") as client,
    ):
        yield client


@asynccontextmanager
async def alone(settings: RealSettings) -> AsyncIterator[dict[str, str]]:
    """The engines' own URLs by LLM."""
    options = GatewayOptions(port=0)
    async with serve_locally(commands(settings), options) as deployment:
        yield {
            engine.llm: service.url
            for engine, service in zip(ENGINES, deployment.engines, strict=True)
        }


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop; SIGTERM ends it as Ctrl-C does, so that no process stays behind.

    Raises:
        SystemExit: SIGTERM came; all processes have ended.
    """

    async def until_told() -> T:
        task = asyncio.current_task()
        assert task is not None

        def leave() -> None:
            if not task.cancelling():  # told once more, it would not wait for the processes
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
        return await work

    try:
        return uvloop.run(until_told())
    except asyncio.CancelledError:
        raise SystemExit(TERMINATED) from None
