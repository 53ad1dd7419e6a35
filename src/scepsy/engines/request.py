"""What a request asks of an emulated engine, checked. Nothing here knows HTTP or time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from scepsy.engines.refusal import Refusal
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import prompt_bytes

MAX_CHOICES = 128

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A chat or text completion."""

    endpoint: Endpoint
    body: Body
    prompts: tuple[bytes, ...]
    """Canonical bytes; several only for a text completion that gives a list."""
    choices: int
    """Answers to each prompt."""
    max_tokens: int | None
    min_tokens: int
    stops: tuple[str, ...]
    stream: bool
    stream_usage: bool
    forced_tool: str | None
    """A tool that the answer must call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """An embedding or reranking request: prefill only."""

    endpoint: Endpoint
    body: Body
    prompt: bytes
    texts: tuple[str, ...]
    """What to embed, or the documents to rank."""
    query: str = ""
    dimensions: int | None = None
    is_base64: bool = False
    top_n: int | None = None


def parse_body(raw: bytes) -> Body:
    """A JSON object.

    Raises:
        Refusal: it is something else.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object", code="invalid_json")
    return body


def parse_generation(endpoint: Endpoint, body: Body) -> Generation:
    """Read a chat or text completion.

    Raises:
        Refusal: a field that matters here has a wrong type or value.
    """
    prompts: tuple[bytes, ...]
    if endpoint is Endpoint.CHAT:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _bad("messages", "must be a list of at least one message")
        if not all(isinstance(message, dict) for message in messages):
            raise _bad("messages", "must be a list of objects")
        prompts = (prompt_bytes(endpoint, body),)
    else:
        prompt = body.get("prompt")
        if not prompt or not isinstance(prompt, str | list):
            raise _bad("prompt", "must be a text or a list that is not empty")
        listed = isinstance(prompt, list) and not isinstance(prompt[0], int)
        prompts = tuple(
            prompt_bytes(endpoint, {"prompt": one}) for one in (prompt if listed else [prompt])
        )
    limit = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
    max_tokens = _whole(body, limit, low=1)
    ignores_end = body.get("ignore_eos") is True and max_tokens is not None
    stop = body.get("stop") or ()
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(one, str) and one for one in stops):
        raise _bad("stop", "must be a text or a list of texts")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _bad("stream_options", "must be an object")
    return Generation(
        endpoint=endpoint,
        body=body,
        prompts=prompts,
        choices=_whole(body, "n", low=1, high=MAX_CHOICES) or 1,
        max_tokens=max_tokens,
        min_tokens=(max_tokens or 1) if ignores_end else _whole(body, "min_tokens", low=0) or 0,
        stops=tuple(stops),
        stream=body.get("stream") is True,
        stream_usage=options.get("include_usage") is True,
        forced_tool=_forced_tool(body),
    )


def parse_pooling(endpoint: Endpoint, body: Body) -> Pooling:
    """Read an embedding or reranking request.

    Raises:
        Refusal: a field that matters here has a wrong type or value.
    """
    if endpoint is Endpoint.EMBEDDING:
        given = body.get("input")
        if not given or not isinstance(given, str | list):
            raise _bad("input", "must be a text or a list that is not empty")
        encoding = body.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise _bad("encoding_format", "must be float or base64")
        return Pooling(
            endpoint=endpoint,
            body=body,
            prompt=prompt_bytes(endpoint, body),
            texts=_texts(given),
            dimensions=_whole(body, "dimensions", low=1, high=65536),
            is_base64=encoding == "base64",
        )
    if "query" not in body:  # the score API's words for the same
        body = {**body, "query": body.get("text_1"), "documents": body.get("text_2")}
    query, documents = body["query"], body.get("documents")
    documents = [documents] if isinstance(documents, str) else documents
    if not isinstance(query, str):
        raise _bad("query", "must be a text")
    if not isinstance(documents, list) or not documents:
        raise _bad("documents", "must be a list of at least one text")
    return Pooling(
        endpoint=endpoint,
        body=body,
        prompt=prompt_bytes(endpoint, body),
        texts=_texts(documents),
        query=query,
        top_n=_whole(body, "top_n", low=0),
    )


def _texts(given: str | list[object]) -> tuple[str, ...]:
    """Texts; token ids stand for themselves, objects for their ``text``."""
    if isinstance(given, str):
        return (given,)
    if isinstance(given[0], int):
        return (orjson.dumps(given).decode(),)
    texts = (one.get("text", one) if isinstance(one, dict) else one for one in given)
    return tuple(one if isinstance(one, str) else orjson.dumps(one).decode() for one in texts)


def _forced_tool(body: Body) -> str | None:
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise _bad("tool_choice", "must name a function")
        return name
    if choice != "required":
        return None
    try:
        return str(body["tools"][0]["function"]["name"])
    except (LookupError, TypeError):
        raise _bad("tools", "must hold a function, as tool_choice is `required`") from None


def _whole(body: Body, name: str, *, low: int, high: int = 2**31) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(name, f"must be a whole number in [{low}, {high}]")
    return value


def _bad(name: str, must: str) -> Refusal:
    return Refusal(400, f"`{name}` {must}", code="invalid_value", param=name)
