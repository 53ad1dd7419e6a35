import gzip
import json
import sys

import pytest

from scepsy.errors import InputError, MissingError, UnknownNameError
from scepsy.model.execution import Execution
from scepsy.traces.files import export, find_format, import_file, trace_files
from scepsy.traces.store import SqliteTraceStore


@pytest.fixture
def store(tmp_path):
    with SqliteTraceStore.open(tmp_path / "traces.db") as opened:
        yield opened


@pytest.fixture
def executions(make_call):
    """40 executions of 5 calls, each prompt extending the one before."""
    return [
        Execution(
            f"e{n:02}",
            "w",
            tuple(
                make_call(
                    n + at, n + at + 0.5, execution=f"e{n:02}", prefix_blocks=tuple(range(9 * at))
                )
                for at in range(5)
            ),
        )
        for n in range(40)
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_what_is_exported_is_imported_again(tmp_path, store, executions, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    seen: list[int] = []

    assert export(path, executions) == 200
    report = import_file(store, path, on_bytes=seen.append)

    assert (report.executions, report.calls, report.new_calls, report.lost) == (40, 200, 200, ())
    assert report.format == name.split(".")[1]
    assert list(store.executions()) == executions
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size == report.file_bytes


def test_importing_twice_adds_nothing(tmp_path, store, executions):
    path = tmp_path / "t.jsonl"
    export(path, executions)
    import_file(store, path)

    again = import_file(store, path)

    assert (again.calls, again.new_calls) == (200, 0)


def test_a_cut_line_is_lost_and_all_before_it_kept(tmp_path, store, executions):
    path = tmp_path / "t.jsonl"
    export(path, executions)
    path.write_bytes(path.read_bytes()[:-20])

    report = import_file(store, path)

    assert report.calls == 199
    assert [lost.line for lost in report.lost] == [200]
    assert "EOF" in report.lost[0].reason


def test_a_damaged_line_loses_only_itself_and_those_that_build_on_it(tmp_path, store, executions):
    path = tmp_path / "t.jsonl"
    export(path, executions)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = b"\x00 garbage \xff\n"
    path.write_bytes(b"".join(lines))

    report = import_file(store, path)

    assert [lost.line for lost in report.lost] == [4, 5]
    assert "base call" in report.lost[1].reason
    assert report.calls == 198


def test_a_cut_gzip_file_gives_its_whole_lines(tmp_path, store, executions):
    path = tmp_path / "t.jsonl.gz"
    export(path, executions)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    report = import_file(store, path)

    (lost,) = report.lost
    assert 50 < report.calls < 150
    assert lost.line == report.calls + 1
    assert "breaks off" in lost.reason


def _bad_deflate(data: bytes) -> bytes:
    return gzip.compress(data) + gzip.compress(data)[:10] + b"\xff" * 100


def _bad_checksum(data: bytes) -> bytes:
    return gzip.compress(data)[:-8] + bytes(8)


@pytest.mark.parametrize("damage", [_bad_deflate, _bad_checksum])
def test_a_damaged_gzip_file_gives_its_whole_lines(tmp_path, store, executions, damage):
    path = tmp_path / "t.jsonl"
    export(path, executions)
    path.write_bytes(damage(path.read_bytes()))

    report = import_file(store, path)

    (lost,) = report.lost
    assert report.calls == 200
    assert (lost.line, "breaks off" in lost.reason) == (201, True)


def test_nothing_whole_is_an_error(tmp_path, store):
    path = tmp_path / "t.jsonl"
    path.write_text('{"execution": "e", "workflow": "w", "llm": "m", "start_s": 0}\n' * 3)

    with pytest.raises(InputError, match=r"no call of it is whole, 3 lines are lost.*line 1: id"):
        import_file(store, path)


@pytest.mark.parametrize("content", [b"hello\n", b'{"a": 1}\n[1]\n', b"\x1f\x8b junk", b"\xff\xfe"])
def test_an_unknown_format_lists_the_known(tmp_path, content):
    path = tmp_path / "t.txt"
    path.write_bytes(content)

    with pytest.raises(InputError, match="known trace format") as error:
        find_format(path)
    assert "claude-code, chatdev, jsonl, parquet" in (error.value.hint or "")


def test_formats_are_found_by_content(tmp_path):
    path = tmp_path / "any.name"
    path.write_text("cut\n" + json.dumps({"session": "s", "steps": []}) + "\n")
    assert find_format(path) == "chatdev"
    path.write_text(json.dumps({"id": "s", "requests": [], "hash_id_scope": "local"}))
    assert find_format(path) == "claude-code"


def test_an_empty_file(tmp_path, store):
    path = tmp_path / "t.jsonl"
    path.touch()

    with pytest.raises(InputError, match="is empty"):
        import_file(store, path)


def test_an_unknown_format_name(tmp_path, store):
    path = tmp_path / "t.jsonl"
    path.write_text("{}")

    with pytest.raises(UnknownNameError, match="chatdef"):
        import_file(store, path, format_name="chatdef")


def test_a_parquet_file_that_is_cut(tmp_path, store, executions):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    export(path, executions)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(InputError, match="not a whole Parquet file"):
        import_file(store, path)


def test_a_bad_parquet_row_loses_only_itself(tmp_path, store, executions):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    export(path, executions)
    table = parquet.read_table(path)
    rows = table.to_pylist()
    rows[3]["prompt_tokens"] = -1
    parquet.write_table(table.from_pylist(rows), path)

    report = import_file(store, path)

    assert report.calls == 199
    assert [(lost.line, lost.reason.split(":")[0]) for lost in report.lost] == [
        (4, "prompt_tokens")
    ]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, executions, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingError, match="pyarrow") as error:
        export(tmp_path / "t.parquet", executions)
    assert "scepsy[parquet]" in (error.value.hint or "")


def test_a_folder_gives_its_trace_files(tmp_path):
    folder = tmp_path / "traces"
    folder.mkdir()
    with pytest.raises(InputError, match="has no trace files"):
        trace_files(folder)
    for name in ("b.jsonl.gz", "a.jsonl", "LICENSE"):
        (folder / name).touch()

    assert [path.name for path in trace_files(folder)] == ["a.jsonl", "b.jsonl.gz"]
    with pytest.raises(InputError, match="no file or folder"):
        trace_files(tmp_path / "none")


def test_export_needs_a_known_ending_and_a_place(tmp_path, executions):
    with pytest.raises(InputError, match=r"`t\.csv`"):
        export(tmp_path / "t.csv", executions)
    with pytest.raises(InputError, match="cannot write"):
        export(tmp_path / "none" / "t.jsonl", executions)
