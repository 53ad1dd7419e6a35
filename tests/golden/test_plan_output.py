"""What ``scepsy plan`` prints and writes, from files to files."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from scepsy.cli.main import app
from scepsy.errors import InputError, MissingError, ScepsyError, UnknownNameError
from scepsy.files.plan_file import load_plan
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.profiles.store import save_profiles
from scepsy.search.explain import OverloadError
from scepsy.traces.store import SqliteTraceStore

GOLDEN = Path(__file__).with_name("plan.txt")
"""Written anew when SCEPSY_UPDATE_GOLDEN is set."""

WORKFLOWS = {
    WorkflowName("beam-search"): {"generator": (8, 2.0), "verifier": (8, 0.4)},
    WorkflowName("rag"): {"embedder": (1, 0.02), "generator": (1, 4.0)},
}
"""Calls of one execution and seconds of a call, by LLM."""
SHAPES = {
    "generator": ((1, 1.0), (2, 0.5), (2, 1.0), (4, 0.3), (4, 1.0)),
    "verifier": ((1, 0.3), (1, 1.0), (2, 0.2), (2, 1.0)),
    "embedder": ((1, 0.1), (1, 1.0)),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with traces of two workflows, their profiles, and cluster files."""
    folder = tmp_path_factory.mktemp("scene")
    with SqliteTraceStore.open(folder / "traces.db") as store:
        store.append(recorded_calls())
    SqliteTraceStore.open(folder / "empty.db").close()
    save_profiles(folder / "profiles.json", made_up_profiles())
    (folder / "cluster.yaml").write_text("nodes:\n  - {gpu: h100, gpus: 4, count: 2}\n")
    (folder / "wrong.yaml").write_text("nodes:\n  - gpu: h100\n    gpus: 4\n    count: -2\n")
    (folder / "other.yaml").write_text("nodes:\n  - {gpu: a100, gpus: 4}\n")
    return folder


def recorded_calls() -> list[Call]:
    """Ten executions of each workflow, each a little longer than the one before."""
    calls = []
    for workflow, llms in WORKFLOWS.items():
        for n in range(10):
            now_s = 1000.0 * n
            for llm, (count, call_s) in llms.items():
                for _ in range(count):
                    end_s = now_s + call_s * (0.7 + 0.06 * n)
                    calls.append(
                        Call(
                            id=CallId(f"{workflow}-{n}-{len(calls)}"),
                            execution=ExecutionId(f"{workflow}-{n}"),
                            workflow=workflow,
                            llm=LlmName(llm),
                            start_s=now_s,
                            end_s=end_s,
                            prompt_tokens=500,
                            output_tokens=100,
                        )
                    )
                    now_s = end_s + 0.05
    return calls


def made_up_profiles() -> ProfileSet:
    curves = []
    for workflow, llms in WORKFLOWS.items():
        for llm, (_, recorded_s) in llms.items():
            for degree, fraction in SHAPES[llm]:
                for replicas in (1, 4):
                    call_s = recorded_s * (0.35 + 0.65 / degree**0.8 / fraction**0.5)
                    curves.append(
                        ProfileCurve(
                            key=ProfileKey(
                                stage=Stage(workflow, LlmName(llm)),
                                gpu_type=GpuTypeName("h100"),
                                tensor_parallel=degree,
                                gpu_fraction=fraction,
                                replicas=replicas,
                            ),
                            capacity_per_s=12 / call_s,
                            points=tuple(
                                ProfilePoint(
                                    utilization=u,
                                    latency_s_mean=call_s * (1 + u * u / (1 - u) / replicas),
                                    latency_s_p95=2 * call_s * (1 + u * u / (1 - u)),
                                    ttft_s_mean=call_s / 10,
                                )
                                for u in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
                            ),
                            provenance=Provenance.SIMULATED,
                            source="made up",
                        )
                    )
    return ProfileSet(tuple(curves))


