"""The executions that are compared with: of the examples, and of two public sets.

The examples' are recorded here on emulated engines. The public sets (OpenBMB/ChatDev's logs and
callanjfox/kv-cache-tester's coding sessions) need SCEPSY_DATA, the folder that they are in. No
public recording of a workflow with several LLMs and full timing was found, so which LLM serves
which role is chosen here.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.recorded.scenario import Groups, Scenario
from examples.demo.record import record
from examples.demo.settings import DemoSettings
from scepsy.model.execution import Call, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.traces.files import import_file
from scepsy.traces.store import SqliteTraceStore

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
RECORDED = 40
"""Executions of each example workflow."""
MAX_RUN_S = 3600.0
MAX_PAUSE_S = 60.0
MAX_STRETCHES = 60
MAX_SUMMARY_TOKENS = 150

EXAMPLE_RATES: Mapping[str, Mapping[str, float]] = {
    "beam_search": {"beam_search": 1.0},
    "rag": {"rag_rerank": 1.0},
    "both": {"beam_search": 0.5, "rag_rerank": 1.0},
}
EXAMPLE_GROUPS: Groups = (
    ("qwen3-32b", "h100", 2, 1.0, 1),
    ("qwen3-8b", "h100", 1, 0.4, 1),
    ("qwen3-embedding-0.6b", "h100", 1, 0.2, 1),
)
CHATDEV_GROUPS: Groups = (
    ("gpt-oss-20b", "h100", 1, 0.5, 1),
    ("qwen3-32b", "h100", 1, 1.0, 1),
    ("qwen3-8b", "h100", 1, 0.4, 1),
)
CHATDEV_LLMS = {"Programmer": "qwen3-32b", "Code Reviewer": "qwen3-8b"}
CODING_GROUPS: Groups = (
    ("llama-3.1-70b", "h200", 4, 1.0, 1),
    ("qwen3-30b-a3b", "h200", 2, 1.0, 1),
    ("qwen3-8b", "h200", 1, 1.0, 1),
)
CODING_LLMS = {"planner": "llama-3.1-70b", "coder": "qwen3-30b-a3b", "summariser": "qwen3-8b"}


def examples() -> Mapping[WorkflowName, Sequence[Execution]]:
    with TemporaryDirectory() as folder:
        settings = DemoSettings(out=Path(folder), recorded_executions=RECORDED)
        asyncio.run(record(settings, lambda _: None))
        with SqliteTraceStore.open(settings.path("traces.db"), create=False) as store:
            return {
                WorkflowName(name): tuple(store.executions(WorkflowName(name)))
                for name in settings.rates
            }


def public(name: str) -> tuple[Execution, ...]:
    with TemporaryDirectory() as folder, SqliteTraceStore.open(Path(folder) / "t.db") as store:
        import_file(store, DATA / name / "sessions.jsonl.gz")
        return tuple(store.executions())


def chatdev() -> tuple[Execution, ...]:
    """Programmer and reviewer each on an LLM of their own, all others on a third.

    A run that took nine hours, nearly all of them in gaps, is left out: it alone made up more than
    half of the mean latency, whatever the LLMs did.
    """

    def llm(role: Role) -> LlmName:
        return LlmName(CHATDEV_LLMS.get(role, "gpt-oss-20b"))

    return tuple(
        replace(e, calls=tuple(replace(call, llm=llm(call.role)) for call in e.calls))
        for e in public("chatdev")
        if e.execution_s <= MAX_RUN_S
    )


def coding(most: int = MAX_STRETCHES) -> tuple[Execution, ...]:
    """Stretches of sessions without a pause of over a minute, in which a person was waited for.

    Of 3 to 40 calls of up to 60,000 tokens. The first call of a stretch is the planner's, a later
    one with a short answer (a quarter of them) the summariser's, any other the coder's.
    """
    found = [part for session in public("claude_code") for part in stretches(session)]
    return tuple(
        Execution(part.id, part.workflow, tuple(with_role(part.calls)))
        for part in found
        if 3 <= len(part.calls) <= 40 and max(c.prompt_tokens for c in part.calls) <= 60_000
    )[:most]


def stretches(session: Execution) -> Iterator[Execution]:
    calls: list[Call] = []
    end_s = session.start_s
    for call in session.calls:
        if calls and call.start_s > end_s + MAX_PAUSE_S:
            yield Execution(
                ExecutionId(f"{session.id}@{end_s:.0f}"), session.workflow, tuple(calls)
            )
            calls = []
        calls.append(call)
        end_s = max(end_s, call.end_s)
    yield Execution(ExecutionId(f"{session.id}@{end_s:.0f}"), session.workflow, tuple(calls))


def with_role(calls: Sequence[Call]) -> Iterator[Call]:
    for number, call in enumerate(calls):
        role = "planner" if number == 0 else "coder"
        if number and call.output_tokens <= MAX_SUMMARY_TOKENS:
            role = "summariser"
        yield replace(call, role=Role(role), llm=LlmName(CODING_LLMS[role]))


PUBLIC: Sequence[tuple[str, Callable[[], tuple[Execution, ...]], Groups, int]] = (
    ("chatdev", chatdev, CHATDEV_GROUPS, 4_000),
    ("coding", coding, CODING_GROUPS, 2_000),
)


def scenarios(wanted: Sequence[str]) -> Iterator[Scenario]:
    """Those of these names, or all; public sets only where SCEPSY_DATA is."""
    recorded = examples() if not wanted or set(wanted) & set(EXAMPLE_RATES) else {}
    for name, rates in EXAMPLE_RATES.items():
        if not wanted or name in wanted:
            yield Scenario(
                name=name,
                executions={WorkflowName(n): recorded[WorkflowName(n)] for n in rates},
                rates={WorkflowName(n): rate for n, rate in rates.items()},
                groups=EXAMPLE_GROUPS,
                profiled_calls=12_000,
            )
    for name, load, groups, profiled in PUBLIC:
        if (not wanted or name in wanted) and DATA.exists():
            executions = load()
            workflow = executions[0].workflow
            yield Scenario(
                name=name,
                executions={workflow: executions},
                rates={workflow: 1.0},
                groups=groups,
                profiled_calls=profiled,
            )
