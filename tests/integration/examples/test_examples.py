"""Each example end to end: the real program, the gateway and emulated engines, on loopback.

The engines run far faster than the silicon they stand for; nothing that is checked depends on how
fast this machine is.
"""

import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import examples
from examples import load
from examples.connect import connect
from examples.load import ExecutionRecord, Load, planned
from examples.registry import WORKFLOWS
from scepsy.clock import ScaledClock
from scepsy.engines.emulated import EngineServerConfig, start_engine
from scepsy.gateway.app import GatewayConfig, RunningGateway, start_gateway
from scepsy.gateway.pool import Replica
from scepsy.model.execution import Call, CallId, CallStatus, Endpoint, ReplicaName
from scepsy.model.workflow import LlmName

SPEEDUP = 100.0
HERE = Path(examples.__file__).parent
SCRIPTS = tuple(HERE / name / "emulated.py" for name in WORKFLOWS)
TENSOR_PARALLEL = {"qwen3-32b": 2, "qwen3-8b": 1, "qwen3-embedding-0.6b": 1}


@dataclass
class Kept:
    """Calls in memory, in place of a trace store."""

    calls: list[Call] = field(default_factory=list)

    def append(self, calls: Sequence[Call]) -> int:
        self.calls.extend(calls)
        return len(calls)

    def append_content(self, call_id: CallId, request: bytes, response: bytes) -> None:
        raise AssertionError("nobody asked for content")

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Served:
    gateway: RunningGateway
    kept: Kept

    async def run(self, name: str, executions: int, *, seed: int = 0) -> "Ran":
        """Run executions of one workflow, all at once."""
        workflow = WORKFLOWS[name]
        async with connect(f"{self.gateway.url}/v1") as client:
            driver = Load(client, [workflow], clock=ScaledClock(SPEEDUP), label=f"s{seed}")
            plan = planned(workflow, [0.0] * executions, seed=seed)
            records = await driver.open_loop(plan)
        await self.gateway.flush()
        calls: dict[str, list[Call]] = defaultdict(list)
        for call in self.kept.calls:
            calls[call.execution].append(call)
        return Ran(records, calls)


@dataclass
class Ran:
    records: Sequence[ExecutionRecord]
    calls: Mapping[str, Sequence[Call]]

    def roles(self, record: ExecutionRecord) -> Counter[str]:
        """Calls of one execution by role."""
        return Counter(str(call.role) for call in self.calls[record.execution])

    def all_roles(self) -> Counter[str]:
        return sum((self.roles(record) for record in self.records), Counter())

    def check_finished(self) -> None:
        assert [record.error for record in self.records if not record.ok] == []
        own = [call for record in self.records for call in self.calls[record.execution]]
        assert {call.status for call in own} == {CallStatus.OK}
        assert {call.workflow for call in own} == {record.workflow for record in self.records}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    kept = Kept()
    async with AsyncExitStack() as stack:
        replicas = []
        for llm, degree in TENSOR_PARALLEL.items():
            engine = await start_engine(
                EngineServerConfig(
                    llm=llm, tensor_parallel=degree, speedup=SPEEDUP, scripts=SCRIPTS
                )
            )
            stack.push_async_callback(engine.stop)
            replicas.append(Replica(ReplicaName(llm), LlmName(llm), engine.url))
        gateway = await start_gateway(
            GatewayConfig(replicas=tuple(replicas), port=0, speedup=SPEEDUP), sink=kept
        )
        stack.push_async_callback(gateway.stop)
        yield Served(gateway, kept)


async def test_beam_search_goes_as_far_as_the_scores_lead_it(served: Served) -> None:
    ran = await served.run("beam_search", 12)

    ran.check_finished()
    generated = [ran.roles(record)["generator"] for record in ran.records]
    assert generated == [ran.roles(record)["verifier"] for record in ran.records]
    assert max(generated) >= 5 * min(generated)
    assert all(count % 4 == 0 for count in generated)
    assert sum(record.correct for record in ran.records) >= 8


async def test_another_seed_leads_elsewhere_on_the_same_problem(served: Served) -> None:
    workflow = WORKFLOWS["beam_search"]
    task = workflow.tasks.index("rental-bike")
    async with connect(f"{served.gateway.url}/v1") as client:
        run = await workflow.prepare(client)
        one, same, *others = [await run(client, task, seed) for seed in (1, 1, 2, 3, 4)]

    assert one == same
    assert any(other != one for other in others)


async def test_rag_looks_again_when_what_it_found_fits_badly(served: Served) -> None:
    ran = await served.run("rag_rerank", 20)

    ran.check_finished()
    roles = [ran.roles(record) for record in ran.records]
    for counts in roles:
        assert counts["embedder"] == counts["reranker"] == counts["generator"] <= 3
    rewritten = sum(counts["generator"] > 1 for counts in roles)
    assert 2 <= rewritten <= 12
    assert sum(record.correct for record in ran.records) >= 15
    indexing = [call for call in served.kept.calls if call.workflow == "rag_index"]
    assert [call.endpoint for call in indexing] == [Endpoint.EMBEDDING] * 4


async def test_the_rag_answer_is_streamed(served: Served) -> None:
    ran = await served.run("rag_rerank", 1)

    last = max(ran.calls[ran.records[0].execution], key=lambda call: call.end_s)
    assert last.first_token_s is not None
    assert last.start_s < last.first_token_s < last.end_s
    assert 100 < last.output_tokens <= 800


async def test_the_coding_agent_writes_again_until_its_tests_pass(served: Served) -> None:
    ran = await served.run("coding_agent", 8)

    ran.check_finished()
    roles = [ran.roles(record) for record in ran.records]
    for counts in roles:
        assert counts["planner"] == 1
        assert 1 <= counts["coder"] == counts["reviewer"] <= 5
    assert len({counts["coder"] for counts in roles}) > 1
    assert sum(record.correct for record in ran.records) >= 6


async def test_the_load_driver_from_the_command_line(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    options = load.parse(
        [
            *("--workflow", "rag_rerank", "--rate", "2", "--duration", "3", "--paced"),
            *("--speedup", f"{SPEEDUP:g}", "--base-url", f"{served.gateway.url}/v1"),
            *("--model", "rag_rerank.reranker=qwen3-32b"),
        ]
    )

    records = await load.run(options)

    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == len(records) == 6
    assert {row["execution"] for row in printed} == {record.execution for record in records}
    assert all(row["ok"] for row in printed)
    await served.gateway.flush()
    assert {call.llm for call in served.kept.calls if call.role == "reranker"} == {"qwen3-32b"}


async def test_executions_against_nobody_fail_and_say_why() -> None:
    workflow = WORKFLOWS["coding_agent"]
    async with connect("http://127.0.0.1:9/v1") as client:
        driver = Load(client, [workflow], clock=ScaledClock(SPEEDUP), label="none")
        records = await driver.closed_loop(planned(workflow, [0.0] * 2, seed=0), concurrency=2)

    assert [record.ok for record in records] == [False, False]
    assert all("Connect" in (record.error or "") for record in records)
