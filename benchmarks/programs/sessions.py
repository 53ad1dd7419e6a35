"""Recorded sessions as executions that can be run again, in two halves.

``coding``: callanjfox/kv-cache-tester, exact block ids. An execution is a stretch of a session
without a pause of over five minutes, in which a person is taken to have been waited for.
``swe``: eunomia-bpf/agentcgroup, with every tool timed but no block ids: a prompt is taken to
extend the one before it of the same agent, unless it is shorter. ``chat``: kvcache-ai/Mooncake,
exact block ids but no sessions: a call is taken to continue the last one whose whole prompt it
begins with, and with it its conversation.

Calls that outgrow the LLM's context are left out, and end their execution. The first half of the
sessions is for choosing parameters, the second for reporting.
"""

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.program import NO_TOOL, ToolName
from scepsy.profiles.workload import segment
from scepsy.sim.script import Script
from scepsy.traces.readers import claude_code
from scepsy.traces.readers.source import Naming

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
LLM = LlmName("llama-3.1-70b")
CONTEXT_TOKENS = 131_072
PAUSE_S = 300.0
"""Who is away for longer begins another execution."""
A_TOOL = ToolName("tool")
"""Whichever: coding sessions do not name them."""
BLOCK_TOKENS = 256
"""In sessions; four recorded blocks are joined to save time."""
CHAT_BLOCK_TOKENS = 512
"""As recorded."""
CHAT_OUTPUT_TOKENS_PER_S = 38.0
"""Mooncake's calls have no recorded duration: at the rate taken where coding sessions lack one."""
LEAST_SHARED_BLOCKS = 2
"""Of a chat prompt that continues another one, beyond what all conversations share."""
SPLIT_SEED = 0
HALVES = ("tuning", "reporting")


Sessions = list[list[list[Call]]]
"""Of each session the executions, of each of those the calls."""
Tools = Mapping[CallId, ToolName]
"""What a call's answer asks for, where that is recorded."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Executions of one kind."""

    name: str
    block_tokens: int
    scripts: tuple[Script, ...]


def _id(*parts: object) -> int:
    digest = blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _agent(call: Call) -> str:
    return call.id.rpartition("/")[0]


def _coding() -> tuple[Sessions, Tools]:
    parse = claude_code.FORMAT.parser(Naming())
    found: Sessions = []
    tools: dict[CallId, ToolName] = {}
    with gzip.open(DATA / "claude_code" / "sessions.jsonl.gz") as lines:
        for line in lines:
            session = json.loads(line)
            calls = [_coarse(call) for call in parse(line)]
            found.append([with_outputs(part) for part in _stretches(calls)])
            for name, request in _requests(session):
                if request["stop"] == "tool_use":
                    tools[CallId(f"{claude_code.WORKFLOW}/{session['id']}/{name}")] = A_TOOL
    return found, tools


