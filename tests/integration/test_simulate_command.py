"""``scepsy simulate`` from a plan and a trace store to figures and files, in this process."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scepsy.cli.main import app
from scepsy.errors import InfeasibleError, InputError, MissingError, ScepsyError, UnknownNameError
from scepsy.files.plan_file import load_plan, save_plan
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.traces.store import SqliteTraceStore

EXECUTIONS = 40


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with traces, and a plan of two replicas, each alone on the only GPU of a node."""
    folder = tmp_path_factory.mktemp("scene")
    calls = [
        Call(
            id=CallId(f"{n}-{at}"),
            execution=ExecutionId(str(n)),
            workflow=WorkflowName("rag"),
            llm=LlmName("qwen3-8b"),
            start_s=10.0 * n + 2 * at,
            end_s=10.0 * n + 2 * at + 1,
            prompt_tokens=400 + 10 * n,
            output_tokens=50 + n,
        )
        for n in range(20)
        for at in range(2)
    ]
    with SqliteTraceStore.open(folder / "traces.db") as store:
        store.append(calls)
    (folder / "cluster.yaml").write_text("nodes: [{gpu: h100, gpus: 1, count: 2}]\n")
    traces, profiles = f"--traces={folder / 'traces.db'}", f"--profiles={folder / 'profiles.json'}"
    cluster = f"--cluster={folder / 'cluster.yaml'}"
    profile = ["profile", traces, f"--output={folder / 'profiles.json'}", "--gpu=h100", "--tp=1"]
    done = CliRunner().invoke(app, [*profile, "--fraction=1", "--replicas=1,2", "--jobs=1"])
    assert done.exit_code == 0, done.output
    plan = ["plan", traces, profiles, cluster, "--rate=2", f"--output={folder / 'plan.json'}"]
    done = CliRunner().invoke(app, [*plan, "--min-replicas=qwen3-8b=2", "--slo=p95 <= 1m"])
    assert done.exit_code == 0, done.output
    return folder


def simulate(scene: Path, *options: str) -> Result:
    given = [str(scene / "plan.json"), f"--traces={scene / 'traces.db'}"]
    return CliRunner().invoke(app, ["simulate", *given, f"--executions={EXECUTIONS}", *options])


def figures(result: Result) -> dict[str, dict[str, float]]:
    """Of the only workflow, by variant."""
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["simulated"]
    return {
        name: {**workflow, **workflow["execution"], **summary["llms"][0]}
        for name, summary in found.items()
        for workflow in summary["workflows"]
    }


def test_a_plan_is_simulated_beside_its_prediction(scene: Path) -> None:
    result = simulate(scene)

    assert result.exit_code == 0, result.output
    assert "predicted (pipeline)" in result.stdout
    assert "simulated: plan" in result.stdout
    assert "what if" not in result.stdout
    found = figures(simulate(scene, "--json"))["plan"]
    assert found["executions"] == EXECUTIONS
    assert found["calls"] == 2 * EXECUTIONS
    assert found["offered_per_s"] == pytest.approx(2, rel=0.15)
    assert found["attainment"] == 1
    assert 1 < found["mean_s"] < 10


@pytest.mark.parametrize("policy", ["least-loaded", "programs"])
def test_equal_seeds_give_equal_bytes(scene: Path, tmp_path: Path, policy: str) -> None:
    for folder in ("a", "b"):
        options = ["--seed=3", f"--policy={policy}", f"--output={tmp_path / folder}"]
        result = simulate(scene, *options)
        assert result.exit_code == 0, result.output
    written = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written == ["calls.parquet", "executions.parquet", "latency.svg", "timeline.json.gz"]
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("policy", ["least-loaded", "programs"])
def test_what_if_a_node_is_missing_and_load_doubles(scene: Path, policy: str) -> None:
    missing = ["--without=node-1", "--rate=2x"]
    found = figures(simulate(scene, *missing, f"--policy={policy}", "--json"))

    assert found["what if"]["mean_s"] > found["plan"]["mean_s"]
    assert found["what if"]["offered_per_s"] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("policy", ["least-loaded", "programs"])
def test_what_if_a_node_dies_and_comes_back(scene: Path, policy: str) -> None:
    lost = ["--rate=10x", "--lose=node-0@1:2"]
    found = figures(simulate(scene, *lost, f"--policy={policy}", "--json"))

    assert found["what if"]["restarts"] > 0
    assert found["plan"]["restarts"] == 0
    assert found["what if"]["executions"] == EXECUTIONS


def test_what_if_the_gateway_served_programs(scene: Path) -> None:
    """Where nothing needs to wait, a call goes when it comes, with either policy."""
    found = figures(simulate(scene, "--policy=programs", "--json"))

    assert found["what if"]["mean_s"] == pytest.approx(found["plan"]["mean_s"], rel=0.05)
    assert found["what if"]["executions"] == EXECUTIONS


def test_a_plan_may_name_programs_as_its_policy(scene: Path, tmp_path: Path) -> None:
    named = tmp_path / "plan.json"
    save_plan(named, replace(load_plan(scene / "plan.json"), route="programs"))
    given = [str(named), f"--traces={scene / 'traces.db'}", f"--executions={EXECUTIONS}"]
    result = CliRunner().invoke(app, ["simulate", *given, "--patience=2", "--json"])

    found = figures(result)
    asked = figures(simulate(scene, "--policy=programs", "--json"))
    assert found["plan"] == asked["what if"]
    assert found["what if"]["executions"] == EXECUTIONS


def test_a_node_can_die_again_while_it_is_down(scene: Path) -> None:
    found = figures(simulate(scene, "--lose=node-0@1:9", "--lose=node-0@2:4", "--json"))

    assert found["what if"]["executions"] == EXECUTIONS


