"""Sends a call to a replica and its answer to the client, byte for byte, as it comes.

The place on the replica is held by ``async with`` around the whole sending, so it is given back
however that ends: answered, client gone before or during the stream, engine dead or not there.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from scepsy.gateway.answer import StreamWatch, parse_answer
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.identify import EXECUTION_HEADER
from scepsy.gateway.metrics import GatewayMetrics
from scepsy.gateway.openai import Refusal
from scepsy.gateway.pool import Failure, Pool, Replica
from scepsy.model.execution import CallStatus
from scepsy.policy.replicas import NoReplicaLeft

CONNECT_S = 5.0
_KEEPALIVE_S = 4.0
"""Idle connections to engines are dropped after this: vLLM and llama.cpp close theirs after 5 s."""
_PIECE_BYTES = 256 * 1024
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_FORWARDED = _HOP_BY_HOP | frozenset(
    {"host", "content-length", "content-encoding", "accept-encoding", "expect"}
)
_NOT_RETURNED = _HOP_BY_HOP | {"content-length"}
_OWN_HEADERS = "x-scepsy-"
ENGINE_SESSION_HEADER = "X-Session-ID"
"""By which engines learn what program a call belongs to: vLLM hands it to its scheduler."""
_SKIPPED = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
"""What aiohttp would add by itself."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as an engine gets it."""

    target: str
    """Path and query, percent-encoded."""
    headers: CIMultiDict[str] = field(repr=False)
    """They hold the client's key: never log them."""
    body: bytes = field(repr=False)


def outgoing_headers(headers: Mapping[str, str], session: str = "") -> CIMultiDict[str]:
    """The client's headers without those of its connection and our own.

    Answers must be readable, so no compression is asked for.

    Args:
        headers: the client's.
        session: the program's name, told to the engine unless the client tells one or it is empty.
    """
    kept = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (low := name.lower()) not in _NOT_FORWARDED and not low.startswith(_OWN_HEADERS)
    )
    kept["Accept-Encoding"] = "identity"
    if session:
        kept.setdefault(ENGINE_SESSION_HEADER, session)
    return kept


class _ClientLeft(Exception):  # noqa: N818 - an outcome, not a fault
    """The client's connection is gone."""


