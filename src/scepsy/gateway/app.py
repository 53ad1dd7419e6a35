"""The gateway as a server: reads requests, places, routes and records them.

It is built on aiohttp's low-level server: with two dozen paths and none of the application layer's
features needed, that layer would only add to each call.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from scepsy.clock import ScaledClock
from scepsy.errors import InputError
from scepsy.gateway.capacity import Hardware
from scepsy.gateway.dispatch_pool import DispatchConfig, DispatchPool
from scepsy.gateway.door import DoorLimits
from scepsy.gateway.door_metrics import DoorMetrics
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.forward import Forwarder, Outgoing, outgoing_headers
from scepsy.gateway.hints import NOTHING_TOLD, parse_hints
from scepsy.gateway.identify import Identifier, clean_name
from scepsy.gateway.metrics import GatewayMetrics
from scepsy.gateway.openai import (
    ENDPOINTS,
    Refusal,
    Target,
    model_entry,
    models_body,
    parse_request,
    parse_target,
    unknown_llm,
)
from scepsy.gateway.pool import Pool, Replica, ReplicaPool, Replicas
from scepsy.gateway.record import CallSink, Content, RecordCounters, Recorder
from scepsy.gateway.turns import TurnPool, Turns
from scepsy.listen import listen
from scepsy.model.execution import CallId, CallStatus, ExecutionId
from scepsy.model.workflow import LlmName
from scepsy.policy.by_name import SERVED, find_dispatcher
from scepsy.policy.dispatch import MakeDispatcher
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program_table import Limits
from scepsy.policy.route import find_policy
from scepsy.traces.store import SqliteTraceStore

log = logging.getLogger(__name__)

_EXECUTIONS = "/executions/"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """How a gateway is set up."""

    replicas: tuple[Replica, ...]
    host: str = "127.0.0.1"
    """There is no authentication: listen on other addresses only where everyone may call."""
    port: int = 8080
    """0 takes a free one."""
    speedup: float = 1.0
    """How much faster than silicon the engines run; recorded seconds are those of silicon."""
    policy: str = "least-loaded"
    """See ``policy.by_name``; what follows of programs is for ``programs``."""
    make_dispatcher: MakeDispatcher | None = None
    """Instead of a policy: makes what calls of each LLM wait at."""
    programs: Settings = SERVED
    execution_idle_s: float = 3600.0
    """An execution of which nothing was heard for so long is over (scaled s)."""
    door: DoorLimits = field(default_factory=DoorLimits)
    """Of calls that wait."""
    turns: Turns | None = None
    """Replicas that take turns on the same GPUs: routers look at what goes on beside them."""
    hardware: Mapping[LlmName, Hardware] = field(default_factory=dict)
    """What replicas should do, where their engines do not say."""
    kv_tokens: Mapping[LlmName, int] = field(default_factory=dict)
    """What fits on a replica, whatever its engine says."""
    host_bytes: Mapping[LlmName, float] = field(default_factory=dict)
    """Host memory that a replica offloads KV to, whatever its engine says."""
    record: Path | None = None
    """Trace store that calls are written to; None records nothing."""
    record_content: bool = False
    """Keep what calls send and get, too. It can hold secrets."""
    max_body_bytes: int = 32 * 1024**2
    body_s: float = 60.0
    """How long a request's body may take to come (real s)."""
    idle_s: float = 75.0
    """How long a connection may wait for the end of its next request's headers (real s)."""
    drain_s: float = 5.0
    """How long calls in flight may go on when the gateway is stopped (real s)."""

    def __post_init__(self) -> None:
        if not self.replicas:
            raise InputError("a gateway needs at least one replica")
        if not 0 <= self.port < 65536:
            raise InputError(f"port {self.port} is not in [0, 65535]")
        if self.max_body_bytes < 1:
            raise InputError(f"max_body_bytes {self.max_body_bytes} must be >= 1")
        told = {*self.hardware, *self.kv_tokens, *self.host_bytes}
        if unknown := told - {each.llm for each in self.replicas}:
            raise InputError(f"no replica serves `{min(unknown)}`, of which a capacity is given")

    def dispatcher(self) -> MakeDispatcher | None:
        """What makes a dispatcher of calls for each LLM; None where the policy is a router."""
        if self.make_dispatcher is not None:
            return self.make_dispatcher
        return find_dispatcher(self.policy, self.programs, Limits(gap_s=self.execution_idle_s))


