"""Trace files and stores through the command line, and the published data sets where present."""

import gzip
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from scepsy.model.execution import Call
from scepsy.traces.demand import demand, demands
from scepsy.traces.files import import_file
from scepsy.traces.store import SqliteTraceStore

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SCEPSY_DATA", ROOT.parent / "shared" / "data"))
CHATDEV = DATA / "chatdev" / "sessions.jsonl.gz"
CLAUDE_CODE = DATA / "claude_code" / "sessions.jsonl.gz"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not path.exists(), reason=f"no {path}; set SCEPSY_DATA to the folder of public traces"
    )


def scepsy(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from scepsy.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def call(number: int, execution: str = "e", llm: str = "m") -> Call:
    return Call(
        id=f"{execution}/{number}",
        execution=execution,
        workflow="beam-search",
        llm=llm,
        start_s=float(number),
        end_s=number + 0.5,
        prompt_tokens=100,
        output_tokens=10,
        prefix_blocks=tuple(range(number + 1)),
    )


@pytest.fixture
def traces(tmp_path) -> Path:
    path = tmp_path / "traces.db"
    with SqliteTraceStore.open(path) as store:
        for execution in ("one", "two"):
            store.append([call(n, execution, "mn"[n % 2]) for n in range(4)])
    return path


def test_ls_show_and_demand_print_what_is_there(traces):
    listed = scepsy("traces", "ls", traces, "--json")
    assert [(w["workflow"], w["executions"], w["calls"]) for w in json.loads(listed.stdout)] == [
        ("beam-search", 2, 8)
    ]
    assert "one" in scepsy("traces", "ls", traces, "--executions").stdout

    shown = scepsy("traces", "show", traces, "one").stdout
    assert "4 calls in 3.50 s, 1.50 s without a call" in " ".join(shown.split())
    assert shown.count("█") > 20
    detail = json.loads(scepsy("traces", "show", traces, "one", "--json").stdout)
    assert len(detail["structure"]["critical_path"]) == 4

    (found,) = json.loads(scepsy("demand", traces, "--json").stdout)
    assert [(s["stage"]["llm"], s["calls_per_execution"]) for s in found["stages"]] == [
        ("m", 2.0),
        ("n", 2.0),
    ]
    assert "0.50 (0.00" in scepsy("demand", traces).stdout


def test_export_and_import_round_trip(traces, tmp_path):
    file, again = tmp_path / "t.jsonl.gz", tmp_path / "again.db"
    assert scepsy("traces", "export", traces, file).returncode == 0

    result = scepsy("traces", "import", file, "--store", again, "--json")

    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)[0]["calls"] == 8
    with SqliteTraceStore.open(traces) as left, SqliteTraceStore.open(again) as right:
        assert list(left.executions()) == list(right.executions())


def test_a_truncated_file_is_a_warning_and_a_hopeless_one_an_error(traces, tmp_path):
    cut, junk, store = tmp_path / "cut.jsonl", tmp_path / "junk.jsonl", tmp_path / "s.db"
    scepsy("traces", "export", traces, cut)
    cut.write_bytes(cut.read_bytes()[:-10])
    junk.write_text("[broken\n")

    warned = scepsy("traces", "import", cut, "--store", store)
    assert warned.returncode == 0
    assert "1 line lost, 7 calls kept" in " ".join(warned.stderr.split())
    assert "line 8:" in warned.stderr

    failed = scepsy("traces", "import", junk, cut, "--store", tmp_path / "s2.db")
    assert failed.returncode == 1
    assert "known trace format" in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
    assert "7" in failed.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demand", "empty.db"], "has no executions"),
        (["traces", "ls", "empty.db"], "has no executions"),
        (["traces", "show", "empty.db", "x"], "has no executions"),
        (["traces", "export", "empty.db", "x.jsonl"], "has no executions"),
        (["demand", "none.db"], "no trace store at"),
        (["demand", "text.db"], "not a trace store"),
        (["demand", "traces.db", "--workflow", "beam"], "unknown workflow `beam`"),
        (["traces", "show", "traces.db", "three"], "no execution `three`"),
        (["traces", "import", "none.jsonl", "--store", "x.db"], "no file or folder"),
        (["traces", "import", "text.db", "--store", "x.db", "--format", "x"], "unknown trace form"),
    ],
)
def test_bad_input_is_said_without_a_traceback(traces, monkeypatch, arguments, message):
    monkeypatch.chdir(traces.parent)
    SqliteTraceStore.open("empty.db").close()
    Path("text.db").write_text("nothing like a database " * 100)

    result = scepsy(*arguments)

    assert result.returncode == 1
    said = " ".join(result.stderr.split())
    assert message in said
    assert "hint:" in said or "not a trace store" in said or "no file" in said
    assert "Traceback" not in said
    assert result.stdout == ""


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from test_trace_files import call
from scepsy.traces.store import SqliteTraceStore
with SqliteTraceStore.open(sys.argv[1]) as store:
    for number in range(100000):
        store.append([call(number % 50, f"e{number // 50}")])
        if number == 100:
            print("writing", flush=True)
