"""A plan on this host: processes for its replicas, and the gateway in front of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scepsy.deploy.process import Service
from scepsy.deploy.render import EngineCommand
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """How the gateway in front of the replicas is started."""

    speedup: float = 1.0
    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes a free one."""
    policy: str = "least-loaded"
    record: Path | None = None
    """Trace store that calls are recorded into; None records nothing."""
    plan: Path | None = None
    """Whose replicas they are; None: names are given to them, and none take turns."""


@dataclass(frozen=True, slots=True)
class ListeningReplica:
    """One that takes calls, behind the gateway."""

    name: ReplicaName
    llm: LlmName
    url: str


@dataclass(frozen=True, slots=True)
class LocalDeployment:
    """A gateway that serves, and the engines behind it."""

    url: str
    engines: tuple[Service, ...]
    """The processes, one for each command."""
    replicas: tuple[ListeningReplica, ...]


def _nothing(_done: int) -> None:
    """Progress that nobody watches."""


@asynccontextmanager
async def serve_locally(
    commands: Sequence[EngineCommand],
    options: GatewayOptions,
    *,
    on_ready: Callable[[int], None] = _nothing,
) -> AsyncIterator[LocalDeployment]:
    """Run engines and gateway until the block ends; all are stopped however it ends.

    Args:
        commands: the replicas to start.
        options: of the gateway.
        on_ready: called with the number of engines that listen, as they come.

    Raises:
        EngineError: a process did not come up; it says why.
    """
    async with AsyncExitStack() as stack:
        services = tuple(Service(command.replica, command.arguments) for command in commands)
        # Entered one by one so that the stack stops each that runs, but started together.
        starts = [asyncio.create_task(stack.enter_async_context(s)) for s in services]
        try:
            for done, start in enumerate(asyncio.as_completed(starts), 1):
                await start
                on_ready(done)
        finally:
            for start in starts:
                start.cancel()  # where one failed or the block is left, the others need not load
            await asyncio.gather(*starts, return_exceptions=True)
        pairs = zip(commands, services, strict=True)
        replicas = tuple(replica for pair in pairs for replica in _listening(*pair))
        arguments = gateway_arguments(replicas, options)
        gateway = await stack.enter_async_context(Service("gateway", arguments))
        yield LocalDeployment(gateway.url, services, replicas)


def _listening(command: EngineCommand, service: Service) -> Iterator[ListeningReplica]:
    yield ListeningReplica(command.replica, command.llm, service.url)
    announced = service.announced.get("beside", ())
    for (name, llm), each in zip(command.beside, announced, strict=True):
        yield ListeningReplica(name, llm, each["url"])


def gateway_arguments(
    replicas: Sequence[ListeningReplica], options: GatewayOptions
) -> tuple[str, ...]:
    """The arguments of ``scepsy`` that start a gateway in front of replicas."""
    return (
        "gateway",
        *([f"--plan={options.plan}"] if options.plan else []),
        *(f"--replica={r.name if options.plan else r.llm}={r.url}" for r in replicas),
        f"--speedup={options.speedup:g}",
        f"--host={options.host}",
        f"--port={options.port}",
        f"--policy={options.policy}",
        *([f"--record={options.record}"] if options.record else []),
    )


async def first_to_end(services: Sequence[Service]) -> Service:
    """Wait until a service ends by itself; give that one."""
    waits = {asyncio.create_task(service.ended()): service for service in services}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return waits[next(iter(done))]
    finally:
        for wait in waits:
            wait.cancel()
