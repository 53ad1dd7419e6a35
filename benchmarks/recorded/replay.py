"""Recorded executions served again over HTTP: a gateway, and emulated engines behind it.

Executions arrive just as in ``scepsy.sim.serve``, copy for copy. Prompts are made up: as long as
recorded, and with the same text wherever blocks were the same. Where blocks of an answer were
recorded, the engine is told to give the text that later prompts have in its place.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import aiohttp
import orjson

from benchmarks.recorded.scenario import Scenario
from scepsy.clock import ScaledClock
from scepsy.deploy.local import GatewayOptions, serve_locally
from scepsy.deploy.render import EngineCommand
from scepsy.errors import EngineError
from scepsy.model.execution import Endpoint, ExecutionId, ReplicaName
from scepsy.model.prompt import TOKEN_BYTES
from scepsy.model.workflow import LlmName
from scepsy.profiles.workload import SegmentRun, WorkloadCall
from scepsy.sim.arrivals import Arrival, Stream
from scepsy.sim.script import Script
from scepsy.sim.serve import arriving

WORDS = 8
"""Of four bytes, for each byte of a block's id: 64 tokens."""
_LOOK_S = 0.1
LOAD_COPIES = 1_000_000
"""Copies of one load have numbers of their own, or a later load would find their prompts cached."""


@dataclass(slots=True, eq=False)
class ReplayedRun:
    """One execution on its way."""

    id: ExecutionId
    """In the gateway's recording."""
    script: Script
    bodies: tuple[bytes, ...]
    """(calls,) what each call sends."""
    progress: SegmentRun = field(init=False)

    def __post_init__(self) -> None:
        self.progress = SegmentRun(self.script.segment)


@dataclass(slots=True)
class HttpReplay:
    """Sends executions to a gateway."""

    url: str
    clock: ScaledClock
    session: aiohttp.ClientSession
    late_s: list[float] = field(default_factory=list)
    """By how much calls left after their instant: this machine's delay, in scaled seconds."""
    _loads: int = 0

    async def serve(
        self, streams: Sequence[Stream], *, executions: int, warm_up: int, seed: int
    ) -> tuple[ReplayedRun, ...]:
        """As ``scepsy.sim.serve.serve``: the same arrivals, over HTTP.

        Raises:
            EngineError: a call failed.
        """
        self._loads += 1
        tasks: list[asyncio.Task[ReplayedRun]] = []
        load = asyncio.create_task(
            self._load(arriving(streams, executions=executions, seed=seed), tasks)
        )
        try:
            while len(tasks) < warm_up + executions:
                await asyncio.wait([load], timeout=_LOOK_S)
                if load.done():
                    await load  # it does not end but by a failure
            return tuple(await asyncio.gather(*tasks[warm_up : warm_up + executions]))
        finally:
            for task in (load, *tasks):
                task.cancel()
            await asyncio.gather(load, *tasks, return_exceptions=True)

    async def _load(
        self, arrivals: Iterable[Arrival], tasks: list[asyncio.Task[ReplayedRun]]
    ) -> None:
        """Let executions arrive until cancelled, so that those counted do not end among few."""
        origin_s = self.clock.now_s() + self.clock.speedup  # in a real second
        for number, arrival in enumerate(arrivals):
            copy = self._loads * LOAD_COPIES + number
            sent = tuple(bodies(arrival.script, copy))
            run = ReplayedRun(ExecutionId(f"{self._loads}-{number}"), arrival.script, sent)
            at_s = origin_s + arrival.at_s
            await asyncio.sleep(self.clock.real_s(at_s - self.clock.now_s()))
            tasks.append(asyncio.create_task(self._execution(run, at_s)))

    async def _execution(self, run: ReplayedRun, at_s: float) -> ReplayedRun:
        async with asyncio.TaskGroup() as group:
            self._release(group, run, run.progress.first(), at_s)
        return run

    def _release(
        self, group: asyncio.TaskGroup, run: ReplayedRun, calls: Iterable[int], from_s: float
    ) -> None:
        for call in calls:
            at_s = from_s + run.script.segment.calls[call].after_s
            group.create_task(self._call(group, run, call, at_s))

    async def _call(
        self, group: asyncio.TaskGroup, run: ReplayedRun, call: int, at_s: float
    ) -> None:
        await asyncio.sleep(self.clock.real_s(at_s - self.clock.now_s()))
        self.late_s.append(self.clock.now_s() - at_s)
        stage = run.script.stages[call]
        headers = {
            "Content-Type": "application/json",
            "x-scepsy-workflow": stage.workflow,
            "x-scepsy-execution": run.id,
            "x-scepsy-role": stage.role,
        }
        url = self.url + _PATHS[run.script.segment.calls[call].endpoint]
        async with self.session.post(url, data=run.bodies[call], headers=headers) as response:
            text = await response.read()
            if response.status != 200:
                raise EngineError(f"{url} answered {response.status}: {text[:300]!r}")
        self._release(group, run, run.progress.ended(call), self.clock.now_s())


