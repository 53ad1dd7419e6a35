"""Which execution of which workflow does a call belong to?

A ladder: the first rung that says something decides, and the decision names its rung.

1. ``PATH``     the base URL ends in ``/w/<workflow>/<execution>[/<role>]/v1``
2. ``HEADER``   ``x-scepsy-execution``
3. ``CLIENT``   the session header of a client that has one
4. ``BAGGAGE``  W3C baggage: the conversation's id
5. ``TRACE``    a trace id or correlation id that an earlier call had too
6. ``BODY``     a session, conversation or cache key in the body
7. ``PREFIX``   a chat that continues an earlier chat, the answer to it included
8. ``NEW``      nothing: the call starts an execution of its own

Trace ids are weak: most instrumentations give each call one of its own, so the first call that
has one is placed by the rungs below, and only later ones by it.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Generic, TypeVar
from urllib.parse import unquote

from scepsy.gateway.openai import ParsedRequest, Target
from scepsy.model.execution import Endpoint, ExecutionId
from scepsy.model.prompt import answer_text
from scepsy.model.workflow import Role, WorkflowName

DEFAULT_WORKFLOW = WorkflowName("default")
WORKFLOW_HEADER, EXECUTION_HEADER = "x-scepsy-workflow", "x-scepsy-execution"
ROLE_HEADER = "x-scepsy-role"
MAX_NAME_CHARACTERS = 128

CLIENT_HEADERS: Sequence[tuple[str, str]] = (
    ("x-claude-code-session-id", ""),
    ("x-dynamo-session-id", "x-dynamo-parent-session-id"),
    ("session-id", ""),  # Codex
    ("session_id", ""),  # Codex, earlier
    ("x-session-id", "x-parent-session-id"),  # OpenCode, vLLM's router
    ("x-grok-conv-id", ""),
    ("x-smg-routing-key", ""),
)
"""Known clients' header for a session, and for the session that started it where there is one."""
_BAGGAGE_EXECUTION = ("scepsy.execution", "gen_ai.conversation.id", "session.id")
_BAGGAGE_WORKFLOW = ("scepsy.workflow", "gen_ai.workflow.name")
_BAGGAGE_ROLE = ("scepsy.role", "gen_ai.agent.name")
BODY_PATHS: Sequence[tuple[str, ...]] = (
    ("vllm_xargs", "agentic_context", "root_program_id"),
    ("vllm_xargs", "agentic_context", "program_id"),
    ("nvext", "agent_context", "session_id"),
    ("session_params", "session_id"),
    ("conversation",),
    ("conversation", "id"),
    ("metadata", "session_id"),
    ("previous_response_id",),
    ("prompt_cache_key",),
    ("user",),
)
_REMEMBERED = 65_536
"""Trace ids, sessions, responses and conversations remembered, each; the least recently used go."""
_MAX_TWINS = 64
"""Executions remembered for one and the same chat."""
_MAX_LINKED_MESSAGES = 1024
"""Longer chats are not linked by their prefix."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@+-]+")


class Rung(StrEnum):
    """What told which execution a call belongs to."""

    PATH = "path"
    HEADER = "header"
    CLIENT = "client"
    BAGGAGE = "baggage"
    TRACE = "trace"
    BODY = "body"
    PREFIX = "prefix"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a call belongs, and what told it."""

    workflow: WorkflowName
    execution: ExecutionId
    role: Role
    rung: Rung
    chain: bytes = b""
    """Hash of the chat so far, by which its continuation is found; empty where none is needed."""

    @property
    def session(self) -> str:
        """The program, ``<workflow>/<role>/<execution>``; empty where nothing ties a call to it."""
        if self.rung is Rung.NEW and not self.chain:
            return ""
        return "/".join(filter(None, (self.workflow, self.role, self.execution)))


def clean_name(text: str) -> str:
    """A name fit for labels, files and URLs; a long one keeps its start and a hash of the whole."""
    name = _NOT_IN_NAMES.sub("_", text.strip())
    if len(name) <= MAX_NAME_CHARACTERS:
        return name
    digest = blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME_CHARACTERS - 17]}-{digest}"


