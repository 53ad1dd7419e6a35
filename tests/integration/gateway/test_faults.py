"""Whatever goes wrong, the place on the replica is given back and the client is told."""

import asyncio
import io
import socket
import time

import orjson
import pytest
from aiohttp import ServerDisconnectedError
from openai import APIError, AsyncOpenAI

from scepsy.errors import InputError
from scepsy.gateway.app import GatewayConfig, start_gateway
from scepsy.gateway.pool import parse_replicas

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}


def unused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def ask(stage, gateway, body=CHAT):
    async with stage.http.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
        return response.status, await response.read()


async def counted(stage, gateway, status):
    return await stage.metric(gateway, f'calls_total{{llm="m",status="{status}"}}')


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_client_that_leaves_before_the_answer_frees_its_place(stage, eventually, body):
    engine = await stage.engine("wait")
    gateway = await stage.gateway(engine.url)

    async def arrived():
        return await stage.inflight(gateway) == 1 and len(engine.seen) == 1

    async def freed():
        return await stage.inflight(gateway) == 0 and engine.abandoned == 1

    call = asyncio.create_task(ask(stage, gateway, body))
    await eventually(arrived)
    call.cancel()
    await eventually(freed)

    assert await counted(stage, gateway, "cancelled") == 1


async def test_a_client_that_leaves_during_the_stream_frees_its_place(stage, eventually):
    engine = await stage.engine("slow stream")
    gateway = await stage.gateway(engine.url)

    async def freed():
        return await stage.inflight(gateway) == 0 and engine.abandoned == 1

    response = await stage.http.post(f"{gateway.url}/v1/chat/completions", json=STREAM)
    await response.content.readany()
    assert await stage.inflight(gateway) == 1
    response.close()
    await eventually(freed)

    assert await counted(stage, gateway, "cancelled") == 1


async def test_a_client_that_leaves_after_the_last_event_got_its_answer(stage, eventually):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)
    openai = AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k")

    async for _ in await openai.chat.completions.create(**STREAM):
        pass
    await openai.close()

    async def ended():
        return await counted(stage, gateway, "ok") == 1

    await eventually(ended)


@pytest.mark.parametrize("behaviour", ["die in stream", "die in stream mid event"])
async def test_an_engine_that_dies_in_the_stream_ends_it_with_an_error_event(stage, behaviour):
    engine = await stage.engine(behaviour)
    gateway = await stage.gateway(engine.url)

    status, body = await ask(stage, gateway, STREAM)

    assert status == 200
    *_, last = body.rstrip(b"\n").split(b"\n\n")
    name, data = last.split(b"\n")
    assert name == b"event: error"
    assert orjson.loads(data.removeprefix(b"data: "))["error"]["code"] == "broken_off"
    assert b"[DONE]" not in body
    assert await counted(stage, gateway, "error") == 1
    assert await stage.inflight(gateway) == 0


async def test_the_openai_client_raises_when_an_engine_dies_in_the_stream(stage):
    engine = await stage.engine("die in stream")
    gateway = await stage.gateway(engine.url)

    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k") as openai:
        with pytest.raises(APIError, match="broke off"):
            async for _ in await openai.chat.completions.create(**STREAM):
                pass


