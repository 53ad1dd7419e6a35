"""Profile a stage on a live engine: replay its recorded calls over HTTP.

The same replay as on the engine model (``scepsy.sim.profile``): Poisson arrivals of executions,
bursts that stay together, calls that follow others. Prompts are made up: as long as recorded, with
the same text wherever prefix blocks were the same. Answers are as long as recorded, with
``max_tokens`` and ``ignore_eos``. What an engine generates here is not what it generated then, so
answers that come back in a later prompt are computed anew; recorded serving found them cached.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import aiohttp
import orjson

from scepsy.clock import ScaledClock
from scepsy.errors import EngineError
from scepsy.model.execution import BLOCK_TOKENS, Endpoint
from scepsy.model.prompt import TOKEN_BYTES
from scepsy.model.provenance import Provenance
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, rising
from scepsy.profiles.workload import (
    Arrivals,
    SegmentRun,
    Workload,
    WorkloadCall,
    poisson_arrivals,
)

UTILIZATIONS = (0.05, 0.3, 0.55, 0.75, 0.9)
"""Loads of the points."""
INFLIGHT_CALLS = (32, 64, 128, 256, 512)
"""Calls kept in flight per replica while looking for the capacity, rising."""
_GROWTH = 1.03
"""Throughput must grow by this with twice the calls in flight, or it is the capacity."""
_WARM_UP_CYCLES = 2
"""Times from a call's release to its end, in the mean, before anything is counted."""
_TEXT = (
    "act add age air all and any arm art ask bad bag bed big bit box boy bus but buy can car cat "
    "cut day dog dry due eat end eye far few fit fly for fun gas get guy hot how ice job key kid "
    "law lay leg let lot low man map men mix new "
)
_WORDS = [_TEXT[at : at + TOKEN_BYTES] for at in range(0, len(_TEXT), TOKEN_BYTES)]
"""Words of three letters and the space after them: each is one token to most tokenizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEngine:
    """Where to send calls, and what is said of the figures that come of it."""

    url: str
    """Address of an OpenAI-compatible server, without ``/v1``."""
    model: str
    """What it wants in ``model``."""
    clock: ScaledClock
    """As fast as the engine's, if that is emulated."""
    provenance: Provenance = Provenance.MEASURED
    """SIMULATED where the engine is emulated."""
    source: str = "measured over HTTP"


@dataclass(slots=True, eq=False)
class _Served:
    start_s: float
    first_token_s: float = 0.0
    end_s: float = 0.0


async def fetch_models(url: str) -> tuple[str, ...]:
    """The names that an engine serves.

    Raises:
        EngineError: the engine cannot be reached, or does not say.
    """
    timeout = aiohttp.ClientTimeout(total=30)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(url.rstrip("/") + "/v1/models") as response,
        ):
            body = orjson.loads(await response.read())
            return tuple(str(model["id"]) for model in body["data"])
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"cannot call {url}: {error}", hint="is the engine running?") from error
    except (ValueError, LookupError, TypeError) as error:
        raise EngineError(f"{url}/v1/models is not a list of models: {error}") from error


async def measure_stage(
    workload: Workload,
    key: ProfileKey,
    engine: LiveEngine,
    *,
    seed: int,
    min_calls: int = 400,
    utilizations: Sequence[float] = UTILIZATIONS,
    inflight: Sequence[int] = INFLIGHT_CALLS,
    progress: Callable[[], None] = lambda: None,
) -> ProfileCurve:
    """The stage's curve as a live engine serves it.

    Args:
        workload: the recorded calls.
        key: what the engine runs on; with ``replicas`` > 1 the address is that of a router.
        engine: where it is.
        seed: decides the order of executions and their gaps.
        min_calls: calls of one point at least.
        utilizations: loads of the points, in (0, 1).
        inflight: calls kept in flight per replica to find the capacity, rising.
        progress: called once for the capacity and once for each point.

    Raises:
        EngineError: the engine cannot be reached, or refused a call.
    """
    arrivals = poisson_arrivals(workload, min_calls=min_calls, seed=seed)
    # A connection of its own for each call: some engines close idle ones in silence.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None, connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        replay = _LiveReplay(engine, session, arrivals, workload)
        capacity_per_s, latency_s = await replay.saturate(key.replicas, inflight)
        progress()
        points: list[ProfilePoint] = []
        latency_s = min(latency_s, workload.recorded_s_mean or latency_s)
        for load in sorted(utilizations):
            served = await replay.serve(load * capacity_per_s, guess_s=latency_s)
            point = _point(load, served)
            latency_s = point.latency_s_mean
            points.append(point)
            progress()
    return ProfileCurve(
        key=key,
        capacity_per_s=capacity_per_s / key.replicas,
        points=rising(points),
        provenance=engine.provenance,
        source=engine.source,
    )