def test_a_loss_in_the_warm_up_is_told(scene: Path) -> None:
    result = simulate(scene, "--lose=node-0@0.1:0.2")

    assert "node-0 is not lost while executions are counted" in " ".join(result.output.split())


def test_executions_end_as_fast_as_they_come_where_load_can_be_served(scene: Path) -> None:
    """Those of the warm-up that end meanwhile stand for those that end after the last arrival."""
    found = figures(simulate(scene, "--json"))["plan"]

    assert found["throughput_per_s"] == pytest.approx(found["offered_per_s"], rel=0.1)


@pytest.mark.parametrize("arrivals", ["bursty=4", "closed=3", "recorded", "recorded=5"])
def test_executions_arrive_in_other_ways(scene: Path, arrivals: str) -> None:
    found = figures(simulate(scene, f"--arrivals={arrivals}", "--json"))["plan"]

    assert found["executions"] == (20 if arrivals.startswith("recorded") else EXECUTIONS)
    assert found["throughput_per_s"] > 0


def test_calls_can_be_imported_as_a_trace(scene: Path, tmp_path: Path) -> None:
    assert simulate(scene, f"--output={tmp_path}").exit_code == 0

    store = tmp_path / "simulated.db"
    calls = tmp_path / "calls.parquet"
    done = CliRunner().invoke(app, ["traces", "import", str(calls), f"--store={store}"])

    assert done.exit_code == 0, done.output
    with SqliteTraceStore.open(store, create=False) as traces:
        executions = list(traces.executions(WorkflowName("rag")))
    assert len(executions) == EXECUTIONS
    assert {call.replica for each in executions for call in each.calls} == {
        "qwen3-8b-0",
        "qwen3-8b-1",
    }


def test_the_timeline_has_a_slice_for_each_execution_and_the_parts_of_each_call(
    scene: Path, tmp_path: Path
) -> None:
    assert simulate(scene, f"--output={tmp_path}").exit_code == 0

    events = json.loads(gzip.decompress((tmp_path / "timeline.json.gz").read_bytes()))
    slices = [event for event in events["traceEvents"] if event["ph"] == "X"]
    names = [event["name"] for event in slices]
    assert sum(name.startswith("rag ") for name in names) == EXECUTIONS
    assert names.count("prefill") == names.count("decode") == 2 * EXECUTIONS
    assert all(event["dur"] >= 0 for event in slices)
    lanes: dict[tuple[int, int], float] = {}
    for event in sorted(slices, key=lambda event: (event["ts"], -event["dur"])):
        lane = (event["pid"], event["tid"])
        assert event["ts"] >= lanes.get(lane, 0.0) - 0.01  # slices of a lane do not overlap
        lanes[lane] = event["ts"] + event["dur"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--rate=fast"], InputError, "is not a rate"),
        (["--rate=other=3"], InputError, "the plan has no such workflow"),
        (["--rate=-1x"], InputError, "is not a rate"),
        (["--without=node-9"], UnknownNameError, "unknown node `node-9`"),
        (["--without=node-0", "--without=node-1"], InfeasibleError, "no replica of qwen3-8b"),
        (["--lose=node-1"], InputError, "which node and when"),
        (["--lose=node-1@9:3"], InputError, "which node and when"),
        (["--lose=node-9@3"], UnknownNameError, "unknown node `node-9`"),
        (["--lose=node-0@3", "--lose=node-1@3"], InfeasibleError, "would never end"),
        (["--policy=best"], UnknownNameError, "unknown routing policy `best`"),
        (["--patience=2"], InputError, "says nothing to the policy `least-loaded`"),
        (["--policy=programs", "--patience=-1"], InputError, "out of range"),
        (["--order=best"], UnknownNameError, "unknown order policy `best`"),
        (["--arrivals=often"], InputError, "is no way to arrive"),
        (["--arrivals=bursty=0"], InputError, "is no way to arrive"),
        (["--traces=none.db"], MissingError, "none.db"),
    ],
)
def test_bad_input_is_told(
    scene: Path, options: list[str], error: type[ScepsyError], message: str
) -> None:
    result = simulate(scene, *options)

    assert result.exit_code == 1
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def plan(scene: Path, *options: str) -> Result:
    """By simulation, with little time for it."""
    files = [f"--{name}={scene / file}" for name, file in PLAN_FILES.items()]
    ask = ["--rate=2", "--predictor=simulator", "--rank-seconds=1", *options]
    return CliRunner().invoke(app, ["plan", *files, *ask])


PLAN_FILES = {"traces": "traces.db", "profiles": "profiles.json", "cluster": "cluster.yaml"}


def test_a_plan_is_chosen_by_simulation_and_carries_its_figures(scene: Path) -> None:
    result = plan(scene, "--slo=p95 <= 1m", "--json")

    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)["plan"]
    assert made["prediction"]["predictor"] == "simulator"
    (workflow,) = made["prediction"]["workflows"]
    served = figures(simulate(scene, "--json"))["plan"]
    assert workflow["execution_s_mean"] == pytest.approx(served["mean_s"], rel=0.1)
    assert made["objective_s"] == workflow["execution_s_mean"]
    assert workflow["execution_s_p95"] < 60


def test_the_cheapest_plan_is_simulated_as_it_is(scene: Path) -> None:
    result = plan(scene, "--goal=gpus")

    assert result.exit_code == 0, result.output
    assert "Predicted by simulator" in result.stdout


def test_other_predictors_are_unknown(scene: Path) -> None:
    result = plan(scene, "--predictor=oracle")

    assert result.exit_code == 1
    assert isinstance(result.exception, UnknownNameError)
    assert "unknown predictor `oracle`" in str(result.exception)
