"""A plan in which LLMs take turns: read, simulated, and served over HTTP as simulated."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from benchmarks.recorded import replay
from benchmarks.recorded.replay import HttpReplay
from scepsy.cli.main import app
from scepsy.clock import ScaledClock
from scepsy.deploy.local import GatewayOptions, LocalDeployment, serve_locally
from scepsy.deploy.render import emulated_engines
from scepsy.errors import InfeasibleError
from scepsy.files.plan_file import save_plan
from scepsy.model.cluster import regular_cluster
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import (
    Allocation,
    Plan,
    Prediction,
    ReplicaGroup,
    WorkflowPrediction,
    WorkflowRate,
)
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.place.pack import Unplaced, pack
from scepsy.policy.by_name import find_dispatcher
from scepsy.profiles.catalog import find_gpu_type
from scepsy.sim.arrivals import Stream
from scepsy.sim.plan_run import Setting, simulate_plan
from scepsy.sim.script import scripts
from scepsy.sim.specs import published
from scepsy.traces.store import SqliteTraceStore

WORKFLOW, BIG, SMALL = WorkflowName("w"), LlmName("qwen3-8b"), LlmName("qwen3-0.6b")
SPEEDUP, RATE_PER_S = 4.0, 1.5
EXECUTIONS = 12
LATE_S = 0.4
"""Scaled; what a call may take here beyond the engine's time before the test fails."""


def call(at: int, llm: LlmName, start_s: float, end_s: float, prompt: int, output: int) -> Call:
    return Call(
        id=CallId(f"c{at}"),
        execution=ExecutionId("e"),
        workflow=WORKFLOW,
        llm=llm,
        role=Role(f"role_{at}"),
        start_s=start_s,
        end_s=end_s,
        prompt_tokens=prompt,
        output_tokens=output,
    )


EXECUTION = Execution(
    ExecutionId("e"),
    WORKFLOW,
    (
        call(0, BIG, 0, 1, 2600, 150),
        call(1, SMALL, 1.5, 4, 200, 300),
        call(2, SMALL, 1.5, 3, 200, 300),
        call(3, BIG, 4.5, 7, 1000, 100),
    ),
)


def a_plan(nodes: int) -> Plan:
    """Both LLMs on the only GPU of each node."""
    h100 = find_gpu_type("h100")
    cluster = regular_cluster(h100, nodes=nodes, gpus_per_node=1)
    groups = tuple(
        ReplicaGroup(
            llm=llm, gpu_type=h100.name, tensor_parallel=1, replicas=nodes, gpu_fraction=fraction
        )
        for llm, fraction in ((SMALL, 0.3), (BIG, 0.6))
    )
    allocation = Allocation(groups, turns=((SMALL, BIG),))
    placement = pack(allocation, cluster)
    assert not isinstance(placement, Unplaced)
    expected = WorkflowPrediction(
        workflow=WORKFLOW,
        rate_per_s=RATE_PER_S,
        execution_s_mean=6.0,
        execution_s_p50=6.0,
        execution_s_p95=9.0,
        execution_s_p99=9.0,
        gap_s_mean=1.0,
        capacity_per_s=3.0,
        capacity_alone_per_s=3.0,
        bottleneck=BIG,
        bottleneck_alone=BIG,
        stages=(),
    )
    return Plan(
        cluster=cluster,
        rates=(WorkflowRate(WORKFLOW, RATE_PER_S),),
        slo=None,
        allocation=allocation,
        placement=placement,
        prediction=Prediction("nobody", (expected,)),
    )


def saved(folder: Path, plan: Plan) -> Path:
    save_plan(folder / "plan.json", plan)
    return folder / "plan.json"


@asynccontextmanager
async def serving(plan: Plan, folder: Path, policy: str) -> AsyncIterator[LocalDeployment]:
    script = Path(replay.__file__).with_name("answer.py")
    options = GatewayOptions(
        speedup=SPEEDUP,
        port=0,
        policy=policy,
        record=folder / "served.db",
        plan=saved(folder, plan),
    )
    commands = emulated_engines(plan, speedup=SPEEDUP, scripts=(script,))
    async with serve_locally(commands, options) as deployment:
        yield deployment


def recorded(folder: Path) -> dict[str, Execution]:
    with SqliteTraceStore.open(folder / "served.db", create=False) as store:
        return {each.id: each for each in store.executions(WORKFLOW)}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("nodes", "policy"), [(1, "least-loaded"), (2, "least-loaded"), (2, "programs")]
)
async def test_served_over_http_each_execution_takes_as_long_as_simulated(
    tmp_path: Path, nodes: int, policy: str
) -> None:
    plan = a_plan(nodes)
    streams = [Stream(scripts=scripts([EXECUTION]), rate_per_s=RATE_PER_S * nodes)]
    async with (
        serving(plan, tmp_path, policy) as deployment,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
    ):
        names = {replica.name for replica in deployment.replicas}
        assert len(deployment.engines) == nodes
        http = HttpReplay(deployment.url, ScaledClock(SPEEDUP), session)
        runs = await http.serve(streams, executions=EXECUTIONS, warm_up=2, seed=0)
    setting = Setting(
        rates=(WorkflowRate(WORKFLOW, RATE_PER_S * nodes),),
        make_dispatcher=find_dispatcher(policy),
        executions=EXECUTIONS,
        warm_up=2,
    )
    simulated = simulate_plan(plan, {WORKFLOW: scripts([EXECUTION])}, published, setting).counted
    found = [recorded(tmp_path)[run.id] for run in runs]
    calls = [each for execution in found for each in execution.calls]
    assert names == {each.name for each in plan.placement.replicas}
    used = {each.replica for each in calls if each.replica is not None}
    assert used <= names
    assert {name.rpartition("-")[2] for name in used} == set("01"[:nodes])
    assert [c.output_tokens for c in found[0].calls] == [150, 300, 300, 100]
    late_s = mean([e.execution_s for e in found]) - mean([e.execution_s for e in simulated])
    assert -LATE_S < late_s < 4 * LATE_S


def simulate(folder: Path, *options: str) -> Result:
    plan = saved(folder, a_plan(2))
    with SqliteTraceStore.open(folder / "traces.db") as store:
        store.append(EXECUTION.calls)
    given = [str(plan), f"--traces={folder / 'traces.db'}", "--executions=30"]
    return CliRunner().invoke(app, ["simulate", *given, *options, "--json"])


def means_s(result: Result) -> dict[str, float]:
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["simulated"]
    return {name: each["workflows"][0]["execution"]["mean_s"] for name, each in found.items()}


def test_programs_are_served_where_llms_take_turns(tmp_path: Path) -> None:
    found = means_s(simulate(tmp_path, "--policy=programs", "--lose=node-0@10:20"))

    assert found["plan"] < found["what if"] < 3 * found["plan"]


def test_without_a_node_those_on_the_other_still_take_turns(tmp_path: Path) -> None:
    found = means_s(simulate(tmp_path, "--without=node-1", "--rate=0.75"))

    assert found["plan"] <= found["what if"] < 1.5 * found["plan"]


def test_calls_of_a_lost_node_begin_anew_on_the_other(tmp_path: Path) -> None:
    found = means_s(simulate(tmp_path, "--lose=node-0@10:20"))

    assert found["what if"] > found["plan"]


def test_without_all_nodes_nothing_is_left(tmp_path: Path) -> None:
    result = simulate(tmp_path, "--without=node-0", "--without=node-1")

    assert isinstance(result.exception, InfeasibleError)
