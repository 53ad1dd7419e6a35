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


def test_what_surrounds_a_plan_is_printed(scene: Path) -> None:
    result = plan(scene, *TWO_RATES, "--best", "3", "--why", "--prove")

    assert result.exit_code == 0, result.output
    printed = " ".join(result.stdout.split())
    assert "Best plans" in printed
    assert "+0.00%" in printed
    assert "With 1 GPU less than it touches: " in printed
    assert "Why each LLM has its TP" in printed
    assert "placement: 8 GPUs touched, proven least; 0 left part free, proven least" in " ".join(
        result.stderr.split()
    )


def test_everything_is_there_as_json(scene: Path) -> None:
    result = plan(scene, *TWO_RATES, "--best", "2", "--why", "--json")

    shown = orjson.loads(result.stdout)
    assert set(shown) == {"plan", "best", "why"}
    assert shown["best"][0] == shown["plan"]
    assert {a["llm"] for a in shown["why"]["alternatives"]} == {"generator", "verifier"}


@pytest.mark.parametrize("ending", [".svg", ".html", ".png"])
def test_the_frontier_is_a_table_and_a_picture(scene: Path, tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"frontier{ending}"

    result = plan(scene, *TWO_RATES, "--frontier", "--picture", str(picture))

    assert result.exit_code == 0, result.output
    assert "Throughput and latency" in result.stdout
    drawn = picture.read_bytes()
    assert drawn.startswith(b"\x89PNG") or b"<svg" in drawn


def test_goals_and_limits_reach_the_planner(scene: Path, tmp_path: Path) -> None:
    limits = tmp_path / "limits.yaml"
    limits.write_text("llms:\n  generator: {tensor_parallel: 2, share: false}\nfree_gpus: 1\n")

    def planned(*options: str) -> dict[str, object]:
        result = plan(scene, *TWO_RATES, *options, "--json")
        assert result.exit_code == 0, result.output
        made: dict[str, object] = orjson.loads(result.stdout)["plan"]
        return made

    def groups(made: dict[str, object]) -> dict[str, dict[str, object]]:
        return {g["llm"]: g for g in made["allocation"]["groups"]}  # type: ignore[index]

    limited = groups(planned("--limits", str(limits)))["generator"]
    assert (limited["tensor_parallel"], limited["gpu_fraction"]) == (2, 1.0)
    pinned = groups(
        planned("--pin", "generator=4", "--alone", "all", "--min-replicas", "verifier=2")
    )
    assert pinned["generator"]["tensor_parallel"] == 4
    assert pinned["verifier"]["replicas"] >= 2  # type: ignore[operator]
    whole = groups(planned("--target", "whole-gpus", "--survive", "1 node"))
    assert all(group["gpu_fraction"] == 1 and group["replicas"] >= 2 for group in whole.values())  # type: ignore[operator]
    told = plan(scene, *TWO_RATES, "--target", "whole-gpus", "--survive", "1 node").stdout
    assert "the worst to lose: mean latency" in told
    fewest = planned("--goal", "gpus", "--slo", "mean <= 60s")
    used = {gpu for r in fewest["placement"]["replicas"] for gpu in r["gpus"]}  # type: ignore[index]
    assert len(used) < 8
    planned("--objective", "max-min")


def test_a_running_plan_is_changed_step_by_step(scene: Path, tmp_path: Path) -> None:
    running = tmp_path / "running.json"
    plan(scene, *TWO_RATES, "--output", str(running))

    same = plan(scene, *TWO_RATES, "--from", str(running))
    assert "Steps: none, the running plan stays" in same.stdout
    other = plan(scene, *TWO_RATES, "--pin", "generator=1", "--from", str(running))
    assert other.exit_code == 0, other.output
    assert " stay, " in other.stdout
    assert "1. " in other.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--goal", "speed"), "there is no such goal"),
        (("--pin", "generator"), "`--pin generator` is not an LLM and a number"),
        (("--survive", "2 nodes"), "is not what a plan can survive"),
        (("--goal", "cost"), "GPU type h100 has no price"),
        (("--goal", "gpus", "--best", "2"), "has one best plan"),
        (("--picture", "x.svg"), "draws the frontier"),
        (("--frontier", "--picture", "x.txt"), "cannot draw to x.txt"),
    ],
)
def test_options_that_contradict_are_errors_of_ours(
    scene: Path, options: tuple[str, ...], message: str
) -> None:
    result = plan(scene, *TWO_RATES, *options)

    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=message):
        raise result.exception