@asynccontextmanager
async def served(scenario: Scenario, *, speedup: float, record: Path) -> AsyncIterator[HttpReplay]:
    """The scenario's plan on emulated engines; its gateway records calls into a store."""
    options = GatewayOptions(speedup=speedup, port=0, record=record)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        serve_locally(_engines(scenario, speedup), options) as deployment,
        aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        ) as session,
    ):
        yield HttpReplay(deployment.url, ScaledClock(speedup), session)


def _engines(scenario: Scenario, speedup: float) -> tuple[EngineCommand, ...]:
    return tuple(
        EngineCommand(
            ReplicaName(f"{llm}-{number}"),
            LlmName(llm),
            (
                "engine",
                f"--model={llm}",
                f"--gpu={gpu}",
                f"--tp={degree}",
                f"--gpu-fraction={fraction:g}",
                f"--speedup={speedup:g}",
                "--port=0",
                f"--script={Path(__file__).with_name('answer.py')}",
            ),
        )
        for llm, gpu, degree, fraction, replicas in scenario.groups
        for number in range(replicas)
    )


_PATHS = {
    Endpoint.EMBEDDING: "/v1/embeddings",
    Endpoint.RERANK: "/v1/rerank",
    **dict.fromkeys((Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.OTHER), "/v1/completions"),
}


def bodies(script: Script, copy: int) -> Iterator[bytes]:
    """Of all calls of an execution: made before it arrives, so that none waits for its body."""
    pairs = zip(script.segment.calls, script.stages, strict=True)
    for number, (call, stage) in enumerate(pairs):
        yield body_of(stage.llm, call, copy, number)


def body_of(llm: LlmName, call: WorkloadCall, copy: int, number: int) -> bytes:
    """All text generation goes to completions, which add nothing to a prompt."""
    prefix, output = call.copy_blocks(copy)
    size = max(1, call.prompt_tokens) * TOKEN_BYTES
    blocks = [*prefix, *(output or (copy * 4096 + number,))]
    text = "".join(map(_block_text, blocks))
    if len(text) < size:  # blocks were not recorded, or not all
        rest = range((copy * 4096 + number) * 65536, 1 << 62)
        missing = -(-(size - len(text)) // len(_block_text(0)))
        text += "".join(map(_block_text, rest[:missing]))
    match call.endpoint:
        case Endpoint.EMBEDDING:
            return orjson.dumps({"model": llm, "input": text[:size]})
        case Endpoint.RERANK:  # rendered as the query, one byte, and the documents
            documents = [text[TOKEN_BYTES:size]]
            return orjson.dumps(
                {"model": llm, "query": text[: TOKEN_BYTES - 1], "documents": documents}
            )
    answer_size = max(1, call.output_tokens) * TOKEN_BYTES
    asked = {
        "model": llm,
        "prompt": text[:size],
        "max_tokens": max(1, call.output_tokens),
        "ignore_eos": True,
    }
    if output and len(text) >= size:
        asked["replayed_answer"] = text[size : size + answer_size].ljust(answer_size)
    return orjson.dumps(asked)


@lru_cache(maxsize=1)
def _phrases() -> tuple[str, ...]:
    """256 that differ, each of so many words of three letters and a space."""
    letters = "abcdefghijklmnop"
    return tuple(
        "".join(f"{letters[value >> 4]}{letters[value & 15]}{letters[at]} " for at in range(WORDS))
        for value in range(256)
    )


@lru_cache(maxsize=65536)
def _block_text(block: int) -> str:
    phrases = _phrases()
    return "".join([phrases[byte] for byte in (block & (1 << 64) - 1).to_bytes(8, "big")])
