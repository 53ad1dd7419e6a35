"""A child process of this program that says where it listens, and why it died if it did."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from scepsy.errors import EngineError

_READY_S = 60.0
"""How long a child may take to listen: a real engine loads its weights first."""
_STOP_S = 10.0
"""How long a child may take to end after SIGTERM before it is killed."""
_STDERR_LINES = 20


class Service:
    """One ``scepsy ... --json`` child that serves HTTP; use as ``async with``.

    The child announces itself by a JSON line with a ``url`` on its stdout. Its stderr is kept for
    the message of the error that is raised when it ends before that.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.announced: Mapping[str, Any] = {}
        """What the child said when it was ready; has a ``url``."""
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scepsy",
            *self._arguments,
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
        )
        try:
            # Not wait_for: it forgets a cancellation that comes together with the result.
            async with asyncio.timeout(_READY_S):
                self.announced = await self._announcement(self._process)
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise EngineError(f"{self.name} did not listen within {_READY_S:g} s") from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where the child listens; it must have been started."""
        return str(self.announced["url"])

    async def _announcement(self, process: asyncio.subprocess.Process) -> Mapping[str, Any]:
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers.append(asyncio.create_task(self._keep(process.stderr)))
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            await self._readers[0]
            raise EngineError(f"{self.name} ended at start: {self.last_words}")
        self._readers.append(asyncio.create_task(_drain(process.stdout)))
        announced: Mapping[str, Any] = orjson.loads(line)
        return announced

    async def _keep(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            self._stderr.append(line.decode(errors="replace").rstrip())

    @property
    def last_words(self) -> str:
        """The end of the child's stderr."""
        return "\n".join(self._stderr).strip() or "it said nothing"

    @property
    def pid(self) -> int:
        """The child's process id; it must have been started."""
        assert self._process is not None
        return self._process.pid

    async def ended(self) -> int:
        """Wait until the child ends by itself; give its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """End the child: SIGTERM, and SIGKILL when it does not follow. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.gather(*self._readers)


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
