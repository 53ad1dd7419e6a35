"""A child that is told to end while it still starts: the one who starts it must not go on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from scepsy.deploy import process
from scepsy.deploy.local import GatewayOptions, serve_locally
from scepsy.deploy.process import Service
from scepsy.deploy.render import EngineCommand
from scepsy.errors import EngineError
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName

GATEWAY = ("gateway", "--replica=llm=http://127.0.0.1:9", "--port=0")
PATIENCE_S = 20.0


async def hold(service: Service) -> None:
    async with service:
        await asyncio.Event().wait()


def test_a_cancellation_that_comes_with_the_announcement_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As SIGTERM does when the loop sees it and the child's line at once."""
    loads = process.orjson.loads
    service = Service("gateway", GATEWAY)

    async def run() -> None:
        holder = asyncio.create_task(hold(service))

        def loads_as_it_is_cancelled(line: bytes) -> Any:
            holder.cancel()
            return loads(line)

        monkeypatch.setattr(process.orjson, "loads", loads_as_it_is_cancelled)
        done, _ = await asyncio.wait([holder], timeout=PATIENCE_S)
        holder.cancel()
        await asyncio.wait([holder])
        assert done == {holder}
        assert holder.cancelled()

    asyncio.run(run())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
@pytest.mark.parametrize("turns", range(6))
def test_leaves_no_child_wherever_its_start_is_cancelled(turns: int) -> None:
    async def run() -> None:
        holder = asyncio.create_task(hold(Service("gateway", GATEWAY)))
        for _ in range(turns):
            await asyncio.sleep(0)
        holder.cancel()
        await asyncio.wait([holder], timeout=PATIENCE_S)
        assert holder.cancelled()
        assert children_that_serve() == []

    asyncio.run(run())


def test_an_engine_that_fails_does_not_wait_for_those_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\ncase "$*" in *slow*) exec sleep 600;; esac\nexit 1\n')
    engine.chmod(0o700)
    monkeypatch.setattr(process.sys, "executable", str(engine))
    commands = [
        EngineCommand(ReplicaName(name), LlmName("llm"), (name,)) for name in ("slow", "bad")
    ]

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), serve_locally(commands, GatewayOptions(port=0)):
            pytest.fail("an engine did not start")

    with pytest.raises(EngineError, match="bad ended at start"):
        asyncio.run(run())


def children_that_serve() -> list[str]:
    """Command lines of this process' children that are gateways."""
    lines = []
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in listed.read_text().split():
            try:
                line = Path("/proc", child, "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # ended meanwhile
                continue
            if " gateway " in line:
                lines.append(line)
    return lines
