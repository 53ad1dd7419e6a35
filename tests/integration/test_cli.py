"""The command line as a user meets it: real processes, real exit codes."""

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from scepsy import __version__
from scepsy.engines.tiny_model import write_tiny_model
from tools.build_docs import commands

ROOT = Path(__file__).parents[2]
COMMANDS = [name.removeprefix("scepsy ").split() for name, _ in commands()]


def scepsy(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "scepsy", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", **env},
    )


def test_help_is_fast_because_heavy_modules_are_imported_late() -> None:
    """In processor time: a busy machine makes it wait, and that is not its fault."""
    before = os.times()
    done = scepsy("--help")
    after = os.times()
    assert done.returncode == 0
    assert "Plan and serve agentic workflows" in done.stdout
    used_s = after.children_user - before.children_user
    assert used_s + after.children_system - before.children_system < 1.0
    heavy = "numpy", "aiohttp", "pyarrow", "matplotlib", "pydantic", "langgraph"
    found = f"import sys, scepsy.cli.main; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", found], check=True, capture_output=True, text=True
    )
    assert loaded.stdout.strip() == "[]"


def test_version_is_that_of_the_package() -> None:
    done = scepsy("--version")
    assert (done.returncode, done.stdout) == (0, f"scepsy {__version__}\n")


def test_every_command_is_listed() -> None:
    listed = scepsy("--help").stdout
    assert [name for name, *_ in COMMANDS if f" {name} " not in listed] == []


def test_completion_knows_commands_and_options() -> None:
    def complete(**env: str) -> str:
        command = [str(Path(sys.executable).with_name("scepsy"))]  # completion goes by its name
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env={**os.environ, **env}
        )
        return done.stdout

    assert "_SCEPSY_COMPLETE=complete_bash" in complete(_SCEPSY_COMPLETE="source_bash")
    wanted = {"_SCEPSY_COMPLETE": "complete_bash", "COMP_WORDS": "scepsy tr", "COMP_CWORD": "1"}
    assert complete(**wanted).split() == ["traces"]
    wanted["COMP_WORDS"], wanted["COMP_CWORD"] = "scepsy plan --sl", "2"
    assert complete(**wanted).split() == ["--slo"]


def test_no_command_prints_help() -> None:
    done = scepsy()
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demand", "absent.db"], "absent.db"),
        (["traces", "ls", "absent.db"], "absent.db"),
        (["traces", "import", "absent.jsonl", "--store", "new.db"], "absent.jsonl"),
        (["deploy", "local", "absent.json"], "absent.json"),
        (["gateway", "--replica", "no-url"], "no-url"),
        (["gateway", "--replica", "m=http://127.0.0.1:1", "--policy", "best"], "best"),
        (["engine", "--model", "gpt-17"], "gpt-17"),
        (["engine"], "no LLM"),
        (["engine", "--real", "absent.gguf"], "absent.gguf"),
        (["profile", "--traces", "absent.db"], "absent.db"),
        (
            [
                "plan",
                "--traces",
                "absent.db",
                "--profiles",
                "p.json",
                "--cluster",
                "c.yaml",
                "--rate",
                "1",
            ],
            "c.yaml",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_bad_input_gives_a_reason_and_no_traceback(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scepsy", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_is_not_understood_exits_with_2() -> None:
    done = scepsy("plan", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    calls = [
        {"execution": f"run-{run}", "workflow": "w", "llm": llm, "start_s": start, "end_s": end}
        | {"id": f"{run}-{llm}", "prompt_tokens": 100, "output_tokens": 10}
        for run in range(3)
        for llm, start, end in (("a", 0.0, 1.0), ("b", 1.5, 2.5))
    ]
    file, store = tmp_path / "calls.jsonl", str(tmp_path / "traces.db")
    file.write_text("".join(json.dumps(call) + "\n" for call in calls))
    imported = scepsy("traces", "import", str(file), "--store", store, "--json")
    assert imported.returncode == 0, imported.stderr
    json.loads(imported.stdout)
    for command in (["demand", store], ["traces", "ls", store], ["traces", "show", store, "run-1"]):
        done = scepsy(*command, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


def test_a_reader_that_leaves_early_is_no_failure_of_ours() -> None:
    command = f"{sys.executable} -m scepsy --help | true"
    done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


@pytest.mark.real
def test_a_real_engine_announces_itself_and_leaves_on_sigterm(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra `real` is not installed")
    model = write_tiny_model(tmp_path / "tiny.gguf")
    command = [sys.executable, "-m", "scepsy", "engine", "--real", str(model), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        ready = json.loads(engine.stdout.readline())
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(timeout=10) == 0
    assert ready["model"] == "tiny"
    assert ready["url"].startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_a_bare_install_runs(tmp_path: Path) -> None:
    """With no extra and no development tool beside it."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", constraints, str(ROOT)],
        check=True,
        timeout=110,
    )
    command = str(tmp_path / "venv" / "bin" / "scepsy")
    for arguments in (["--version"], ["--help"], *([*name, "--help"] for name in COMMANDS)):
        done = subprocess.run([command, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    missing = subprocess.run(
        [command, "engine", "--real", str(ROOT / "README.md")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert missing.returncode == 1
    assert "scepsy[real]" in missing.stderr
