"""KV in host memory, from the option to what serves: simulator, engines, deployment, gateway."""

import json
from pathlib import Path

import aiohttp
import pytest
from typer.testing import CliRunner

from scepsy.cli.main import app
from scepsy.deploy.process import Service
from scepsy.errors import InputError, ScepsyError, UnknownNameError
from scepsy.files.plan_file import save_plan
from scepsy.model.cluster import regular_cluster
from scepsy.model.execution import BLOCK_TOKENS, Call, CallId, ExecutionId
from scepsy.model.plan import Allocation, Plan, Prediction, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.place.pack import pack
from scepsy.profiles.catalog import find_gpu_type, find_llm
from scepsy.traces.store import SqliteTraceStore
from scepsy.units import GIB

LLM = LlmName("qwen3-32b")
"""At TP 1 an H100 has room for 43,000 tokens of its KV."""
AGENTS = WorkflowName("agents")
TURNS, TURN_TOKENS = 4, 4096


def calls(execution: int) -> list[Call]:
    """Of an agent whose prompt grows turn by turn, with tools between."""
    blocks = [100_000 * (execution + 1) + at for at in range(TURNS * TURN_TOKENS // BLOCK_TOKENS)]
    return [
        Call(
            id=CallId(f"{execution}-{turn}"),
            execution=ExecutionId(str(execution)),
            workflow=AGENTS,
            llm=LLM,
            start_s=30.0 * turn,
            end_s=30.0 * turn + 5,
            prompt_tokens=(turn + 1) * TURN_TOKENS,
            output_tokens=50,
            prefix_blocks=tuple(blocks[: (turn + 1) * TURN_TOKENS // BLOCK_TOKENS]),
        )
        for turn in range(TURNS)
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of one replica, and traces whose contexts do not fit it all at once."""
    folder = tmp_path_factory.mktemp("scene")
    h100 = find_gpu_type("h100")
    cluster = regular_cluster(h100, nodes=1, gpus_per_node=1)
    group = ReplicaGroup(llm=LLM, gpu_type=h100.name, tensor_parallel=1)
    allocation = Allocation((group,))
    plan = Plan(
        cluster=cluster,
        rates=(WorkflowRate(AGENTS, 0.1),),
        slo=None,
        allocation=allocation,
        placement=pack(allocation, cluster),
        prediction=Prediction("nobody", ()),
    )
    save_plan(folder / "plan.json", plan)
    with SqliteTraceStore.open(folder / "traces.db") as store:
        for execution in range(10):
            store.append(calls(execution))
    return folder


def run(*arguments: str) -> object:
    """What a command that succeeds prints, or the error that it ends with."""
    result = CliRunner().invoke(app, arguments)
    if result.exit_code:
        assert result.exit_code == 1, result.output
        return result.exception
    return json.loads(result.stdout)


def simulate(scene: Path, *options: str) -> object:
    given = [str(scene / "plan.json"), f"--traces={scene / 'traces.db'}", "--executions=40"]
    return run("simulate", *given, "--arrivals=closed=10", *options, "--json")


@pytest.mark.parametrize("policy", ["least-loaded", "programs"])
def test_a_plan_is_tried_with_host_memory_before_it_costs_any(scene: Path, policy: str) -> None:
    def served(*options: str) -> tuple[float, float]:
        found = simulate(scene, f"--policy={policy}", *options)
        assert isinstance(found, dict)
        summary = found["simulated"]["what if"]
        (workflow,), (llm,) = summary["workflows"], summary["llms"]
        return workflow["execution"]["mean_s"], llm["prefix_hit_fraction"]

    without_s, without_hits = served()
    little_s, _ = served(f"--host-gib={LLM}=0.001")
    much_s, much_hits = served(f"--host-gib={LLM}=64")

    assert little_s == without_s, "room for no block is no room"
    assert much_s < 0.95 * without_s
    earlier = sum(range(TURNS)) / sum(range(TURNS + 1))
    assert without_hits < 0.9 * earlier
    assert much_hits == pytest.approx(earlier), "all that earlier turns computed"


async def capacity(url: str) -> dict[str, float]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/scepsy/capacity") as response:
        found: dict[str, float] = await response.json()
        return found


async def test_emulated_engines_have_it_and_say_so() -> None:
    others = ("qwen3-0.6b=1@0.1+1", "qwen3-8b=1@0.3")
    arguments = (
        "engine", "--model=llama-3.1-8b", "--gpu-fraction=0.4", "--host-gib=64", "--port=0",
        *(f"--beside={other}" for other in others),
    )  # fmt: skip
    async with Service("engines", arguments) as service:
        urls = (service.url, *(each["url"] for each in service.announced["beside"]))
        found = [(await capacity(url))["host_tokens"] for url in urls]

    for tokens, (llm, gib) in zip(
        found, [("llama-3.1-8b", 64), ("qwen3-0.6b", 1), ("qwen3-8b", 0)], strict=True
    ):
        token_bytes = find_llm(llm).replica_kv_bytes_per_token(1)
        assert tokens == pytest.approx(gib * GIB / token_bytes, abs=BLOCK_TOKENS), llm


async def test_a_deployed_plan_has_it_in_its_engines(scene: Path) -> None:
    arguments = ("deploy", "local", str(scene / "plan.json"), "--port=0", "--policy=programs")
    async with Service("deployment", (*arguments, f"--host-gib={LLM}=256")) as service:
        (engine,) = service.announced["engines"]
        found = await capacity(engine["url"])

    token_bytes = find_llm(LLM).replica_kv_bytes_per_token(1)
    assert found["host_tokens"] == pytest.approx(256 * GIB / token_bytes, abs=BLOCK_TOKENS)


NO_GIB = "is not host memory of a replica in GiB"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("64", InputError, "does not say how much host memory"),
        (f"{LLM}=", InputError, NO_GIB),
        (f"{LLM}=-1", InputError, NO_GIB),
        (f"{LLM}=0", InputError, NO_GIB),
        (f"{LLM}=nan", InputError, NO_GIB),
        (f"{LLM}=64GiB", InputError, NO_GIB),
        (f"{LLM}=68719476736", InputError, NO_GIB),
        ("qwen3-8b=64", UnknownNameError, "unknown LLM `qwen3-8b`"),
    ],
)
def test_what_is_no_host_memory_is_told(
    scene: Path, text: str, error: type[ScepsyError], message: str
) -> None:
    replica = f"--replica={LLM}-0=http://127.0.0.1:9"
    for found in (
        simulate(scene, f"--host-gib={text}"),
        run("deploy", "local", str(scene / "plan.json"), f"--host-gib={text}"),
        run("gateway", f"--plan={scene / 'plan.json'}", replica, f"--host-gib={text}"),
    ):
        assert isinstance(found, error)
        assert message in str(found)


@pytest.mark.parametrize("option", ["--host-gib=some", "--beside=qwen3-0.6b=1@0.1+some"])
def test_an_engine_tells_it_too(option: str) -> None:
    found = run("engine", "--model=qwen3-8b", option)

    assert isinstance(found, InputError)
    assert NO_GIB in str(found)


@pytest.mark.parametrize(
    ("policy", "message"),
    [("least-loaded", "says nothing to the policy"), ("programs", "what its replicas run on")],
)
def test_a_gateway_refuses_host_memory_that_it_would_not_count_on(
    policy: str, message: str
) -> None:
    options = (f"--replica={LLM}=http://127.0.0.1:9", f"--policy={policy}")

    found = run("gateway", *options, f"--host-gib={LLM}=64")

    assert isinstance(found, InputError)
    assert message in str(found)
