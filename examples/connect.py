"""An OpenAI client for many executions at once, and the labels that tell Scepsy them apart.

The client is the ordinary ``AsyncOpenAI``; only what carries its bytes is aiohttp instead of the
default, because that halves the CPU per call. Any other ``AsyncOpenAI`` does as well.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import aiohttp
import httpx2
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

BASE_URL: Final = "http://127.0.0.1:8080/v1"
"""The gateway, when neither an argument nor ``OPENAI_BASE_URL`` says where to send calls."""


def connect(base_url: str | None = None, api_key: str | None = None) -> AsyncOpenAI:
    """A client that waits as long as a call takes, and never sends one twice. Close it.

    Args:
        base_url: Ends in ``/v1``. ``OPENAI_BASE_URL`` when not given.
        api_key: ``OPENAI_API_KEY`` when not given; many servers need none.
    """
    return AsyncOpenAI(
        base_url=base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL,
        api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",
        max_retries=0,
        timeout=None,
        http_client=httpx2.AsyncClient(transport=AiohttpTransport(), timeout=None),
    )


def as_execution(client: AsyncOpenAI, workflow: str, execution: str) -> AsyncOpenAI:
    """The same client and connections, with every call labelled as part of one execution."""
    return client.with_options(
        default_headers={"x-scepsy-workflow": workflow, "x-scepsy-execution": execution}
    )


def as_role(role: str) -> Mapping[str, str]:
    """The header that says what a call is for."""
    return {"x-scepsy-role": role}


async def chat(
    client: AsyncOpenAI,
    *,
    role: str,
    model: str,
    messages: Sequence[ChatCompletionMessageParam],
    max_tokens: int,
    seed: int,
    temperature: float = 0.0,
) -> str:
    """The text of an answer.

    The same as ``client.chat.completions.create``, whose checks and objects cost twice the CPU.
    """
    reply = await client.post(
        "/chat/completions",
        cast_to=httpx2.Response,
        body={
            "model": model,
            "messages": messages,
            "max_tokens": max_tokens,
            "seed": seed,
            "temperature": temperature,
        },
        options={"headers": as_role(role)},
    )
    return json.loads(reply.content)["choices"][0]["message"]["content"] or ""


async def stream_chat(
    client: AsyncOpenAI,
    *,
    role: str,
    model: str,
    messages: Sequence[ChatCompletionMessageParam],
    max_tokens: int,
    seed: int,
) -> str:
    """The whole text of a streamed answer.

    Reads the lines of the event stream itself: the client's own chunk objects cost ten times more,
    which matters when hundreds of executions share one core.

    Raises:
        RuntimeError: the stream ended, or said that something failed, before the answer's end.
    """
    parts: list[str] = []
    ended = False
    async with client.chat.completions.with_streaming_response.create(
        model=model,
        messages=messages,
        max_tokens=max_tokens,
        seed=seed,
        stream=True,
        extra_headers=as_role(role),
    ) as response:
        async for line in response.iter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[len("data: ") :])
                if "error" in chunk:
                    raise RuntimeError(f"{model} broke off: {chunk['error']}")
                parts.extend(choice["delta"].get("content") or "" for choice in chunk["choices"])
            elif line == "data: [DONE]":
                ended = True  # read on: only a connection read to its end can be used again
    if not ended:
        raise RuntimeError(f"{model} broke off before the end of its answer")
    return "".join(parts)


async def rerank_scores(
    client: AsyncOpenAI, *, model: str, query: str, documents: Sequence[str]
) -> list[float]:
    """The relevance of each document, in the order given.

    The OpenAI API has no reranking; this is the ``/v1/rerank`` that vLLM, llama.cpp and others
    serve.
    """
    reply = await client.post(
        "/rerank",
        cast_to=httpx2.Response,
        body={"model": model, "query": query, "documents": list(documents)},
        options={"headers": as_role("reranker")},
    )
    results = json.loads(reply.content)["results"]
    scores = {int(row["index"]): float(row["relevance_score"]) for row in results}
    return [scores[at] for at in range(len(documents))]


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Carries the client's requests with aiohttp. Made and used inside one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; the body of the answer is read as it comes."""
        content = await request.aread()
        headers = [
            (name.decode(), value.decode())
            for name, value in request.headers.raw
            if name.lower() not in (b"host", b"content-length", b"transfer-encoding")
        ]
        try:
            answer = await self._open().request(
                request.method, str(request.url), data=content or None, headers=headers
            )
        except aiohttp.ClientConnectionError as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        return httpx2.Response(
            answer.status, headers=list(answer.raw_headers), stream=_Body(answer, request)
        )

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._session


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._answer.content.iter_any():
                yield data
        except aiohttp.ClientError as error:
            raise httpx2.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        # Keeps the connection where the answer was read to its end, and drops it otherwise.
        self._answer.release() if self._answer.content.at_eof() else self._answer.close()
