"""A plan becomes processes that serve, record, and end together."""

import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI

from scepsy.deploy.process import Service
from scepsy.errors import EngineError
from scepsy.files.plan_file import save_plan
from scepsy.model.cluster import regular_cluster
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation, PlacedReplica, Placement, Plan, Prediction, ReplicaGroup
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.catalog import find_gpu_type
from scepsy.traces.store import SqliteTraceStore

LLM = LlmName("qwen3-8b")


@pytest.fixture
def plan_path(tmp_path: Path) -> Path:
    h100 = find_gpu_type("h100")
    cluster = regular_cluster(h100, nodes=1, gpus_per_node=2)
    group = ReplicaGroup(llm=LLM, gpu_type=h100.name, tensor_parallel=1, replicas=2)
    placed = tuple(
        PlacedReplica(ReplicaName(f"{LLM}-{n}"), LLM, (gpu.id,), 1.0)
        for n, gpu in enumerate(cluster.gpus)
    )
    plan = Plan(
        cluster=cluster,
        rates=(),
        slo=None,
        allocation=Allocation((group,)),
        placement=Placement(placed),
        prediction=Prediction("pipeline", ()),
    )
    path = tmp_path / "plan.json"
    save_plan(path, plan)
    return path


def deployment(plan_path: Path, *more: str) -> Service:
    return Service("deployment", ("deploy", "local", str(plan_path), "--port=0", *more))


@pytest.mark.parametrize("policy", [[], ["--policy=programs"]])
async def test_every_replica_of_the_plan_serves_and_calls_are_recorded(
    plan_path: Path, tmp_path: Path, policy: list[str]
) -> None:
    store = tmp_path / "served.db"
    async with deployment(plan_path, "--speedup=50", f"--record={store}", *policy) as service:
        engines = service.announced["engines"]
        assert [engine["replica"] for engine in engines] == [f"{LLM}-0", f"{LLM}-1"]
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
            for _ in range(2):
                reply = await client.chat.completions.create(
                    model=LLM,
                    messages=[{"role": "user", "content": "hello"}],
                    max_tokens=8,
                    extra_headers={"x-scepsy-workflow": "w", "x-scepsy-execution": "e"},
                )
                assert reply.choices[0].message.content
        async with aiohttp.ClientSession() as session:
            for engine in engines:
                async with session.get(f"{engine['url']}/health") as health:
                    assert health.status == 200
            async with session.get(f"{service.url}/metrics") as metrics:
                page = await metrics.text()
        assert (f'up_replicas{{llm="{LLM}"}} 2.0' in page) == bool(policy)
    with SqliteTraceStore.open(store, create=False) as traces:
        (execution,) = traces.executions(WorkflowName("w"))
    assert len(execution.calls) == 2
    assert {call.llm for call in execution.calls} == {LLM}
    async with aiohttp.ClientSession() as session:  # all have ended with the block
        for engine in engines:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{engine['url']}/health")


def _an_engine_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return next(
        int(child)
        for child in children
        if b"engine" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    )


@pytest.mark.skipif(sys.platform != "linux", reason="finds the engine's process in /proc")
async def test_an_engine_that_dies_ends_the_deployment_with_its_name(plan_path: Path) -> None:
    async with deployment(plan_path) as service:
        os.kill(_an_engine_of(service.pid), signal.SIGKILL)
        assert await service.ended() == 1
        assert f"{LLM}-" in service.last_words
        assert "died" in service.last_words


async def test_an_unknown_policy_is_told_before_engines_start(plan_path: Path) -> None:
    with pytest.raises(EngineError, match="unknown routing policy `best`"):
        async with deployment(plan_path, "--policy=best"):
            pytest.fail("it must not come up")


async def test_an_engine_that_cannot_start_says_why(plan_path: Path, tmp_path: Path) -> None:
    script = tmp_path / "bad.py"
    script.write_text("answer = 1\n", encoding="utf-8")
    with pytest.raises(EngineError, match=r"bad\.py"):
        async with deployment(plan_path, f"--script={script}"):
            pytest.fail("it must not come up")
