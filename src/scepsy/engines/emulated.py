"""An OpenAI-compatible server that answers when a real engine on real silicon would.

What it says comes from scripts or from ``engines.text``; when it says it comes from the engine
model, run against a clock that may be faster than the machine's. Like the gateway it is built on
aiohttp's low-level server, as each call should cost little.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from scepsy import __version__
from scepsy.clock import ScaledClock
from scepsy.engines import openai
from scepsy.engines.metrics import EngineMetrics
from scepsy.engines.pace import Pace, PacedEngine, Ticket, Watch
from scepsy.engines.published import specs_for
from scepsy.engines.refusal import Refusal
from scepsy.engines.reply import MAX_HASHED_BYTES, make_replies, make_scores, make_vectors
from scepsy.engines.request import (
    Generation,
    Pooling,
    parse_body,
    parse_generation,
    parse_pooling,
)
from scepsy.engines.script import Script, load_script
from scepsy.errors import InputError
from scepsy.listen import listen
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import block_ids, count_tokens
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, EngineStatistics
from scepsy.sim.program_fleet import capacity_of
from scepsy.sim.turns import SharedGpus

log = logging.getLogger(__name__)

_PATHS = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/completions": Endpoint.COMPLETION,
    "/v1/embeddings": Endpoint.EMBEDDING,
    "/v1/rerank": Endpoint.RERANK,
    "/v2/rerank": Endpoint.RERANK,
    "/rerank": Endpoint.RERANK,
    "/v1/score": Endpoint.RERANK,
    "/score": Endpoint.RERANK,
}
_TOKENIZE = "/tokenize"
_STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineServerConfig:
    """Which engine to emulate, and how to serve it."""

    llm: str
    gpu_type: str = "h100"
    tensor_parallel: int = 1
    gpu_fraction: float = 1.0
    host_bytes: float = 0.0
    """Host memory that KV is offloaded to."""
    speedup: float = 1.0
    """How much faster than silicon it runs."""
    host: str = "127.0.0.1"
    """There is no authentication: listen on other addresses only where everyone may call."""
    port: int = 0
    """0 takes a free one."""
    scripts: tuple[Path, ...] = ()
    """Files that decide what is answered; the first that knows a request does."""
    name: str = ""
    """What clients put into ``model``; the LLM's name where empty."""
    seed: int = 0
    """Another seed gives other answers to the same requests."""
    spec: EngineSpec | None = None
    """Step times and room, in all; None takes the published ones of LLM and GPU type."""
    max_context_tokens: int = 131_072
    """Prompt and answer of one call at most, and never more than fits in KV."""
    max_body_bytes: int = 32 * 1024**2
    idle_s: float = 75.0
    """How long a connection may stay open without a request (real s)."""
    drain_s: float = 2.0
    """How long calls in flight may go on when the engine is stopped (real s)."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"port {self.port} is not in [0, 65535]")
        if self.max_context_tokens < 2 or self.max_body_bytes < 1:
            raise InputError("max_context_tokens must be >= 2 and max_body_bytes >= 1")

    @property
    def served_name(self) -> str:
        """What clients put into ``model``."""
        return self.name or self.llm


@dataclass(frozen=True, slots=True)
class SharedPace:
    """What engines have in common that take turns."""

    gpus: SharedGpus
    pace: Pace


class EmulatedEngine:
    """Answers requests. Without ``shared`` it has its GPUs to itself."""

    def __init__(
        self,
        config: EngineServerConfig,
        spec: EngineSpec,
        scripts: Sequence[Script],
        shared: SharedPace | None = None,
    ) -> None:
        self._config = config
        self._name = config.served_name
        self._scripts = scripts
        pace = Pace(ScaledClock(config.speedup)) if shared is None else shared.pace
        self._clock = pace.clock
        self._capacity = capacity_of(spec)
        self._room_tokens = min(config.max_context_tokens, spec.kv_blocks * spec.block_tokens)
        self._numbers = count(1)
        self.metrics = EngineMetrics(self._name, self.statistics)
        engine = Engine(spec)
        turned = engine if shared is None else shared.gpus.add(engine)
        self._paced = PacedEngine(turned, pace, self.metrics.finished)

    def statistics(self) -> EngineStatistics:
        """The engine's state now."""
        return self._paced.statistics()

    def stop(self) -> None:
        """Answer nothing any more."""
        self._paced.stop()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        arrived_s = self._clock.now_s()
        try:
            endpoint = _PATHS.get(request.path)
            if endpoint is None and request.path != _TOKENIZE:
                return self._tell(request)
            if request.method != "POST":
                raise Refusal(405, f"use POST for {request.path}", code="method_not_allowed")
            body = parse_body(await self._read(request))
            self._check_model(body.get("model"))
            if endpoint is None:
                return _json(openai.tokenize_body(body, self._room_tokens))
            if endpoint in (Endpoint.CHAT, Endpoint.COMPLETION):
                return await self._generate(request, parse_generation(endpoint, body), arrived_s)
            return await self._pool(request, parse_pooling(endpoint, body), arrived_s)
        except Refusal as refusal:
            response = _json(refusal.body(), refusal.status)
            if not request.content.is_eof():
                response.force_close()  # the rest of the body is not worth reading
            return response
        except ConnectionError:  # the client left; aiohttp ends the connection
            raise
        except Exception:
            log.exception("a request to %s failed inside the engine", request.path)
            failure = Refusal(500, "the engine or its script failed; its log says why", code="bug")
            return _json(failure.body(), 500)

    async def _read(self, request: web.BaseRequest) -> bytes:
        limit = self._config.max_body_bytes
        too_large = Refusal(413, f"the body is larger than {limit} bytes", code="body_too_large")
        if (request.content_length or 0) > limit:
            raise too_large
        chunks, size = [], 0
        try:
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
        except web.RequestPayloadError as error:
            raise Refusal(400, f"the body is broken: {error}", code="broken_body") from None
        return b"".join(chunks)

    def _check_model(self, name: object) -> None:
        if name != self._name:
            known = f"the model {orjson.dumps(name, default=str).decode()[:200]} is not served here"
            raise Refusal(
                404, f"{known}; known: {self._name}", code="model_not_found", param="model"
            )

    def _check_room(self, prompt: bytes, *, beside_tokens: int) -> None:
        tokens = count_tokens(prompt)
        if tokens + beside_tokens > self._room_tokens:
            raise Refusal(
                400,
                f"the prompt has {tokens} tokens; at most {self._room_tokens} fit, answer included",
                code="context_length_exceeded",
                param="messages",
            )

    async def _generate(
        self, request: web.BaseRequest, asked: Generation, arrived_s: float
    ) -> web.StreamResponse:
        for prompt in asked.prompts:
            self._check_room(prompt, beside_tokens=1)
        replies = make_replies(
            asked,
            self._scripts,
            seed=self._config.seed,
            max_context_tokens=self._room_tokens,
        )
        number = f"{next(self._numbers):08x}"
        completion = openai.Completion(asked, replies, self._name, number)
        watch = Watch(streams=asked.stream)
        try:
            for index, reply in enumerate(replies):
                call = EngineCall(
                    id=f"{number}-{index}",
                    prompt_tokens=reply.prompt_tokens,
                    output_tokens=reply.tokens,
                    prefix_blocks=reply.prefix_blocks,
                    output_blocks=reply.output_blocks,
                )
                self._paced.submit(call, arrived_s, watch)
            if asked.stream:
                response = await self._stream(request, completion, watch)
            else:
                while not watch.is_done:
                    await watch.news()
                response = _json(completion.body(watch.tickets))
        finally:
            self._paced.cancel(watch)
        for reply in replies:
            self.metrics.succeeded(reply.finish_reason)
        return response

    async def _stream(
        self, request: web.BaseRequest, completion: openai.Completion, watch: Watch
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        await response.prepare(request)
        while not watch.is_done:
            await watch.news()
            events = completion.events(watch.tickets)
            if watch.is_done:
                events += completion.end(watch.tickets)
            if events:
                await response.write(events)
        await response.write_eof()
        return response

    async def _pool(
        self, request: web.BaseRequest, asked: Pooling, arrived_s: float
    ) -> web.StreamResponse:
        self._check_room(asked.prompt, beside_tokens=0)
        seed = self._config.seed
        is_embedding = asked.endpoint is Endpoint.EMBEDDING
        vectors = make_vectors(asked, self._scripts, seed=seed) if is_embedding else ()
        scores = () if is_embedding else make_scores(asked, self._scripts, seed=seed)
        call = EngineCall(
            id=f"{next(self._numbers):08x}",
            prompt_tokens=max(1, count_tokens(asked.prompt)),
            output_tokens=0,
            prefix_blocks=block_ids(asked.prompt[:MAX_HASHED_BYTES]),
        )
        watch = Watch(streams=False)
        try:
            ticket: Ticket = self._paced.submit(call, arrived_s, watch)
            while not watch.is_done:
                await watch.news()
        finally:
            self._paced.cancel(watch)
        self.metrics.succeeded("stop")
        if is_embedding:
            return _json(openai.embeddings_body(asked, vectors, ticket, self._name))
        if request.path.endswith("/score"):
            return _json(openai.score_body(scores, ticket, self._name))
        return _json(openai.rerank_body(asked, scores, ticket, self._name))

    def _tell(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        if path not in ("/health", "/metrics", "/version", "/v1/models", "/scepsy/capacity"):
            raise Refusal(404, f"there is no {path[:200]} here", code="not_found")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, f"use GET for {path}", code="method_not_allowed")
        if path == "/health":
            return web.Response()
        if path == "/version":
            return _json(orjson.dumps({"version": f"scepsy {__version__}"}))
        if path == "/scepsy/capacity":
            return _json(orjson.dumps(self._capacity))
        if path == "/metrics":
            page = self.metrics.page()
            return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})
        return _json(openai.models_body(self._name, self._room_tokens))


