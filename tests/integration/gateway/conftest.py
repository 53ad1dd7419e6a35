"""A small engine on real HTTP that can misbehave, and a gateway in front of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import orjson
import pytest
from aiohttp import ClientSession, web

from scepsy.gateway.app import GatewayConfig, RunningGateway, start_gateway
from scepsy.gateway.pool import parse_replicas

WORDS = ("The ", "answer ", "is ", "42.")


@dataclass
class Engine:
    """What the engine was asked, and how it behaves."""

    url: str = ""
    behaviour: str = "answer"
    seen: list[tuple[str, dict[str, str], dict[str, object]]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What slow answers wait for."""
    is_up: bool = True
    stop: Callable[[], Awaitable[None]] = field(init=False)
    abandoned: int = 0
    """Calls whose client left."""
    served_by_connection: dict[int, int] = field(default_factory=dict)
    usage: dict[str, object] = field(
        default_factory=lambda: {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 64},
        }
    )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":  # as a server does that has nothing but what calls need
            if request.path == "/health":
                return web.Response(status=200 if self.is_up else 503)
            return web.Response(status=404)
        try:
            return await self._handle(request)
        except asyncio.CancelledError:
            self.abandoned += 1
            raise

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.seen.append((request.rel_url.raw_path_qs, dict(request.headers), body))
        assert request.transport is not None
        connection = id(request.transport)
        served = self.served_by_connection.get(connection, 0)
        self.served_by_connection[connection] = served + 1
        if self.behaviour == "die" or (self.behaviour == "stale" and served):
            request.transport.close()
            return web.Response()
        if self.behaviour == "fail":
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        if self.behaviour == "refuse":
            return web.json_response({"error": {"message": "prompt too long"}}, status=400)
        if self.behaviour == "die in body":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b"{")
            request.transport.close()
            return response
        if self.behaviour == "wait":
            await self.gate.wait()
        if body.get("stream"):
            return await self._stream(request)
        return web.Response(body=self.reply(request.path), content_type="application/json")

    def reply(self, path: str) -> bytes:
        if path.endswith("/embeddings"):
            usage = {"prompt_tokens": 100, "total_tokens": 100}
            data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}]
            return orjson.dumps({"object": "list", "data": data, "model": "e", "usage": usage})
        if path.endswith("/rerank"):
            results = [{"index": 0, "relevance_score": 0.9}]
            return orjson.dumps({"results": results, "usage": {"total_tokens": 100}})
        if path.endswith("/v1/completions"):
            choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop"}
        else:
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {"id": "r", "object": "chat.completion", "created": 1, "model": "m"}
        return orjson.dumps({**reply, "choices": [choice], "usage": self.usage})

    def events(self) -> list[bytes]:
        chunks: list[dict[str, object]] = [{"delta": {"role": "assistant", "content": ""}}]
        chunks += [{"delta": {"content": word}} for word in WORDS]
        chunks.append({"delta": {}, "finish_reason": "stop"})
        head = {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        events = [{**head, "choices": [{"index": 0, **chunk}]} for chunk in chunks]
        return [b"data: " + orjson.dumps(event) + b"\n\n" for event in events]

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at, event in enumerate(self.events()):
            if at == 3 and self.behaviour == "slow stream":
                await self.gate.wait()
            if at == 3 and self.behaviour.startswith("die in stream"):
                if self.behaviour.endswith("mid event"):
                    await response.write(event[:20])
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(event)
        if self.behaviour == "ends without end":
            return response
        await response.write(b"data: [DONE]\n\n")
        return response


def _large_request(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=64 * 1024**2
    )


class Stage:
    """Engines and gateways of one test, stopped at its end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.http: ClientSession

    async def engine(self, behaviour: str = "answer") -> Engine:
        engine = Engine(behaviour=behaviour)
        server = web.Server(
            engine.handle,
            request_factory=_large_request,
            handler_cancellation=True,
            access_log=None,
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        engine.url = f"http://127.0.0.1:{site.port}"
        engine.stop = runner.cleanup
        return engine

    async def gateway(
        self, *urls: str, llm: str = "m", sink: object = None, **settings: object
    ) -> RunningGateway:
        replicas = parse_replicas([f"{llm}={url}" for url in urls])
        config = GatewayConfig(replicas=replicas, port=0, drain_s=0.2, **settings)  # type: ignore[arg-type]
        gateway = await start_gateway(config, sink=sink)  # type: ignore[arg-type]
        self._stack.push_async_callback(gateway.stop)
        return gateway

    async def metric(self, gateway: RunningGateway, line: str) -> float:
        """The value of one line of the gateway's metrics; 0 where it is not there."""
        async with self.http.get(f"{gateway.url}/metrics") as response:
            for found in (await response.text()).splitlines():
                name, _, value = found.rpartition(" ")
                if name == f"scepsy_gateway_{line}":
                    return float(value)
        return 0.0

    async def inflight(self, gateway: RunningGateway) -> int:
        async with self.http.get(f"{gateway.url}/health") as response:
            found = await response.json()
        return sum(llm["inflight_calls"] for llm in found["llms"].values())


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        made = Stage(stack)
        made.http = await stack.enter_async_context(ClientSession())
        yield made


Eventually = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds; fail after 5 s."""

    async def wait(condition: Callable[[], Awaitable[bool]]) -> None:
        until_s = time.monotonic() + 5.0
        while not await condition():
            assert time.monotonic() < until_s, "it did not happen within 5 s"
            await asyncio.sleep(0.005)

    return wait