class Gateway:
    """Answers requests. ``recorder`` None records nothing."""

    def __init__(
        self,
        config: GatewayConfig,
        clock: ScaledClock,
        replicas: Replicas,
        pool: Pool,
        forwarder: Forwarder,
        metrics: GatewayMetrics,
        recorder: Recorder | None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._replicas = replicas
        self._pool = pool
        self._forwarder = forwarder
        self._metrics = metrics
        self._recorder = recorder
        run = secrets.token_hex(4)
        self._call_ids = (CallId(f"{run}-{number:07d}") for number in count())
        self._identifier = Identifier(lambda: f"x{secrets.token_hex(8)}")

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever it is."""
        start_s = self._clock.now_s()
        try:
            target = parse_target(request.rel_url.raw_path)
            if target.path in ENDPOINTS:
                return await self._serve(request, target, start_s)
            if target.path.startswith(_EXECUTIONS) and request.method == "DELETE":
                return self._end(target.path.removeprefix(_EXECUTIONS))
            return self._tell(request, target.path)
        except Refusal as refusal:
            response = _json(refusal.body(), refusal.status)
            if refusal.retry_s is not None:
                response.headers["Retry-After"] = str(refusal.retry_s)
            if not request.content.is_eof():
                response.force_close()  # the rest of the body is not worth reading
            return response
        except Exception:
            log.exception("a request to %s failed inside the gateway", request.rel_url.raw_path)
            return _json(Refusal(500, "the gateway failed", code="internal").body(), 500)

    async def _serve(
        self, request: web.BaseRequest, target: Target, start_s: float
    ) -> web.StreamResponse:
        try:
            if request.method != "POST":
                raise Refusal(405, f"use POST for {target.path}", code="method_not_allowed")
            body = await self._read(request)
            parsed = parse_request(ENDPOINTS[target.path], body)
            if parsed.llm not in self._replicas.llms:
                raise unknown_llm(parsed.llm, self._replicas.llms)
        except Refusal as refusal:
            self._metrics.refused(refusal.code)
            raise
        exchange = Exchange(
            id=next(self._call_ids),
            identity=self._identifier.identify(target, request.headers, parsed),
            llm=parsed.llm,
            endpoint=parsed.endpoint,
            start_s=start_s,
            prompt=parsed.prompt(),
            request=body,
            told=(
                parse_hints(request.headers, parsed.body, start_s)
                if self._pool.reads_hints
                else NOTHING_TOLD
            ),
            response=bytearray() if self._config.record_content else None,
        )
        query = request.rel_url.raw_query_string
        path = f"{target.path}?{query}" if query else target.path
        headers = outgoing_headers(request.headers, exchange.identity.session)
        outgoing = Outgoing(path, headers, body)
        with self._kept(exchange):
            try:
                return await self._forwarder.forward(request, outgoing, exchange)
            finally:
                if exchange.told.is_last:
                    self._pool.over(exchange.identity.execution)

    def _end(self, name: str) -> web.Response:
        """A client says that no call of an execution follows; one that is not known is over."""
        self._pool.over(ExecutionId(clean_name(unquote(name))))
        return _json(orjson.dumps({"status": "ok"}))

    async def _read(self, request: web.BaseRequest) -> bytes:
        """The request's body, refused before it is in memory when it is too large."""
        limit = self._config.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._config.body_s):
                async for chunk in request.content.iter_any():
                    size += len(chunk)
                    if size > limit:
                        raise _too_large(limit)
                    chunks.append(chunk)
        except TimeoutError:
            waited = f"within {self._config.body_s:g} s"
            raise Refusal(408, f"the body did not come {waited}", code="timeout") from None
        except web.RequestPayloadError as error:
            raise Refusal(400, f"the body is broken: {error}", code="broken_body") from None
        return b"".join(chunks)

    @contextmanager
    def _kept(self, exchange: Exchange) -> Iterator[None]:
        """Count and record the call however it ends."""
        try:
            yield
        except Exception:
            exchange.status = CallStatus.ERROR
            raise
        finally:
            call = exchange.call(self._clock.now_s())
            self._metrics.ended(call.llm, call.status, call.e2e_s, call.ttft_s)
            self._metrics.tokens(call.llm, call.prompt_tokens, call.output_tokens)
            self._metrics.identified(exchange.identity.rung)
            if call.status is CallStatus.OK:
                answer = exchange.answer
                messages = map(answer.message, answer.choices)
                self._identifier.answered(exchange.identity, messages, answer.response_id)
            if self._recorder is not None:
                content = None
                if exchange.response is not None:
                    content = Content(exchange.request, bytes(exchange.response))
                self._recorder.put(call, content)

    def _tell(self, request: web.BaseRequest, path: str) -> web.Response:
        """Answer what the gateway knows by itself."""
        is_known = path in ("/health", "/metrics") or path.startswith("/v1/models")
        if is_known and request.method not in ("GET", "HEAD"):
            raise Refusal(405, f"use GET for {path}", code="method_not_allowed")
        if path == "/health":
            return _json(self._health())
        if path == "/metrics":
            return web.Response(
                body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )
        if path == "/v1/models":
            return _json(models_body(self._replicas.llms))
        if path.startswith("/v1/models/"):
            name = request.rel_url.path.partition("/v1/models/")[2]
            for llm in self._replicas.llms:
                if llm == name:
                    return _json(orjson.dumps(model_entry(llm)))
            raise unknown_llm(name, self._replicas.llms)
        raise Refusal(404, f"there is no {path[:200]} here", code="not_found")

    def _health(self) -> bytes:
        llms = {
            llm: {
                "replicas": len(replicas.names),
                "inflight_calls": sum(replicas.inflight(n).calls for n in replicas.names),
            }
            for llm, replicas in self._replicas.by_llm.items()
        }
        return orjson.dumps({"status": "ok", "llms": llms})