class RunningEngine:
    """An emulated engine that listens. Must be stopped."""

    def __init__(self, url: str, engine: EmulatedEngine, runner: web.ServerRunner) -> None:
        """Take what must be undone at the end; use ``start_engine``."""
        self.url = url
        """Base URL, without ``/v1``."""
        self._engine = engine
        self._runner = runner

    def statistics(self) -> EngineStatistics:
        """The engine's state now."""
        return self._engine.statistics()

    async def stop(self) -> None:
        """Take no more calls; those in flight have a moment to end. May be repeated."""
        await self._runner.cleanup()
        self._engine.stop()


async def start_engine(config: EngineServerConfig) -> RunningEngine:
    """Start serving in the running event loop; several engines can share one.

    Raises:
        InputError: the port is taken, or a script is bad.
        UnknownNameError: no such LLM or GPU type.
        MissingError: no step times are published for them.
        InfeasibleError: the LLM does not fit.
    """
    return (await start_engines([config]))[0]


async def start_engines(configs: Sequence[EngineServerConfig]) -> tuple[RunningEngine, ...]:
    """As ``start_engine``; several take turns on the same GPUs, each with a port of its own.

    Each computes on whole GPUs at its turn; its fraction is its part of their memory. All run at
    the speed of the first.

    Raises:
        InputError: as ``start_engine``, or they can't be on the same GPUs.
    """
    together = len(configs) > 1
    shared = SharedPace(SharedGpus(), Pace(ScaledClock(configs[0].speedup))) if together else None
    running: list[RunningEngine] = []
    try:
        for config, spec in zip(configs, specs_for(configs), strict=True):
            engine = EmulatedEngine(config, spec, list(map(load_script, config.scripts)), shared)
            running.append(await _listening(config, engine))
    except BaseException:
        for each in running:
            await each.stop()
        raise
    return tuple(running)


async def _listening(config: EngineServerConfig, engine: EmulatedEngine) -> RunningEngine:
    server = web.Server(
        engine.handle,
        handler_cancellation=True,  # a client that leaves frees its place at once
        access_log=None,
        keepalive_timeout=config.idle_s,
    )
    runner = web.ServerRunner(server, shutdown_timeout=config.drain_s)
    await runner.setup()
    try:
        url = await listen(runner, config.host, config.port)
    except InputError:
        await runner.cleanup()
        engine.stop()
        raise
    return RunningEngine(url, engine, runner)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
