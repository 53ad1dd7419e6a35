"""Public recordings as workflows of several LLMs: whose call goes to which LLM is decided here.

No public recording of a workflow names several LLMs and times all its calls, so roles are mapped to
LLMs of three sizes. Sources: OpenBMB/ChatDev's logs; callanjfox/kv-cache-tester's coding sessions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from scepsy.model.execution import Call, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Role
from scepsy.traces.files import import_file
from scepsy.traces.store import SqliteTraceStore

PLANNER, CODER, SUMMARISER = Role("planner"), Role("coder"), Role("summariser")
CHATDEV_LLMS: Mapping[str, str] = {"Programmer": "qwen3-32b", "Code Reviewer": "qwen3-8b"}
CHATDEV_REST = "gpt-oss-20b"
CODING_LLMS: Mapping[Role, str] = {
    PLANNER: "qwen3-32b",
    CODER: "qwen3-30b-a3b",
    SUMMARISER: "qwen3-8b",
}
MAX_PAUSE_S = 60.0
"""A longer pause in a coding session is taken for a person's, and ends an execution."""
MAX_CALLS, MAX_PROMPT_TOKENS = 40, 60_000


def read_public(data: Path, name: str) -> tuple[Execution, ...]:
    """The recorded sessions of one folder of the data, by start.

    Raises:
        InputError: they cannot be read.
    """
    with TemporaryDirectory() as folder, SqliteTraceStore.open(Path(folder) / "t.db") as store:
        import_file(store, data / name / "sessions.jsonl.gz")
        return tuple(store.executions())


def chatdev(data: Path) -> tuple[Execution, ...]:
    """Runs of ChatDev: its programmer, its reviewer and all others have an LLM each."""
    return tuple(
        replace(run, calls=tuple(replace(c, llm=_chatdev_llm(c.role)) for c in run.calls))
        for run in read_public(data, "chatdev")
    )


def _chatdev_llm(role: Role) -> LlmName:
    return LlmName(CHATDEV_LLMS.get(role, CHATDEV_REST))


def coding(data: Path, llms: Mapping[Role, str] = CODING_LLMS) -> tuple[Execution, ...]:
    """Stretches of coding sessions of 3 to 40 calls, with a planner, a coder and a summariser.

    The first call of a stretch answers a person's request: it plans. The last one tells the person
    what was done: it summarises. Those between use tools: they code.
    """
    found = [part for session in read_public(data, "claude_code") for part in stretches(session)]
    return tuple(
        with_coding_roles(part, llms)
        for part in found
        if 3 <= len(part.calls) <= MAX_CALLS
        and max(call.prompt_tokens for call in part.calls) <= MAX_PROMPT_TOKENS
    )


def with_coding_roles(stretch: Execution, llms: Mapping[Role, str] = CODING_LLMS) -> Execution:
    """The first call is the planner's, the last to end the summariser's, the others the coder's."""
    last = max(range(1, len(stretch.calls)), key=lambda at: stretch.calls[at].end_s)
    roles = [PLANNER, *(CODER for _ in stretch.calls[1:])]
    roles[last] = SUMMARISER
    calls = (
        replace(call, role=role, llm=LlmName(llms[role]))
        for call, role in zip(stretch.calls, roles, strict=True)
    )
    return replace(stretch, calls=tuple(calls))


def stretches(session: Execution) -> Iterator[Execution]:
    """The parts of a session between pauses in which a person was waited for."""
    calls: list[Call] = []
    end_s = session.start_s
    for call in session.calls:
        if calls and call.start_s > end_s + MAX_PAUSE_S:
            yield _stretch(session, calls)
            calls = []
        calls.append(call)
        end_s = max(end_s, call.end_s)
    yield _stretch(session, calls)


def _stretch(session: Execution, calls: Sequence[Call]) -> Execution:
    name = ExecutionId(f"{session.id}@{calls[0].start_s:.0f}")
    return Execution(name, session.workflow, tuple(calls))