class Forwarder:
    """Sends calls to the replicas of a pool. Use as ``async with``."""

    def __init__(self, pool: Pool, metrics: GatewayMetrics, now_s: Callable[[], float]) -> None:
        """Take the replicas, and the clock (s) that first tokens are read on."""
        self._pool = pool
        self._metrics = metrics
        self._now_s = now_s
        self._pooled: aiohttp.ClientSession
        self._fresh: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._pooled = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S))
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pooled.close()
        await self._fresh.close()

    async def forward(
        self, client: web.BaseRequest, outgoing: Outgoing, exchange: Exchange
    ) -> web.StreamResponse:
        """Serve a call by one replica, or by another if the first gives nothing.

        Raises:
            Refusal: no replica gave an answer, and the client has got nothing yet.
        """
        failed: list[Failure] = []
        while True:
            try:
                return await self._by_one(client, outgoing, exchange, failed)
            except NoReplicaLeft:
                raise _refusal(exchange, failed[-1]) from None
            except Failure as failure:
                failed.append(failure)
                if not await self._pool.failed(exchange, failure):
                    raise _refusal(exchange, failure) from None

    async def _by_one(
        self,
        client: web.BaseRequest,
        outgoing: Outgoing,
        exchange: Exchange,
        failed: Sequence[Failure],
    ) -> web.StreamResponse:
        without = {failure.replica.name for failure in failed}
        async with self._pool.place(exchange, without=without) as replica:
            if failed:
                self._metrics.retried("lost" if failed[-1].was_reached else "unreachable")
            exchange.sends += 1
            exchange.replica = replica.name
            try:
                upstream = await self._open(replica, outgoing)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise _no_answer(replica, error) from None
            try:
                if upstream.content_type == "text/event-stream":
                    return await self._stream(client, replica, upstream, exchange)
                return await self._whole(replica, upstream, exchange)
            finally:
                upstream.release()  # closes the connection unless the answer was read to its end

    async def _open(self, replica: Replica, outgoing: Outgoing) -> aiohttp.ClientResponse:
        """Send the request; once more if a connection that was kept alive turns out to be dead."""
        attempt = SimpleNamespace(was_reused=False)
        try:
            return await self._post(self._pooled, replica, outgoing, attempt)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if not attempt.was_reused:
                raise
        self._metrics.retried("stale")
        return await self._post(self._fresh, replica, outgoing, attempt)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        replica: Replica,
        outgoing: Outgoing,
        attempt: SimpleNamespace,
    ) -> aiohttp.ClientResponse:
        try:
            return await session.post(
                URL(replica.url + outgoing.target, encoded=True),
                data=_payload(outgoing.body),
                headers=outgoing.headers,
                allow_redirects=False,
                trace_request_ctx=attempt,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Failure(replica, _reason(error), was_reached=False) from None

    async def _whole(
        self, replica: Replica, upstream: aiohttp.ClientResponse, exchange: Exchange
    ) -> web.Response:
        try:
            body = await upstream.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(replica, error) from None
        exchange.begun()
        exchange.status = _status(upstream.status)
        exchange.answer = parse_answer(exchange.endpoint, body)
        if exchange.response is not None:
            exchange.response += body
        headers = _returned_headers(upstream.headers, exchange)
        return web.Response(status=upstream.status, body=body, headers=headers)

    async def _stream(
        self,
        client: web.BaseRequest,
        replica: Replica,
        upstream: aiohttp.ClientResponse,
        exchange: Exchange,
    ) -> web.StreamResponse:
        try:
            first = await upstream.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _no_answer(replica, error) from None
        at_s = self._now_s()
        exchange.begun()
        headers = _returned_headers(upstream.headers, exchange)
        response = web.StreamResponse(status=upstream.status, headers=headers)
        watch = StreamWatch()
        exchange.answer = watch.answer
        try:
            await response.prepare(client)
            await self._pass(first, at_s, response, exchange, watch)
            failure = await self._relay(upstream, response, exchange, watch)
            exchange.status = _stream_status(upstream.status, failure, watch)
            if failure is not None and not watch.is_complete:
                name = exchange.replica
                refusal = Refusal(502, f"replica `{name}` broke off: {failure}", code="broken_off")
                end = b"" if watch.is_between_events else b"\n\n"
                await _write(response, end + refusal.event())
            await response.write_eof()
        except (_ClientLeft, ConnectionResetError):
            exchange.status = CallStatus.CANCELLED
        finally:
            if exchange.status is CallStatus.CANCELLED and watch.is_complete:
                exchange.status = CallStatus.OK  # clients hang up at the last event
        return response

    async def _relay(
        self,
        upstream: aiohttp.ClientResponse,
        response: web.StreamResponse,
        exchange: Exchange,
        watch: StreamWatch,
    ) -> str | None:
        """Pass the stream on as it comes; give why it broke off, None if it did not."""
        try:
            async for chunk in upstream.content.iter_any():
                await self._pass(chunk, self._now_s(), response, exchange, watch)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return _reason(error)
        is_whole = watch.has_finished or watch.answer.is_error or upstream.status >= 400
        return None if is_whole else "the answer has no end"

    async def _pass(
        self,
        chunk: bytes,
        at_s: float,
        response: web.StreamResponse,
        exchange: Exchange,
        watch: StreamWatch,
    ) -> None:
        await _write(response, chunk)
        watch.feed(chunk, at_s)
        exchange.first_token(watch.first_token_s)
        if exchange.response is not None:
            exchange.response += chunk


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        await response.write(data)
    except (ConnectionResetError, aiohttp.ClientConnectionError):
        raise _ClientLeft from None


def _payload(body: bytes) -> bytes | io.BytesIO:
    """A large body is written in pieces, so that other calls get their turn."""
    return body if len(body) <= _PIECE_BYTES else io.BytesIO(body)


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_SKIPPED,
        trace_configs=[trace],
    )


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.was_reused = True


def _returned_headers(headers: CIMultiDictProxy[str], exchange: Exchange) -> CIMultiDict[str]:
    kept = CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _NOT_RETURNED
    )
    kept[EXECUTION_HEADER] = exchange.identity.execution
    return kept


def _status(http_status: int) -> CallStatus:
    if http_status >= 500:
        return CallStatus.ERROR
    return CallStatus.REJECTED if http_status >= 400 else CallStatus.OK


def _stream_status(http_status: int, failure: str | None, watch: StreamWatch) -> CallStatus:
    if watch.answer.is_error or (failure is not None and not watch.is_complete):
        return CallStatus.ERROR
    return _status(http_status)


def _no_answer(replica: Replica, error: Exception) -> Failure:
    timed_out = isinstance(error, TimeoutError)
    return Failure(replica, _reason(error), was_reached=True, timed_out=timed_out)


def _refusal(exchange: Exchange, failure: Failure) -> Refusal:
    if failure.was_reached:
        return Refusal(
            504 if failure.timed_out else 502,
            f"replica `{failure.replica.name}` gave no answer: {failure.reason}",
            code="no_answer",
        )
    return Refusal(
        503,
        f"no replica of `{exchange.llm}` can be reached ({failure})",
        code="unreachable",
    )


def _reason(error: Exception) -> str:
    """Why a connection failed, without the addresses that clients need not know."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or "no connection"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "it closed the connection"
    return type(error).__name__