def _requests(session: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each with the end of its call's id."""
    main = [entry for entry in session["requests"] if entry["type"] != "subagent"]
    yield from ((str(at), request) for at, request in enumerate(main))
    agents = [entry for entry in session["requests"] if entry["type"] == "subagent"]
    for number, agent in enumerate(agents, start=1):
        for at, request in enumerate(agent["requests"]):
            yield f"subagent-{number}/{at}", request


def _coarse(call: Call) -> Call:
    joined = BLOCK_TOKENS // call.block_tokens
    whole = call.prompt_tokens // call.block_tokens
    chain = call.prefix_blocks[joined - 1 : whole : joined]
    return replace(
        call,
        workflow=WorkflowName("coding"),
        llm=LLM,
        block_tokens=BLOCK_TOKENS,
        prefix_blocks=chain,
        output_tokens=max(1, call.output_tokens),
    )


def _stretches(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """Between pauses of all agents of a session, and between calls that are too long."""
    part: list[Call] = []
    end_s = 0.0
    for call in calls:
        is_long = call.prompt_tokens + call.output_tokens > CONTEXT_TOKENS
        if part and (is_long or call.start_s > end_s + PAUSE_S):
            yield part
            part = []
        if not is_long:
            part.append(call)
        end_s = max(end_s, call.end_s)
    if part:
        yield part


def with_outputs(calls: Sequence[Call]) -> list[Call]:
    """Where an agent's next prompt begins with a call's prompt, what follows is its answer."""
    following: dict[int, Call] = {}
    last: dict[str, int] = {}
    for at, call in enumerate(calls):
        if (before := last.get(_agent(call))) is not None:
            following[before] = call
        last[_agent(call)] = at
    found = []
    for at, call in enumerate(calls):
        own, after = call.prefix_blocks, following.get(at)
        if after is not None and after.prefix_blocks[: len(own)] == own:
            filled = (call.prompt_tokens + call.output_tokens) // call.block_tokens
            call = replace(call, output_blocks=after.prefix_blocks[len(own) : filled])  # noqa: PLW2901
        found.append(call)
    return found


def _swe() -> tuple[Sessions, Tools]:
    with gzip.open(DATA / "agentcgroup" / "sessions.jsonl.gz") as lines:
        recorded = [json.loads(line) for line in lines]
    shared = _shared_tokens(recorded)
    found: Sessions = []
    tools: dict[CallId, ToolName] = {}
    for session in recorded:
        calls = []
        for call, step in _swe_calls(session, shared):
            calls.append(call)
            names = sorted({tool["name"] for tool in step["tools"]})
            if names:
                tools[call.id] = ToolName("+".join(names))
        found.append([with_outputs(part) for part in _stretches(calls) if len(part) > 1])
    return [session for session in found if session], tools


def _swe_tokens(step: Mapping[str, Any]) -> int:
    return int(step["in"] + (step["cache_read"] or 0) + (step["cache_new"] or 0))


def _kind(session: Mapping[str, Any], step: Mapping[str, Any]) -> tuple[str, str, bool]:
    return session["group"], step["model"], step["side"]


def _first_steps(session: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of each agent that begins with the session."""
    seen = set()
    for step in session["steps"]:
        if step["side"] not in seen:
            seen.add(step["side"])
            yield step


def _shared_tokens(recorded: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str, bool], int]:
    """What sessions of a kind begin with: what a provider had cached, or the shortest prompt."""
    read: dict[tuple[str, str, bool], list[int]] = defaultdict(list)
    least: dict[tuple[str, str, bool], int] = {}
    for session in recorded:
        for step in _first_steps(session):
            kind = _kind(session, step)
            read[kind].append(step["cache_read"] or 0)
            least[kind] = min(least.get(kind, CONTEXT_TOKENS), _swe_tokens(step))
    return {
        kind: min((tokens for tokens in read[kind] if tokens), default=least[kind]) for kind in read
    }


def _swe_calls(
    session: Mapping[str, Any], shared: Mapping[tuple[str, str, bool], int]
) -> Iterator[tuple[Call, Mapping[str, Any]]]:
    name = session["session"]
    began: Counter[bool] = Counter()
    before: dict[bool, int] = {}
    for at, step in enumerate(sorted(session["steps"], key=lambda step: step["t_req"])):
        side, tokens = step["side"], max(1, _swe_tokens(step))
        if tokens < before.get(side, 0):
            began[side] += 1  # another sub-agent, or one that forgot
        before[side] = tokens
        common = shared.get(_kind(session, step), 0) // BLOCK_TOKENS
        call = Call(
            id=CallId(f"{name}/{side}-{began[side]}/{at}"),
            execution=ExecutionId(name),
            workflow=WorkflowName("swe"),
            llm=LLM,
            role=Role("subagent" if side else "main"),
            start_s=step["t_req"],
            end_s=max(step["t_end"], step["t_req"]),
            prompt_tokens=tokens,
            output_tokens=max(1, step["out_chars"] // 4),
            block_tokens=BLOCK_TOKENS,
            prefix_blocks=tuple(
                _id(*_kind(session, step), block)
                if block < common
                else _id(name, side, began[side], block)
                for block in range(tokens // BLOCK_TOKENS)
            ),
        )
        yield call, step


def _chat() -> tuple[Sessions, Tools]:
    """Conversations, by the blocks that their calls begin with."""
    last: dict[int, int] = {}  # the last block of each conversation's last prompt
    conversations: list[list[Call]] = []
    with (DATA / "mooncake" / "conversation_trace.jsonl").open() as lines:
        for at, line in enumerate(lines):
            recorded = json.loads(line)
            tokens, blocks = recorded["input_length"], recorded["hash_ids"]
            chain = tuple(blocks[: tokens // CHAT_BLOCK_TOKENS])
            if tokens + recorded["output_length"] > CONTEXT_TOKENS:
                continue
            found = None
            for block in reversed(chain[LEAST_SHARED_BLOCKS:]):
                if (found := last.pop(block, None)) is not None:
                    break
            if found is None:
                found = len(conversations)
                conversations.append([])
            if len(chain) > LEAST_SHARED_BLOCKS:
                last[chain[-1]] = found
            conversations[found].append(_chat_call(at, found, recorded, chain))
    return [[with_outputs(_one_by_one(calls))] for calls in conversations], {}


def _chat_call(
    at: int, conversation: int, recorded: Mapping[str, Any], chain: tuple[int, ...]
) -> Call:
    start_s = recorded["timestamp"] / 1e3
    output_tokens = max(1, recorded["output_length"])
    return Call(
        id=CallId(f"chat-{conversation}/{at}"),
        execution=ExecutionId(f"chat-{conversation}"),
        workflow=WorkflowName("chat"),
        llm=LLM,
        role=Role("assistant"),
        start_s=start_s,
        end_s=start_s + output_tokens / CHAT_OUTPUT_TOKENS_PER_S,
        prompt_tokens=max(1, recorded["input_length"]),
        output_tokens=output_tokens,
        block_tokens=CHAT_BLOCK_TOKENS,
        prefix_blocks=chain,
    )


def _one_by_one(calls: Sequence[Call]) -> list[Call]:
    """No call of a conversation before the one before it has ended."""
    found = [
        replace(call, end_s=max(call.start_s, min(call.end_s, after.start_s)))
        for call, after in pairwise(calls)
    ]
    return [*found, calls[-1]]


READERS: Mapping[str, tuple[Callable[[], tuple[Sessions, Tools]], int]] = {
    "coding": (_coding, BLOCK_TOKENS),
    "swe": (_swe, BLOCK_TOKENS),
    "chat": (_chat, CHAT_BLOCK_TOKENS),
}


@cache
def workload(name: str, half: str) -> Workload:
    """The executions of one half of the sessions."""
    read, block_tokens = READERS[name]
    sessions, tools = read()
    seen = _sessions_of_blocks(sessions)
    Random(SPLIT_SEED).shuffle(sessions)
    middle = len(sessions) // 2
    chosen = sessions[:middle] if HALVES.index(half) == 0 else sessions[middle:]
    scripts = tuple(
        Script(
            segment(calls, seen),
            tuple(_stage(call) for call in calls),
            0.0,
            tools=tuple(tools.get(call.id, NO_TOOL) for call in calls),
        )
        for session in chosen
        for calls in session
    )
    return Workload(name, block_tokens, scripts)


def _stage(call: Call) -> Stage:
    return Stage(call.workflow, call.llm, call.role)


def _sessions_of_blocks(sessions: Iterable[Iterable[Sequence[Call]]]) -> Counter[int]:
    """In how many sessions each block was seen: what those have in common is shared by copies."""
    seen: Counter[int] = Counter()
    for session in sessions:
        calls = [call for part in session for call in part]
        seen.update({block for c in calls for block in (*c.prefix_blocks, *c.output_blocks)})
    return seen