"""


def test_a_store_is_read_while_it_is_written_and_after_its_writer_is_killed(tmp_path):
    path = tmp_path / "t.db"
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), here], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        with SqliteTraceStore.open(path, create=False) as reader:
            seen = [sum(len(e.calls) for e in reader.executions()) for _ in range(5)]
        writer.kill()

    assert seen == sorted(seen)
    assert seen[0] > 100
    with SqliteTraceStore.open(path) as store:
        found = list(store.executions())
        assert sum(len(e.calls) for e in found) >= seen[-1]
        assert all(c == call(n, e.id) for e in found for n, c in enumerate(e.calls))
        assert store.append([call(0, "after")]) == 1


@needs(CHATDEV)
def test_chatdev_is_read_whole(tmp_path):
    with SqliteTraceStore.open(tmp_path / "t.db") as store:
        report = import_file(store, CHATDEV)
        (found,) = demands(store)

    assert (report.executions, report.calls, report.lost) == (38, 894, ())
    assert report.format == "chatdev"
    shares = {stage.stage.role: stage.output_share for stage in found.stages}
    programmer = shares["Programmer"]
    assert programmer is not None
    assert 0.5 < programmer.mean < 0.7
    assert 0.1 < programmer.sd < 0.25
    assert {"Code Reviewer", "Chief Technology Officer", "Prompt Engineer"} <= shares.keys()


def first_sessions(count: int) -> list[bytes]:
    with gzip.open(CLAUDE_CODE) as file:
        return [line for line, _ in zip(file, range(count), strict=False)]


@needs(CLAUDE_CODE)
def test_coding_sessions_keep_their_block_structure(tmp_path):
    """97 % of a prompt's blocks were in the call before, as published; sub-agents run beside."""
    path = tmp_path / "few.jsonl"
    path.write_bytes(b"".join(first_sessions(10)))
    with SqliteTraceStore.open(tmp_path / "t.db") as store:
        report = import_file(store, path)
        found = list(store.executions())

    assert (report.executions, report.lost) == (10, ())
    shared = total = 0
    for execution in found:
        main = [c for c in execution.calls if c.role == "main"]
        for before, after in pairwise(main):
            shared += len(set(before.prefix_blocks) & set(after.prefix_blocks))
            total += len(after.prefix_blocks)
    assert shared / total > 0.9
    roles = {stage.stage.role for stage in demand(found).stages}
    assert roles == {"main", "subagent"}


@pytest.mark.slow
@needs(CLAUDE_CODE)
def test_coding_sessions_are_read_whole_fast_and_small(tmp_path):
    path = tmp_path / "t.db"
    start_s = time.perf_counter()
    with SqliteTraceStore.open(path) as store:
        report = import_file(store, CLAUDE_CODE)
        (found,) = demands(store)
    took_s = time.perf_counter() - start_s

    assert (report.executions, report.calls, report.lost) == (365, 25090, ())
    assert path.stat().st_size < 10e6
    assert took_s < 60
    assert sum(stage.time_share.mean for stage in found.stages) == pytest.approx(1)
