"""The client that the examples share, against real servers on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from examples.connect import as_execution, as_role, chat, connect, rerank_scores, stream_chat
from examples.rag_rerank.workflow import embed

MESSAGES = [{"role": "user", "content": "hello"}]


def chunk(text: str) -> bytes:
    body = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }
    return f"data: {json.dumps(body)}\n\n".encode()


class Server:
    """Answers every API with what it was asked, and keeps the headers."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.peers: set[tuple[str, int]] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embeddings)
        app.router.add_post("/v1/rerank", self.rerank)
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.peers.add(request.transport.get_extra_info("peername"))
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.json()
        if body["model"] == "full":
            return web.json_response({"error": {"message": "no room left"}}, status=503)
        if not body.get("stream"):
            return web.json_response(
                {
                    "id": "1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": body["model"],
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": "größer"},
                        }
                    ],
                }
            )
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        data = b": keep-alive\n\n" + chunk("grö") + chunk("ßer")
        for at in range(0, len(data), 7):  # cut anywhere, within letters too
            await response.write(data[at : at + 7])
        if body["model"] == "dies":
            assert request.transport is not None
            request.transport.abort()
        elif body["model"] == "breaks":
            await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
        elif body["model"] != "stops":
            await response.write(b"data: [DONE]\n\n")
        return response

    async def embeddings(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        data = [
            {"object": "embedding", "index": at, "embedding": [float(len(text)), 1.0]}
            for at, text in enumerate(texts)
        ]
        return web.json_response({"object": "list", "model": "m", "data": data[::-1]})

    async def rerank(self, request: web.Request) -> web.Response:
        body = await request.json()
        scored = [(at, len(text)) for at, text in enumerate(body["documents"])]
        results = [
            {"index": at, "relevance_score": length / 10}
            for at, length in sorted(scored, key=lambda each: -each[1])
        ]
        return web.json_response({"id": "1", "model": body["model"], "results": results})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    async with TestServer(server.app()) as running, connect(str(running.make_url("/v1"))) as made:
        yield made


async def test_calls_carry_their_labels(server: Server, client: openai.AsyncOpenAI) -> None:
    labelled = as_execution(client, "flow", "flow-1")

    reply = await labelled.chat.completions.create(
        model="m", messages=MESSAGES, extra_headers=as_role("planner")
    )
    shorter = await chat(
        labelled, role="planner", model="m", messages=MESSAGES, max_tokens=9, seed=1
    )

    assert shorter == reply.choices[0].message.content == "größer"
    one, same = [{k: v for k, v in seen.items() if "scepsy" in k} for seen in server.seen]
    assert (
        one
        == same
        == {
            "x-scepsy-workflow": "flow",
            "x-scepsy-execution": "flow-1",
            "x-scepsy-role": "planner",
        }
    )


async def stream(client: openai.AsyncOpenAI, model: str) -> str:
    return await stream_chat(
        client, role="writer", model=model, messages=MESSAGES, max_tokens=9, seed=1
    )


async def test_a_stream_is_read_whole_wherever_it_is_cut(client: openai.AsyncOpenAI) -> None:
    assert await stream(client, "m") == "größer"


async def test_a_connection_is_used_again(server: Server, client: openai.AsyncOpenAI) -> None:
    for _ in range(3):
        await stream(client, "m")
        await as_execution(client, "flow", "flow-1").chat.completions.create(
            model="m", messages=MESSAGES
        )

    assert len(server.peers) == 1


async def test_a_stream_that_breaks_off_is_an_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(httpx2.ReadError):
        await stream(client, "dies")
    with pytest.raises(RuntimeError, match="broke off"):
        await stream(client, "stops")


async def test_an_error_within_a_stream_is_an_error(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        await stream(client, "breaks")


async def test_a_refusal_is_not_tried_again(server: Server, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="no room left"):
        await chat(client, role="r", model="full", messages=MESSAGES, max_tokens=9, seed=1)

    assert len(server.seen) == 1


async def test_nobody_listening_is_a_connection_error() -> None:
    async with connect(f"http://127.0.0.1:{unused_port()}/v1") as client:
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="m", messages=MESSAGES)


async def test_hundreds_of_calls_run_at_once(client: openai.AsyncOpenAI) -> None:
    replies = await asyncio.gather(*(stream(client, "m") for _ in range(300)))

    assert set(replies) == {"größer"}


async def test_vectors_and_relevances_keep_the_order_asked(client: openai.AsyncOpenAI) -> None:
    vectors = await embed(client, "m", ["a", "abc", "ab"])
    scores = await rerank_scores(client, model="m", query="q", documents=["a", "abc", "ab"])

    assert vectors.tolist() == [[1.0, 1.0], [3.0, 1.0], [2.0, 1.0]]
    assert scores == [0.1, 0.3, 0.2]
