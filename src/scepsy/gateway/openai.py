"""The dialect: which paths are LLM calls, what a request must have, how an error looks.

Only what the gateway needs is read from a body; the rest goes to the engine as it came.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

import orjson

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import prompt_bytes
from scepsy.model.workflow import LlmName

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": Endpoint.CHAT,
    "/v1/completions": Endpoint.COMPLETION,
    "/v1/embeddings": Endpoint.EMBEDDING,
    "/v1/rerank": Endpoint.RERANK,
    "/v2/rerank": Endpoint.RERANK,
    "/rerank": Endpoint.RERANK,
    "/v1/score": Endpoint.RERANK,
    "/score": Endpoint.RERANK,
    "/v1/responses": Endpoint.OTHER,
    "/v1/messages": Endpoint.OTHER,
}
"""Paths of LLM calls; all are POST."""


class Target(NamedTuple):
    """What a request's path asks for, and the identity it may carry (empty where it does not)."""

    path: str
    """The path that the engine gets, still percent-encoded."""
    workflow: str = ""
    execution: str = ""
    role: str = ""


def parse_target(path: str) -> Target:
    """Take ``/w/<workflow>/<execution>[/<role>]`` off a percent-encoded path."""
    if not path.startswith("/w/"):
        return Target(path)
    _, _, workflow, *rest = path.split("/", maxsplit=3)
    execution, _, api = (rest[0] if rest else "").partition("/")
    role = ""
    if not _is_api("/" + api):
        role, _, api = api.partition("/")
    return Target(f"/{api}", unquote(workflow), unquote(execution), unquote(role))


def _is_api(path: str) -> bool:
    return path in ENDPOINTS or path.startswith("/v1/")


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request's body as far as it had to be read."""

    endpoint: Endpoint
    llm: LlmName
    body: Mapping[str, object]

    def prompt(self) -> bytes:
        """The prompt's canonical bytes."""
        body = self.body
        if self.endpoint is Endpoint.RERANK and "query" not in body:  # the score API's words
            body = {"query": body.get("text_1"), "documents": body.get("text_2")}
        return prompt_bytes(self.endpoint, body)


def parse_request(endpoint: Endpoint, body: bytes) -> ParsedRequest:
    """Read what routing and recording need.

    Raises:
        Refusal: not a JSON object, or no ``model``.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(parsed, dict):
        raise Refusal(400, "the body must be a JSON object", code="invalid_json")
    llm = parsed.get("model")
    if not isinstance(llm, str) or not llm:
        raise Refusal(400, "the body must name a `model`", code="missing_model", param="model")
    return ParsedRequest(endpoint, LlmName(llm), parsed)


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """An answer that the gateway gives itself, as an HTTP status and OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_s = retry_s
        """After which it may be tried again (real s); None says nothing of that."""

    def body(self) -> bytes:
        """The JSON that OpenAI's clients read the message from."""
        return orjson.dumps({"error": self._fields()})

    def event(self) -> bytes:
        """The same as a server-sent event, for a stream that cannot go on.

        It is named ``error`` and has the fields of the other dialects too (``type``, ``message``),
        which the Responses and Messages APIs look for.
        """
        event = {"type": "error", "message": self.message, "error": self._fields()}
        return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"

    def _fields(self) -> dict[str, object]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


def unknown_llm(name: str, known: Iterable[str]) -> Refusal:
    """Say that no replica serves that LLM, and which ones there are."""
    known = sorted(known)
    close = UnknownNameError("model", name[:200], known).hint or ""
    listed = f"known: {', '.join(known)}"
    message = f"the model `{name[:200]}` is not served here; " + (
        close if close == listed else f"{close} ({listed})"
    )
    return Refusal(404, message, code="model_not_found", param="model")


def models_body(llms: Iterable[LlmName]) -> bytes:
    """The list of models: one entry an LLM."""
    return orjson.dumps({"object": "list", "data": [model_entry(llm) for llm in sorted(llms)]})


def model_entry(llm: LlmName) -> dict[str, object]:
    """One LLM as OpenAI's model object."""
    return {"id": llm, "object": "model", "created": 0, "owned_by": "scepsy"}


def parse_replica_url(url: str) -> str:
    """A replica's base URL without the trailing ``/v1`` that clients' base URLs have.

    Raises:
        InputError: not an http URL, or one that carries a password, which logs would show.
    """
    scheme, _, rest = url.partition("://")
    host = rest.split("/", maxsplit=1)[0]
    if scheme not in ("http", "https") or not host:
        raise InputError(f"`{url}` is not an http URL", hint="write it like http://127.0.0.1:8000")
    if "@" in host:
        raise InputError(
            f"the replica URL at {host.rpartition('@')[2]} carries a password",
            hint="let clients send the key as an Authorization header, which is passed on",
        )
    return url.rstrip("/").removesuffix("/v1")
