"""Coding-agent sessions as published in callanjfox/kv-cache-tester: one session a line.

A call's prompt is given as ids of 64-token blocks that are local to the session. Here they become
global: (hash of the session, local id). Tools and system prompt come first and sessions share
them, so two agents of one LLM whose tools (and system prompt) count the same tokens are taken to
share those blocks; the file cannot prove it.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice
from typing import Literal

from pydantic import BaseModel, Field

from scepsy.errors import InputError
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.traces.readers.source import LineFormat, LineParser, Naming

WORKFLOW = WorkflowName("claude-code")
MAIN = Role("main")
SUBAGENT = Role("subagent")

ASSUMED_OUTPUT_TOKENS_PER_S = 38.0
"""For the 8 % of calls without a recorded duration: the median of those that have one, in the
same sessions (out / api_time, prefill included). Such a call ends no later than the next starts."""

_LOCAL_BITS = 24
_GLOBAL_BITS = 63


class _Request(BaseModel):
    type: Literal["n", "s"]
    t: float = Field(ge=0)
    model: str = Field(min_length=1)
    prompt: int = Field(alias="in", ge=0)
    output: int = Field(alias="out", ge=0)
    api_time: float | None = Field(default=None, ge=0)
    ttft: float | None = Field(default=None, ge=0)
    nblk: int = Field(ge=0)
    lcp: int = Field(ge=0)
    new: list[tuple[int, int]]


class _Subagent(BaseModel):
    type: Literal["subagent"]
    t: float = Field(ge=0)
    tool_tokens: int = Field(ge=0)
    system_tokens: int = Field(ge=0)
    requests: list[_Request]


class _Session(BaseModel):
    id: str = Field(min_length=1)
    block_size: int = Field(gt=0)
    tool_tokens: int = Field(ge=0)
    system_tokens: int = Field(ge=0)
    requests: list[_Request | _Subagent]


def _parser(naming: Naming) -> LineParser:
    def parse(line: bytes) -> Sequence[Call]:
        session = _Session.model_validate_json(line)
        calls = list(_calls(session, naming))
        return sorted(calls, key=lambda call: call.start_s)

    return parse


FORMAT = LineFormat(
    name="claude-code",
    has_keys=frozenset({"id", "requests", "hash_id_scope"}),
    parser=_parser,
)


def _calls(session: _Session, naming: Naming) -> Iterator[Call]:
    main = [entry for entry in session.requests if isinstance(entry, _Request)]
    agents = [entry for entry in session.requests if isinstance(entry, _Subagent)]
    ids = _BlockIds(session)
    yield from _agent_calls(session, main, ids, naming=naming, role=MAIN, at_s=0.0)
    for number, agent in enumerate(agents, start=1):
        ids.share(agent.requests, agent.tool_tokens, agent.system_tokens)
        name = f"subagent-{number}/"
        yield from _agent_calls(
            session, agent.requests, ids, naming=naming, role=SUBAGENT, at_s=agent.t, prefix=name
        )


def _agent_calls(
    session: _Session,
    requests: Sequence[_Request],
    ids: "_BlockIds",
    *,
    naming: Naming,
    role: Role,
    at_s: float,
    prefix: str = "",
) -> Iterator[Call]:
    """Calls of one agent, in order; its instants count from ``at_s``."""
    blocks: tuple[int, ...] = ()
    workflow = naming.workflow or WORKFLOW
    for number, request in enumerate(requests):
        blocks = blocks[: request.lcp] + ids.expand(request)
        if len(blocks) != request.nblk:
            raise InputError(
                f"session {session.id}, {prefix}call {number}: has {len(blocks)} blocks, "
                f"says {request.nblk}"
            )
        next_s = requests[number + 1].t if number + 1 < len(requests) else None
        start_s = at_s + request.t
        yield Call(
            id=CallId(f"{workflow}/{session.id}/{prefix}{number}"),
            execution=ExecutionId(session.id),
            workflow=workflow,
            llm=naming.llm or LlmName(request.model),
            role=role,
            start_s=start_s,
            end_s=start_s + _duration_s(request, next_s),
            first_token_s=None if request.ttft is None else start_s + request.ttft,
            prompt_tokens=request.prompt,
            output_tokens=request.output,
            block_tokens=session.block_size,
            prefix_blocks=blocks,
        )


def _duration_s(request: _Request, next_s: float | None) -> float:
    if request.api_time is not None:
        return request.api_time
    assumed_s = request.output / ASSUMED_OUTPUT_TOKENS_PER_S
    return assumed_s if next_s is None else max(0.0, min(assumed_s, next_s - request.t))


class _BlockIds:
    """Global ids of a session's blocks."""

    def __init__(self, session: _Session) -> None:
        self._block_tokens = session.block_size
        self._base = _hash("session", session.id)
        self._shared: dict[int, int] = {}
        main = [entry for entry in session.requests if isinstance(entry, _Request)]
        self.share(main, session.tool_tokens, session.system_tokens)

    def share(self, requests: Sequence[_Request], tool_tokens: int, system_tokens: int) -> None:
        """Give the blocks that an agent starts with the ids that all such agents use."""
        if not requests:
            return
        first = requests[0]
        tools = _hash("tools", first.model, tool_tokens)
        system = _hash("system", first.model, tool_tokens, system_tokens)
        runs = (range(start, start + length) for start, length in first.new)
        shared = (tool_tokens + system_tokens) // self._block_tokens
        for position, local in enumerate(islice(chain.from_iterable(runs), shared)):
            in_tools = position < tool_tokens // self._block_tokens
            self._shared.setdefault(local, (tools if in_tools else system) + position)

    def expand(self, request: _Request) -> tuple[int, ...]:
        """Ids of the blocks that a request adds.

        Raises:
            InputError: a local id is out of range.
        """
        found: list[int] = []
        for start, length in request.new:
            if start < 0 or length < 0 or start + length > 1 << _LOCAL_BITS:
                raise InputError(f"block ids {start}+{length} are out of range")
            found.extend(self._shared.get(i, self._base + i) for i in range(start, start + length))
        return tuple(found)


def _hash(*parts: object) -> int:
    """A 63-bit id space with room for the local ids below it."""
    digest = blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    high_bits = _GLOBAL_BITS - _LOCAL_BITS
    return (int.from_bytes(digest, "big") >> (64 - high_bits)) << _LOCAL_BITS
