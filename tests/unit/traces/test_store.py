import sqlite3
from pathlib import Path

import pytest

from scepsy.errors import InputError, MissingError, StoreError, UnknownNameError
from scepsy.model.execution import CallStatus, Endpoint
from scepsy.traces.store import SqliteTraceStore


@pytest.fixture
def store(tmp_path):
    with SqliteTraceStore.open(tmp_path / "traces.db") as opened:
        yield opened


def test_a_call_comes_back_as_it_was(store, make_call):
    call = make_call(
        1.25,
        3.5,
        role="planner",
        first_token_s=2.0,
        cached_tokens=0,
        status=CallStatus.CANCELLED,
        endpoint=Endpoint.RERANK,
        replica="m-0",
        block_tokens=16,
        prefix_blocks=(2**63 - 1, 0, -(2**63)),
        output_blocks=(7,),
    )

    assert store.append([call]) == 1

    assert store.execution("e").calls == (call,)


def test_appending_again_changes_nothing(store, make_call):
    calls = [make_call(0, 1), make_call(1, 2)]
    store.append(calls)

    assert store.append(calls) == 0
    assert store.execution("e").calls == tuple(calls)


def test_a_known_call_id_makes_no_empty_execution(store, make_call):
    store.append([make_call(0, 1, id="same")])

    assert store.append([make_call(0, 1, id="same", execution="other")]) == 0

    assert [execution.id for execution in store.executions()] == ["e"]


def test_executions_come_by_first_arrival_and_calls_by_start(store, make_call):
    late = make_call(5, 6, execution="a")
    store.append([late, make_call(3, 9, execution="b")])
    early = make_call(1, 2, execution="a")
    store.append([early])

    found = list(store.executions())

    assert [execution.id for execution in found] == ["a", "b"]
    assert found[0].calls == (early, late)


def test_executions_of_two_workflows_may_have_one_id(store, make_call):
    store.append([make_call(0, 1, workflow="v"), make_call(0, 1, workflow="w")])

    assert [execution.workflow for execution in store.executions()] == ["v", "w"]
    assert [execution.workflow for execution in store.executions("w")] == ["w"]
    assert store.execution("e", "v").workflow == "v"
    with pytest.raises(InputError, match="several workflows: v, w"):
        store.execution("e")


def test_blocks_can_be_left_out(store, make_call):
    store.append([make_call(0, 1, prefix_blocks=(1, 2), output_blocks=(3,))])

    (call,) = next(store.executions(with_blocks=False)).calls

    assert (call.prefix_blocks, call.output_blocks) == ((), ())


def test_a_growing_prompt_is_stored_once(store, make_call):
    """The store of 200 calls with up to 2,000 hashed blocks is near 8 bytes a new block."""
    ids = [hash(str(n)) >> 1 for n in range(2000)]
    calls = [make_call(n, n + 1, prefix_blocks=tuple(ids[: 10 * n])) for n in range(200)]
    for call in calls:
        store.append([call])
    store.close()

    assert store.path.stat().st_size < 150_000
    with SqliteTraceStore.open(store.path, create=False) as again:
        assert again.execution("e").calls == tuple(calls)


def test_a_summary_of_each_workflow(store, make_call):
    store.append(
        [
            make_call(2, 9, llm="b", execution="x"),
            make_call(1, 3, llm="a", execution="y"),
            make_call(4, 5, llm="a", workflow="v"),
        ]
    )

    second, first = reversed(store.workflows())

    assert (first.workflow, first.executions, first.calls) == ("v", 1, 1)
    assert (second.executions, second.calls, second.llms) == (2, 2, ("a", "b"))
    assert (second.first_s, second.last_s) == (1, 9)


def test_contents_are_kept_apart(store, make_call):
    store.append([make_call(0, 1, id="c")])
    store.append_content("c", b"question" * 100, b"")

    content = store.content("c")

    assert content is not None
    assert (content.request, content.response) == (b"question" * 100, b"")
    assert store.content("none") is None


def test_a_failed_append_stores_nothing_and_the_next_one_works(store, make_call):
    store.append([make_call(0, 1, prefix_blocks=(1, 2))])
    good = make_call(1, 2, prefix_blocks=(1, 2, 3))
    with pytest.raises(InputError, match="64-bit"):
        store.append([good, make_call(2, 3, prefix_blocks=(2**63,))])

    assert len(store.execution("e").calls) == 1
    store.append([good])
    assert store.execution("e").calls[1] == good


def test_a_full_disk_is_said_and_what_was_stored_stays(store, make_call):
    store.append([make_call(0, 1)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    big = make_call(1, 2, prefix_blocks=tuple(hash(str(n)) >> 1 for n in range(5000)))

    with pytest.raises(StoreError, match="full"):
        store.append([big])

    assert len(store.execution("e").calls) == 1
    store._connection.execute("PRAGMA max_page_count = 100000")
    assert store.append([big]) == 1


def test_a_reader_sees_what_is_appended_meanwhile(store, make_call):
    store.append([make_call(0, 1)])
    with SqliteTraceStore.open(store.path, create=False) as reader:
        store.append([make_call(1, 2), make_call(0, 1, execution="f")])

        assert [len(execution.calls) for execution in reader.executions()] == [2, 1]


def test_two_writers_do_not_spoil_each_others_blocks(store, make_call):
    calls = [make_call(n, n + 1, prefix_blocks=tuple(range(n + 1))) for n in range(6)]
    with SqliteTraceStore.open(store.path) as other:
        for n, call in enumerate(calls):
            (other if n % 2 else store).append([call])

    assert store.execution("e").calls == tuple(calls)


def test_no_file(tmp_path):
    with pytest.raises(MissingError, match="no trace store at") as error:
        SqliteTraceStore.open(tmp_path / "none.db", create=False)
    assert "traces import" in (error.value.hint or "")
    assert not (tmp_path / "none.db").exists()


def _text(path: Path) -> None:
    path.write_text("not a database, but long enough to have a header " * 20)


def _other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()


@pytest.mark.parametrize("make", [_text, _other_database, Path.mkdir])
def test_a_file_that_is_no_trace_store(tmp_path, make):
    path = tmp_path / "x.db"
    make(path)

    with pytest.raises(InputError, match="not a trace store"):
        SqliteTraceStore.open(path)


def test_a_store_of_a_later_version(store):
    store._connection.execute("PRAGMA user_version = 99")
    store.close()

    with pytest.raises(InputError, match="version 99"):
        SqliteTraceStore.open(store.path)


def test_an_empty_store_says_how_to_fill_it(store):
    assert store.workflows() == ()
    with pytest.raises(MissingError, match="has no executions") as error:
        store.select()
    assert "traces import" in (error.value.hint or "")


def test_unknown_names(store, make_call):
    store.append([make_call(0, 1, workflow="beam-search")])

    assert [summary.workflow for summary in store.select("beam-search")] == ["beam-search"]
    with pytest.raises(UnknownNameError, match="beam-serch") as error:
        store.select("beam-serch")
    assert "beam-search" in (error.value.hint or "")
    with pytest.raises(MissingError, match="no execution `nope`"):
        store.execution("nope")