def plan(
    scene: Path, *options: str, traces: str = "traces.db", cluster: str = "cluster.yaml"
) -> Result:
    files = {"traces": traces, "profiles": "profiles.json", "cluster": cluster}
    given = [part for name, file in files.items() for part in (f"--{name}", str(scene / file))]
    return CliRunner().invoke(app, ["plan", *given, *options])


TWO_RATES = ("--rate", "beam-search=0.5", "--rate", "rag=1")


def test_the_tables_and_the_picture(scene: Path) -> None:
    result = plan(scene, *TWO_RATES, "--slo", "p95 <= 40s")

    assert result.exit_code == 0, result.output
    printed = "\n".join(line.rstrip() for line in result.stdout.splitlines()) + "\n"
    if os.environ.get("SCEPSY_UPDATE_GOLDEN"):
        GOLDEN.write_text(printed, encoding="utf-8")
    assert printed == GOLDEN.read_text(encoding="utf-8")


def test_json_on_stdout_is_the_plan_file(scene: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"

    result = plan(scene, *TWO_RATES, "--json", "--output", str(path))

    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == path.read_bytes()
    made = load_plan(path)
    assert {r.workflow: r.rate_per_s for r in made.rates} == {"beam-search": 0.5, "rag": 1.0}
    assert orjson.loads(result.stdout)["version"] == 1


def test_weights_and_whole_gpus(scene: Path) -> None:
    result = plan(scene, *TWO_RATES, "--weight", "rag=5", "--gpu-shares", "1", "--json")

    groups = orjson.loads(result.stdout)["plan"]["allocation"]["groups"]
    assert {group["gpu_fraction"] for group in groups} == {1.0}


@pytest.mark.parametrize(
    ("options", "files", "kind", "message"),
    [
        (("--rate", "beam-serch=1"), {}, UnknownNameError, "unknown workflow `beam-serch`"),
        (("--rate", "4"), {}, InputError, "does not say of which workflow: beam-search, rag"),
        (("--rate", "rag=fast"), {}, InputError, "`fast` is not a number"),
        (("--rate", "rag=-1"), {}, InputError, "rag: the rate must be > 0"),
        (("--rate", "rag=1", "--weight", "2"), {}, InputError, "`--weight 2` does not say"),
        (
            ("--rate", "rag=1", "--weight", "beam-search=2"),
            {},
            InputError,
            "a weight but no rate is given for: beam-search",
        ),
        (("--rate", "rag=1", "--slo", "fast"), {}, InputError, "`fast` is not an SLO"),
        (("--rate", "rag=1"), {"traces": "empty.db"}, MissingError, "no executions"),
        (("--rate", "4"), {"traces": "empty.db"}, MissingError, "no executions"),
        (("--rate", "rag=1"), {"traces": "none.db"}, MissingError, "no trace store at"),
        (("--rate", "rag=1"), {"cluster": "wrong.yaml"}, InputError, "line 4: .*count.*got -2"),
        (("--rate", "rag=1"), {"cluster": "none.yaml"}, MissingError, "no cluster file at"),
        (
            ("--rate", "rag=1"),
            {"cluster": "other.yaml"},
            MissingError,
            "stage `rag/embedder` has no profile on GPU type a100",
        ),
        (("--rate", "rag=1000"), {}, OverloadError, "8 GPUs do not sustain rag=1000/s"),
    ],
)
def test_what_cannot_be_planned_is_an_error_of_ours(
    scene: Path,
    options: tuple[str, ...],
    files: dict[str, str],
    kind: type[ScepsyError],
    message: str,
) -> None:
    result = plan(scene, *options, **files)

    assert isinstance(result.exception, kind)
    with pytest.raises(kind, match=message):
        raise result.exception
    assert result.stdout == ""


def test_an_infeasible_plan_exits_with_1_and_no_traceback(scene: Path) -> None:
    files = ("--traces", "traces.db", "--profiles", "profiles.json", "--cluster", "cluster.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "scepsy", "plan", *files, "--rate", "rag=50"],
        cwd=scene,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    words = " ".join(done.stderr.split())
    assert "`generator` saturates first" in words
    assert "lower the rates to rag=" in words