def _point(load: float, served: Sequence[_Served]) -> ProfilePoint:
    latencies = sorted(call.end_s - call.start_s for call in served)
    return ProfilePoint(
        utilization=load,
        latency_s_mean=sum(latencies) / len(latencies),
        latency_s_p95=latencies[max(0, -(-len(latencies) * 95 // 100) - 1)],
        ttft_s_mean=sum(call.first_token_s - call.start_s for call in served) / len(served),
    )


class _LiveReplay:
    """Copies of segments on their way through a live engine."""

    def __init__(
        self,
        engine: LiveEngine,
        session: aiohttp.ClientSession,
        arrivals: Arrivals,
        workload: Workload,
    ) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._session = session
        self._arrivals = arrivals
        self._workload = workload
        self._copies = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        """A call ended, or a task failed."""
        self._failure: BaseException | None = None
        self._arrived = 0
        self._ended_segments = 0
        self._inflight = 0
        self._served: list[_Served] = []
        self._ended: list[_Served] = []

    async def serve(self, calls_per_s: float, *, guess_s: float) -> list[_Served]:
        """The calls that start in one period of the stream at a rate, in its steady state."""
        workload, arrivals = self._workload, self._arrivals
        scale = guess_s / workload.recorded_s_mean if workload.recorded_s_mean else 1.0
        async with self._phase():
            origin_s = self._clock.now_s()
            for run, calls in arrivals.under_way(calls_per_s, scale):
                self._go_on(run, next(self._copies), calls, origin_s)
            self._spawn(self._stream(origin_s, calls_per_s))
            began_s = origin_s + _WARM_UP_CYCLES * (guess_s + workload.after_s_mean)
            end_s = began_s + arrivals.calls / calls_per_s
            while (left_s := end_s - self._clock.now_s()) > 0:
                await self._change(self._clock.real_s(left_s))
            served = [call for call in self._served if began_s <= call.start_s < end_s]
            while not all(call.end_s for call in served):
                await self._change()
        return served

    async def saturate(self, replicas: int, levels: Sequence[int]) -> tuple[float, float]:
        """Most calls/s of all replicas together, and the mean latency (s) there."""
        best_per_s = latency_s = 0.0
        async with self._phase():
            for inflight in (replicas * calls for calls in levels):
                await self._keep(inflight, calls=inflight)
                while self._ended_segments * 2 < self._arrived:  # until early and late calls mix
                    await self._keep(inflight, calls=1)
                before, began_s = len(self._ended), self._ended[-1].end_s
                await self._keep(inflight, calls=max(self._arrivals.calls, 2 * inflight))
                counted = self._ended[before:]
                per_s = len(counted) / (counted[-1].end_s - began_s)
                grew = per_s > best_per_s * _GROWTH
                if per_s > best_per_s:
                    best_per_s = per_s
                    latency_s = sum(call.end_s - call.start_s for call in counted) / len(counted)
                if not grew:
                    break
        return best_per_s, latency_s

    async def _keep(self, inflight: int, *, calls: int) -> None:
        """Keep so many calls in flight until so many more have ended."""
        until = len(self._ended) + calls
        while len(self._ended) < until:
            while self._inflight < inflight:
                run = SegmentRun(self._arrivals.segment(self._arrived))
                self._go_on(run, next(self._copies), _first(run), self._clock.now_s())
                self._arrived += 1
                await asyncio.sleep(0)  # let its first calls begin
            await self._change()

    @asynccontextmanager
    async def _phase(self) -> AsyncIterator[None]:
        """Give up, at the end of the block, all calls that are still under way."""
        self._arrived = self._ended_segments = self._inflight = 0
        self._served, self._ended = [], []
        try:
            yield
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error
            self._changed.set()

    async def _change(self, timeout_s: float | None = None) -> None:
        """Wait until a call has ended, at most so long (real s).

        Raises:
            EngineError: a call failed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()
        if self._failure is not None:
            raise self._failure

    async def _stream(self, origin_s: float, calls_per_s: float) -> None:
        at_s = origin_s
        for arrival in count():
            at_s += self._arrivals.gap_s(arrival, calls_per_s)
            await self._sleep_until(at_s)
            run = SegmentRun(self._arrivals.segment(arrival))
            self._go_on(run, next(self._copies), _first(run), at_s)

    def _go_on(
        self, run: SegmentRun, copy: int, calls: Iterable[tuple[int, float]], from_s: float
    ) -> None:
        for call, in_s in calls:
            self._spawn(self._call(run, copy, call, from_s + in_s))

    async def _call(self, run: SegmentRun, copy: int, call: int, at_s: float) -> None:
        """Send one call at its instant; let go those that waited for it."""
        recorded = run.segment.calls[call]
        path, body = _request(self._engine.model, recorded, copy, call)
        await self._sleep_until(at_s)
        served = _Served(self._clock.now_s())
        self._served.append(served)
        self._inflight += 1
        try:
            async with self._session.post(
                self._engine.url.rstrip("/") + path,
                data=body,
                headers={"Content-Type": "application/json"},
            ) as response:
                if response.status != 200:
                    text = (await response.text())[:300]
                    raise EngineError(f"{self._engine.url} answered {response.status}: {text}")
                async for _ in response.content.iter_any():
                    served.first_token_s = served.first_token_s or self._clock.now_s()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError(
                f"cannot call {self._engine.url}{path}: {error}", hint="is the engine running?"
            ) from error
        served.end_s = self._clock.now_s()
        self._inflight -= 1
        self._ended.append(served)
        self._changed.set()
        following = [(at, run.segment.calls[at].after_s) for at in run.ended(call)]
        self._ended_segments += run.is_over
        self._go_on(run, copy, following, served.end_s)

    async def _sleep_until(self, at_s: float) -> None:
        left_s = at_s - self._clock.now_s()
        if left_s > 0:
            await asyncio.sleep(self._clock.real_s(left_s))


def _first(run: SegmentRun) -> list[tuple[int, float]]:
    return [(call, run.segment.calls[call].after_s) for call in run.first()]


def _request(model: str, call: WorkloadCall, copy: int, number: int) -> tuple[str, bytes]:
    """Path and body. All text generation goes to completions, which add nothing to a prompt."""
    text = _prompt(call, copy, number)
    match call.endpoint:
        case Endpoint.EMBEDDING:
            return "/v1/embeddings", orjson.dumps({"model": model, "input": text})
        case Endpoint.RERANK:
            documents = {"model": model, "query": "", "documents": [text]}
            return "/v1/rerank", orjson.dumps(documents)
        case _:
            asked = {"model": model, "prompt": text, "ignore_eos": True, "stream": True}
            limit = {"max_tokens": max(1, call.output_tokens)}
            return "/v1/completions", orjson.dumps(asked | limit)


def _prompt(call: WorkloadCall, copy: int, number: int) -> str:
    """Text of the recorded length; what follows the prefix blocks is found in no other prompt."""
    prefix, _ = call.copy_blocks(copy)
    size = max(1, call.prompt_tokens) * TOKEN_BYTES
    parts = [_block_text(block) for block in prefix]
    left = size - sum(map(len, parts))
    if left > 0:
        words = random.Random(f"{copy} {number}").choices(_WORDS, k=-(-left // TOKEN_BYTES))
        parts.append("".join(words))
    return "".join(parts)[:size]


@lru_cache(maxsize=65536)
def _block_text(block: int) -> str:
    return "".join(random.Random(block).choices(_WORDS, k=BLOCK_TOKENS))
