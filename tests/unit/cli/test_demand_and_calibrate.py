"""The commands around demand and calibration, from files to what is printed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scepsy.cli.main import app
from scepsy.errors import InputError, MissingError
from scepsy.files.plan_file import save_plan
from scepsy.model.cluster import GpuId, GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, ExecutionId, ReplicaName
from scepsy.model.plan import (
    Allocation,
    PlacedReplica,
    Placement,
    Plan,
    ReplicaGroup,
    WorkflowRate,
)
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.predict.predictor import find_predictor
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.profiles.store import load_profiles, save_profiles
from scepsy.traces.demand import demands
from scepsy.traces.store import SqliteTraceStore

WORKFLOW, LLM, GPU = WorkflowName("w"), LlmName("m"), GpuTypeName("h100")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 executions of a long answer and a short judgement, 1 s apart, and a plan that said 1 s."""
    path = tmp_path / "traces.db"
    with SqliteTraceStore.open(path) as store:
        for number in range(40):
            at_s = float(number)
            for part, (length_s, output) in enumerate(((2.0, 380 + number), (0.1, 4))):
                call = Call(
                    id=CallId(f"{number}/{part}"),
                    execution=ExecutionId(str(number)),
                    workflow=WORKFLOW,
                    llm=LLM,
                    start_s=at_s,
                    end_s=at_s + length_s,
                    prompt_tokens=100,
                    output_tokens=output,
                )
                store.append([call])
                at_s += length_s + 0.5
    curve = ProfileCurve(
        key=ProfileKey(
            stage=Stage(WORKFLOW, LLM), gpu_type=GPU, tensor_parallel=1, gpu_fraction=1.0
        ),
        capacity_per_s=10.0,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=0.5, latency_s_p95=1.0, ttft_s_mean=0.0)
            for u in (0.0, 0.9)
        ),
        provenance=Provenance.SIMULATED,
        source="made up",
    )
    save_profiles(tmp_path / "profiles.json", ProfileSet((curve,)))
    save_plan(tmp_path / "plan.json", a_plan(path, ProfileSet((curve,))))
    return tmp_path


def a_plan(traces: Path, profiles: ProfileSet) -> Plan:
    group = ReplicaGroup(llm=LLM, gpu_type=GPU, tensor_parallel=1)
    rate = WorkflowRate(WORKFLOW, 1.0)
    with SqliteTraceStore.open(traces, create=False) as store:
        rated = [RatedWorkflow(demand, rate) for demand in demands(store)]
    cluster = regular_cluster(GpuType(name=GPU, memory_bytes=80), nodes=1, gpus_per_node=1)
    gpu = GpuId(str(cluster.gpus[0].id))
    return Plan(
        cluster=cluster,
        rates=(rate,),
        slo=None,
        allocation=Allocation((group,)),
        placement=Placement((PlacedReplica(ReplicaName("m-0"), LLM, (gpu,), 1.0),)),
        prediction=find_predictor("critical-path")(rated, Allocation((group,)), profiles),
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_demand_says_what_is_asked_and_for_how_long_nothing_runs(folder: Path) -> None:
    done = run("demand", folder / "traces.db")

    assert done.exit_code == 0
    assert "2.1 s (±0%)" in done.stdout
    assert "without an LLM call, after" in done.stdout
    assert "500 ms" in done.stdout


def test_demand_warns_of_a_recording_that_is_too_small(folder: Path) -> None:
    with SqliteTraceStore.open(folder / "few.db") as store:
        for number, length_s in enumerate((1.0, 9.0, 2.0, 12.0)):
            call = Call(
                id=CallId(str(number)),
                execution=ExecutionId(str(number)),
                workflow=WORKFLOW,
                llm=LLM,
                start_s=number * 20.0,
                end_s=number * 20.0 + length_s,
                prompt_tokens=1,
                output_tokens=1,
            )
            store.append([call])

    done = run("demand", folder / "few.db")

    assert "more executions would settle it" in " ".join(done.stderr.split())


def test_roles_are_split_reported_and_written(folder: Path) -> None:
    done = run(
        "demand", folder / "traces.db", "--split-roles", "--write", folder / "roles.db", "--json"
    )

    said = " ".join(done.stderr.split())
    assert "split by output length into long-output, short-output" in said
    assert "it hardly matters" in said  # all executions mix them alike
    (told,) = json.loads(done.stdout)
    assert [stage["stage"]["role"] for stage in told["stages"]] == ["long-output", "short-output"]
    assert told["stages"][0]["stability"]["halves_differ"] is False
    with SqliteTraceStore.open(folder / "roles.db", create=False) as store:
        roles = {call.role for each in store.executions() for call in each.calls}
    assert roles == {"long-output", "short-output"}


def test_writing_needs_roles_and_a_new_file(folder: Path) -> None:
    traces = folder / "traces.db"

    without = run("demand", traces, "--write", folder / "new.db")
    over = run("demand", traces, "--split-roles", "--write", traces)

    assert isinstance(without.exception, InputError)
    assert isinstance(over.exception, InputError)


def test_calibration_corrects_what_was_served_and_shows_the_difference(folder: Path) -> None:
    """Calls took 1.05 s in the mean, and 0.5 s were predicted: 2.1 times as much."""
    files = [f"--{name}={folder / file}" for name, file in (
        ("plan", "plan.json"), ("traces", "traces.db"), ("profiles", "profiles.json")
    )]  # fmt: skip

    shown = run("calibrate", *files, f"--output={folder / 'new.json'}")
    told = json.loads(run("calibrate", *files, "--json").stdout)

    assert "x 2.100" in shown.stdout
    (stage,) = told["stages"]
    assert (stage["calls"], stage["factor"]) == (80, pytest.approx(2.1))
    mean = next(row for row in told["workflows"] if row["statistic"] == "mean")
    assert mean["served_s"] == pytest.approx(2.6)
    assert mean["before_s"] == pytest.approx(1.5)
    assert mean["after_s"] == pytest.approx(2.6)
    assert load_profiles(folder / "new.json").curves[0].latency_s(0.5) == pytest.approx(1.05)
    assert load_profiles(folder / "profiles.json").curves[0].latency_s(0.5) == 0.5


def test_calibrating_by_other_traffic_is_refused(folder: Path) -> None:
    with SqliteTraceStore.open(folder / "other.db") as store:
        call = Call(
            id=CallId("0"),
            execution=ExecutionId("0"),
            workflow=WorkflowName("other"),
            llm=LLM,
            start_s=0.0,
            end_s=1.0,
            prompt_tokens=1,
            output_tokens=1,
        )
        store.append([call])

    done = run(
        "calibrate",
        "--plan", folder / "plan.json",
        "--traces", folder / "other.db",
        "--profiles", folder / "profiles.json",
    )  # fmt: skip

    assert isinstance(done.exception, MissingError)
    assert "not in the plan" in done.stderr