class Identifier:
    """Places calls. Remembers earlier ones, within bounds."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        """Take what gives a fresh execution id."""
        self._new_id = new_id
        self._traces: _Recent[str, ExecutionId] = _Recent()
        self._sessions: _Recent[str, ExecutionId] = _Recent()
        self._responses: _Recent[str, ExecutionId] = _Recent()
        self._chats: _Recent[bytes, tuple[ExecutionId, ...]] = _Recent()

    def identify(
        self, target: Target, headers: Mapping[str, str], request: ParsedRequest
    ) -> Identity:
        """Place a call by the first rung that says something."""
        baggage = parse_baggage(headers.get("baggage", ""))
        workflow = WorkflowName(
            clean_name(target.workflow)
            or clean_name(headers.get(WORKFLOW_HEADER, ""))
            or clean_name(_first(baggage, _BAGGAGE_WORKFLOW))
            or DEFAULT_WORKFLOW
        )
        role = Role(
            clean_name(target.role)
            or clean_name(headers.get(ROLE_HEADER, ""))
            or clean_name(_first(baggage, _BAGGAGE_ROLE))
            or clean_name(_text_at(request.body, ("vllm_xargs", "agentic_context", "agent_role")))
        )
        if said := self._said(target, headers, baggage):
            return Identity(workflow, said[0], role, said[1])
        execution, rung, chain = self._inferred(workflow, headers, request)
        return Identity(workflow, execution, role, rung, chain)

    def answered(
        self,
        identity: Identity,
        answers: Iterable[Mapping[str, object]],
        response: str | None = None,
    ) -> None:
        """Remember a call's answers, so that calls that build on one are placed with it."""
        if response is not None:
            self._responses.put(response, identity.execution)
        if not identity.chain:
            return
        for answer in answers:
            chat = _link(identity.chain, answer)
            known = self._chats.get(chat) or ()
            if identity.execution not in known:
                self._chats.put(chat, (*known, identity.execution)[-_MAX_TWINS:])

    def _said(
        self, target: Target, headers: Mapping[str, str], baggage: Mapping[str, str]
    ) -> tuple[ExecutionId, Rung] | None:
        if name := clean_name(target.execution):
            return ExecutionId(name), Rung.PATH
        if name := clean_name(headers.get(EXECUTION_HEADER, "")):
            return ExecutionId(name), Rung.HEADER
        for header, parent_header in CLIENT_HEADERS:
            if name := clean_name(headers.get(header, "")):
                return self._session(name, clean_name(headers.get(parent_header, ""))), Rung.CLIENT
        if name := clean_name(_first(baggage, _BAGGAGE_EXECUTION)):
            return ExecutionId(name), Rung.BAGGAGE
        return None

    def _session(self, session: str, parent: str) -> ExecutionId:
        """A session's execution is that of the session which started it."""
        if parent:
            self._sessions.put(session, self._sessions.get(parent) or ExecutionId(parent))
        return self._sessions.get(session) or ExecutionId(session)

    def _inferred(
        self, workflow: WorkflowName, headers: Mapping[str, str], request: ParsedRequest
    ) -> tuple[ExecutionId, Rung, bytes]:
        trace = _trace_id(headers)
        chain, chat = b"", b""
        if request.endpoint is Endpoint.CHAT:
            chain, chat = self._continued(workflow, request.body.get("messages"))
        rung = Rung.NEW
        execution = self._traces.get(trace) if trace else None
        if execution is not None:
            rung = Rung.TRACE
        elif execution := self._in_body(request.body):
            rung, chain = Rung.BODY, b""
        elif chat:
            execution, rung = self._next_of(chat), Rung.PREFIX
        else:
            execution = ExecutionId(clean_name(trace) or self._new_id())
        if trace:
            self._traces.put(trace, execution)
        return execution, rung, chain

    def _in_body(self, body: Mapping[str, object]) -> ExecutionId | None:
        for path in BODY_PATHS:
            if name := _text_at(body, path):
                known = self._responses.get(name) if path == ("previous_response_id",) else None
                return known or ExecutionId(clean_name(name))
        return None

    def _continued(self, workflow: WorkflowName, messages: object) -> tuple[bytes, bytes]:
        """The hash of a chat, and that of its longest part that is known; empty where none is."""
        chain, known = _seed(workflow), b""
        if not isinstance(messages, list) or len(messages) > _MAX_LINKED_MESSAGES:
            return b"", b""
        for message in messages:
            chain = _link(chain, message)
            if isinstance(message, dict) and message.get("role") == "assistant":
                known = chain if self._chats.get(chain) else known
        return chain, known

    def _next_of(self, chat: bytes) -> ExecutionId:
        """An execution that had this very chat: equal twins take turns, the last one stays."""
        executions = self._chats.get(chat)
        assert executions
        if len(executions) > 1:
            self._chats.put(chat, executions[1:])
        return executions[0]


def parse_baggage(header: str) -> Mapping[str, str]:
    """Entries of a W3C ``baggage`` header; malformed ones are left out."""
    entries = (item.partition(";")[0].partition("=") for item in header.split(",")[:64] if item)
    return {key.strip(): unquote(value.strip()) for key, equals, value in entries if equals and key}


def _seed(workflow: WorkflowName) -> bytes:
    return blake2b(workflow.encode(), digest_size=16).digest()


def _link(chain: bytes, message: object) -> bytes:
    """Extend a chat's hash; white space at the ends of a message does not count."""
    if isinstance(message, dict):
        text = f"{message.get('role')}\n{answer_text(message).strip()}"
    else:
        text = repr(message)
    return blake2b(chain + text.encode(), digest_size=16).digest()


def _trace_id(headers: Mapping[str, str]) -> str:
    if match := _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip()):
        return match[1]
    return headers.get("x-correlation-id", "").strip()[:512]


def _first(found: Mapping[str, str], names: Sequence[str]) -> str:
    return next((found[name] for name in names if found.get(name)), "")


def _text_at(body: Mapping[str, object], path: Sequence[str]) -> str:
    value: object = body
    for key in path:
        if not isinstance(value, dict):
            return ""
        value = value.get(key)
    return value if isinstance(value, str) else ""


K = TypeVar("K")
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """The most recently used entries."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)