class RunningGateway:
    """A gateway that listens. Must be stopped."""

    def __init__(self, url: str, stack: AsyncExitStack, recorder: Recorder | None) -> None:
        """Take what must be undone at the end; use ``start_gateway``."""
        self.url = url
        """Base URL, without ``/v1``."""
        self._stack = stack
        self._recorder = recorder

    async def flush(self) -> None:
        """Wait until every call that has ended is in the trace store."""
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.flush)

    async def stop(self) -> None:
        """Take no more calls, let those in flight end, write what is recorded. May be repeated."""
        await self._stack.aclose()


async def start_gateway(config: GatewayConfig, *, sink: CallSink | None = None) -> RunningGateway:
    """Start serving in the running event loop.

    Args:
        config: how.
        sink: where calls are recorded instead of into ``config.record``; closed at the end.

    Raises:
        InputError: the port is taken, the policy unknown, or the file is not a trace store.
    """
    clock = ScaledClock(config.speedup)
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        replicas = Replicas(config.replicas)
        pool = await _pool(config, replicas, clock, registry, stack)
        metrics = GatewayMetrics(replicas, registry)
        if sink is None and config.record is not None:
            sink = SqliteTraceStore.open(config.record)
        if sink is None and config.record_content:
            raise InputError(
                "content can be recorded only where calls are", hint="say where with --record"
            )
        recorder = None
        if sink is not None:
            counters = RecordCounters(
                metrics.recorded, metrics.unrecorded, metrics.unrecorded_contents
            )
            recorder = Recorder(sink, counters)
            stack.push_async_callback(asyncio.to_thread, recorder.close)
        forwarder = await stack.enter_async_context(Forwarder(pool, metrics, clock.now_s))
        gateway = Gateway(config, clock, replicas, pool, forwarder, metrics, recorder)
        server = web.Server(
            gateway.handle,
            handler_cancellation=True,  # a client that leaves frees its place at once
            access_log=None,
            keepalive_timeout=config.idle_s,
        )
        runner = web.ServerRunner(server, shutdown_timeout=config.drain_s)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        url = await listen(runner, config.host, config.port)
        return RunningGateway(url, stack.pop_all(), recorder)
    raise AssertionError("unreachable")


async def _pool(
    config: GatewayConfig,
    replicas: Replicas,
    clock: ScaledClock,
    registry: CollectorRegistry,
    stack: AsyncExitStack,
) -> Pool:
    make = config.dispatcher()
    if make is not None:
        dispatching = DispatchConfig(
            make_dispatcher=make,
            limits=config.door,
            hardware=config.hardware,
            kv_tokens=config.kv_tokens,
            host_bytes=config.host_bytes,
        )
        pool = DispatchPool(replicas, dispatching, clock, DoorMetrics(registry))
        return await stack.enter_async_context(pool)
    make_router = find_policy(config.policy)
    if config.turns is not None:
        return TurnPool(replicas, make_router, time.monotonic, config.turns)
    return ReplicaPool(replicas, make_router, time.monotonic)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"the body is larger than {limit} bytes", code="body_too_large")