async def test_a_stream_that_stops_without_its_end_is_an_error_too(stage):
    engine = await stage.engine("ends without end")
    engine.events = lambda: [b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n']
    gateway = await stage.gateway(engine.url)

    _, body = await ask(stage, gateway, STREAM)

    assert b"event: error" in body
    assert await counted(stage, gateway, "error") == 1


async def test_an_engine_that_dies_before_its_answer_is_a_502(stage):
    engine = await stage.engine("die")
    gateway = await stage.gateway(engine.url)

    status, body = await ask(stage, gateway)

    assert status == 502
    assert orjson.loads(body)["error"]["code"] == "no_answer"
    assert len(engine.seen) == 1  # a new connection: what killed it once is not sent again
    assert await counted(stage, gateway, "error") == 1
    assert await stage.inflight(gateway) == 0


async def test_a_dead_kept_alive_connection_is_replaced_by_a_fresh_one(stage):
    engine = await stage.engine("stale")
    gateway = await stage.gateway(engine.url)

    statuses = [(await ask(stage, gateway))[0] for _ in range(6)]

    assert statuses == [200] * 6
    assert await stage.metric(gateway, 'retries_total{reason="stale"}') > 0
    assert await counted(stage, gateway, "ok") == 6


async def test_a_refused_connection_sends_the_call_to_another_replica(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(unused_url(), engine.url)

    statuses = [(await ask(stage, gateway))[0] for _ in range(3)]

    assert statuses == [200] * 3
    # The first found it; the others pass the dead one over for a while.
    assert await stage.metric(gateway, 'retries_total{reason="unreachable"}') == 1
    assert await stage.inflight(gateway) == 0


async def test_an_engine_that_dies_inside_its_answer_is_a_502(stage):
    engine = await stage.engine("die in body")
    gateway = await stage.gateway(engine.url)

    status, body = await ask(stage, gateway)

    assert (status, orjson.loads(body)["error"]["code"]) == (502, "no_answer")
    assert len(engine.seen) == 1
    assert await counted(stage, gateway, "error") == 1


async def test_an_error_that_the_engine_reports_in_its_stream_is_passed_on_alone(stage):
    engine = await stage.engine("ends without end")
    engine.events = lambda: [b'data: {"error": {"message": "out of memory"}}\n\n']
    gateway = await stage.gateway(engine.url)

    _, body = await ask(stage, gateway, STREAM)

    assert body == engine.events()[0]
    assert await counted(stage, gateway, "error") == 1


@pytest.mark.parametrize("replicas", [1, 3])
async def test_where_no_replica_can_be_reached_the_answer_is_503(stage, replicas):
    gateway = await stage.gateway(*(unused_url() for _ in range(replicas)))

    status, body = await ask(stage, gateway)

    assert status == 503
    assert "no replica of `m` can be reached" in orjson.loads(body)["error"]["message"]
    assert await counted(stage, gateway, "error") == 1
    assert await stage.inflight(gateway) == 0


async def test_an_engines_failure_is_passed_on_and_counted(stage):
    engine = await stage.engine("fail")
    gateway = await stage.gateway(engine.url)

    status, body = await ask(stage, gateway)

    assert (status, orjson.loads(body)["error"]["message"]) == (500, "out of memory")
    assert await counted(stage, gateway, "error") == 1


async def raw(gateway, data):
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    return reader, writer


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


async def test_a_body_of_100_mb_is_refused_before_it_is_sent(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)

    reader, writer = await raw(gateway, HEAD + b"Content-Length: 100000000\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
    writer.close()
    status, _ = await ask(stage, gateway)

    assert answer.startswith(b"HTTP/1.1 413")
    assert status == 200
    assert len(engine.seen) == 1


async def test_a_client_that_sends_100_mb_all_the_same_reads_the_413(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)

    url = f"{gateway.url}/v1/chat/completions"
    async with stage.http.post(url, data=io.BytesIO(bytes(100_000_000))) as response:
        found = orjson.loads(await response.read())

    assert (response.status, found["error"]["code"]) == (413, "body_too_large")


async def test_a_body_without_a_length_is_cut_at_the_limit(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, max_body_bytes=1000)

    async def pieces():
        for _ in range(100):
            yield bytes(100)

    async with stage.http.post(f"{gateway.url}/v1/chat/completions", data=pieces()) as response:
        assert response.status == 413


async def test_a_large_body_waits_for_leave_and_does_not_get_it(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, max_body_bytes=1000)

    head = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await raw(gateway, head % 2000)
    refused = await asyncio.wait_for(reader.readline(), 2)
    writer.close()
    body = orjson.dumps(CHAT)
    reader, writer = await raw(gateway, head % len(body))
    allowed = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
    writer.write(body)
    answer = await asyncio.wait_for(reader.readline(), 2)
    writer.close()

    assert refused.startswith(b"HTTP/1.1 413")
    assert allowed == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200")


async def test_slow_bodies_and_slow_headers_are_not_waited_for(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, body_s=0.1, idle_s=0.2)

    reader, writer = await raw(gateway, HEAD + b"Content-Length: 50\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readline(), 2)
    writer.close()
    reader, writer = await raw(gateway, HEAD)
    nothing = await asyncio.wait_for(reader.read(), 2)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 408")
    assert nothing == b""


async def test_a_taken_port_is_an_input_error_with_a_hint():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = GatewayConfig(replicas=parse_replicas([f"m={unused_url()}"]), port=port)

        with pytest.raises(InputError, match=f"127.0.0.1:{port} is taken") as caught:
            await start_gateway(config)

    assert "--port" in str(caught.value.hint)


async def test_stopping_lets_calls_end_and_then_cuts_them(stage, eventually):
    engine = await stage.engine("wait")
    gateway = await stage.gateway(engine.url)
    call = asyncio.create_task(ask(stage, gateway))

    async def arrived():
        return len(engine.seen) == 1

    await eventually(arrived)
    start_s = time.monotonic()
    await gateway.stop()

    assert time.monotonic() - start_s < 2
    with pytest.raises(ServerDisconnectedError):
        await call
