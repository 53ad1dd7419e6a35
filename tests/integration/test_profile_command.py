"""``scepsy profile`` from a trace store to a profile file, in this process."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scepsy.cli.main import app
from scepsy.errors import InfeasibleError, InputError, MissingError, ScepsyError, UnknownNameError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.silicon_fit.step_weights import OTHER_LLM_ERROR_FRACTION
from scepsy.profiles.store import load_profiles
from scepsy.traces.store import SqliteTraceStore

STAGE = Stage(WorkflowName("rag"), LlmName("qwen3-8b"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "traces.db"
    with SqliteTraceStore.open(path) as traces:
        traces.append(
            [
                Call(
                    id=CallId(str(n)),
                    execution=ExecutionId(str(n)),
                    workflow=STAGE.workflow,
                    llm=STAGE.llm,
                    start_s=float(n),
                    end_s=n + 0.5,
                    prompt_tokens=200,
                    output_tokens=20,
                )
                for n in range(20)
            ]
        )
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def quick(store: Path, output: Path, *arguments: str) -> Result:
    shape = ("--tp", "1", "--fraction", "1", "--replicas", "1", "--jobs", "1")
    return run("--traces", store, "--output", output, *shape, *arguments)


def error(result: Result) -> ScepsyError:
    assert result.exit_code == 1
    assert isinstance(result.exception, ScepsyError)
    return result.exception


def test_profiles_are_written_and_join_those_that_were_there(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "profiles.json"
    first = quick(store, output, "--json")
    assert first.exit_code == 0, first.output
    printed = json.loads(first.stdout)
    curve = load_profiles(output).curve(STAGE, GpuTypeName("h100"), 1, 1.0, 1)
    assert curve is not None
    assert curve.provenance is Provenance.SIMULATED
    assert printed[0]["capacity_per_s"] == curve.capacity_per_s
    second = quick(store, output, "--tp", "2")
    assert second.exit_code == 0, second.output
    assert "rag/qwen3-8b" in second.stdout
    assert "from engine model" in second.stderr
    assert [c.key.tensor_parallel for c in load_profiles(output).curves] == [1, 2]


def test_several_processes_give_what_one_gives(store: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert quick(store, one).exit_code == 0
    assert quick(store, two, "--jobs", "2").exit_code == 0
    assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_profiled_is_said(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "profiles.json"
    assert isinstance(error(quick(store, output, "--gpu", "h1000")), UnknownNameError)
    assert isinstance(error(quick(store, output, "--map", "gpt=qwen3-8b")), UnknownNameError)
    assert isinstance(error(quick(store, output, "--map", "qwen3-8b=gpt-9")), UnknownNameError)
    assert isinstance(error(quick(store, output, "--fraction", "0.1")), InfeasibleError)
    assert isinstance(error(quick(store, output, "--fraction", "2")), InputError)
    assert isinstance(error(quick(store, output, "--tp", "one")), InputError)
    assert isinstance(error(quick(store, output, "--speedup", "2")), InputError)
    assert isinstance(error(quick(store, output, "--workflow", "none")), ScepsyError)
    empty = tmp_path / "empty.db"
    SqliteTraceStore.open(empty).close()
    assert isinstance(error(quick(empty, output)), MissingError)
    assert not output.exists()


def test_an_llm_without_published_step_times_is_profiled_by_the_fit(
    store: Path, tmp_path: Path
) -> None:
    """An LLM given by its architecture; the error bar goes into the profile, and is printed."""
    config = tmp_path / "config.json"
    config.write_text(
        '{"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 32,'
        ' "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,'
        ' "intermediate_size": 14336, "torch_dtype": "bfloat16"}',
        encoding="utf-8",
    )
    output = tmp_path / "profiles.json"
    result = quick(store, output, f"--map=qwen3-8b={config}")
    assert result.exit_code == 0, result.output
    curve = load_profiles(output).curve(STAGE, GpuTypeName("h100"), 1, 1.0, 1)
    assert curve is not None
    assert curve.provenance is Provenance.EXTRAPOLATED
    assert curve.error_fraction == OTHER_LLM_ERROR_FRACTION
    assert f"extrapolated ±{OTHER_LLM_ERROR_FRACTION:.0%}" in result.stdout
