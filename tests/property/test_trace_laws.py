"""Laws of recorded executions: nothing is lost on the way, and demand adds up."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scepsy.model.execution import Call, CallStatus, Endpoint, Execution
from scepsy.traces.blocks import common_prefix, pack_blocks, unpack_blocks
from scepsy.traces.demand import demand
from scepsy.traces.files import export, import_file
from scepsy.traces.store import SqliteTraceStore
from scepsy.traces.structure import structure, total_s

block_ids = st.integers(-(2**63), 2**63 - 1)
instants_s = st.floats(-1e9, 1e9)
durations_s = st.one_of(st.just(0.0), st.floats(0, 1e4))
tokens = st.integers(0, 2**40)
maybe_tokens = st.one_of(st.none(), tokens)
names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
few_blocks = st.lists(st.integers(0, 3), max_size=6).map(tuple)
blocks = st.one_of(few_blocks, st.lists(block_ids, max_size=8).map(tuple))

on_files = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def calls_of(draw, execution: str, number: int) -> Call:
    start_s = draw(instants_s)
    first_s = start_s + draw(durations_s)
    return Call(
        id=f"{execution}/{number}",
        execution=execution,
        workflow="w",
        llm=draw(st.sampled_from(["m", "n"]) | names),
        role=draw(st.sampled_from(["", "judge"]) | names),
        start_s=start_s,
        first_token_s=draw(st.none() | st.just(first_s)),
        end_s=first_s + draw(durations_s),
        prompt_tokens=draw(tokens),
        output_tokens=draw(tokens),
        cached_tokens=draw(maybe_tokens),
        endpoint=draw(st.sampled_from(Endpoint)),
        status=draw(st.sampled_from(CallStatus)),
        replica=draw(st.none() | names),
        block_tokens=draw(st.integers(1, 512)),
        prefix_blocks=draw(blocks),
        output_blocks=draw(blocks),
    )


@st.composite
def executions(draw, *, min_calls: int = 1) -> list[Execution]:
    count = draw(st.integers(1, 4))
    made = []
    for number in range(count):
        size = draw(st.integers(min_calls, 6))
        calls = [draw(calls_of(f"e{number}", at)) for at in range(size)]
        made.append(
            Execution(f"e{number}", "w", tuple(sorted(calls, key=lambda call: call.start_s)))
        )
    return made


@st.composite
def timed_executions(draw) -> list[Execution]:
    """Executions near one another in time, all calls well, to look at their shape."""
    made = []
    for number in range(draw(st.integers(1, 5))):
        calls = []
        for at in range(draw(st.integers(1, 7))):
            start_s = draw(st.integers(0, 40)) / 4
            calls.append(
                Call(
                    id=f"e{number}/{at}",
                    execution=f"e{number}",
                    workflow="w",
                    llm=draw(st.sampled_from("abc")),
                    start_s=start_s,
                    end_s=start_s + draw(st.integers(0, 20)) / 4,
                    prompt_tokens=draw(st.integers(0, 1000)),
                    output_tokens=draw(st.integers(0, 1000)),
                )
            )
        made.append(Execution(f"e{number}", "w", tuple(sorted(calls, key=lambda c: c.start_s))))
    return made


def by_id(found) -> dict[str, Execution]:
    return {execution.id: execution for execution in found}


@given(st.lists(block_ids).map(tuple))
def test_blocks_unpack_to_what_was_packed(ids):
    assert unpack_blocks(pack_blocks(ids)) == ids


@given(few_blocks, few_blocks)
def test_common_prefix_is_common_and_longest(left, right):
    length = common_prefix(left, right)

    assert left[:length] == right[:length]
    assert left[length : length + 1] != right[length : length + 1] or length == len(left)


@on_files
@given(executions(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_store_gives_back_every_call(tmp_path_factory, wanted, batch, random):
    """Whatever the order of arrival and the size of transactions."""
    calls = [call for execution in wanted for call in execution.calls]
    random.shuffle(calls)
    with SqliteTraceStore.open(tmp_path_factory.mktemp("s") / "t.db") as store:
        for at in range(0, len(calls), batch):
            store.append(calls[at : at + batch])
        found = list(store.executions())

        assert [e.start_s for e in found] == sorted(e.start_s for e in wanted)
        assert {e.id: set(e.calls) for e in found} == {e.id: set(e.calls) for e in wanted}
        assert sum(summary.calls for summary in store.workflows()) == len(calls)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
@on_files
@given(wanted=executions())
def test_files_give_back_every_call(tmp_path_factory, suffix, wanted):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("f")
    path = folder / f"t.{suffix}"

    written = export(path, wanted)
    with SqliteTraceStore.open(folder / "t.db") as store:
        report = import_file(store, path)
        found = by_id(store.executions())

    assert written == report.calls == sum(len(execution.calls) for execution in wanted)
    assert report.lost == ()
    assert {k: set(e.calls) for k, e in found.items()} == {e.id: set(e.calls) for e in wanted}


@given(timed_executions())
def test_demand_adds_up(recorded):
    found = demand(recorded)

    calls = [call for execution in recorded for call in execution.calls]
    assert sum(s.time_share.mean for s in found.stages) == pytest.approx(1)
    outputs = [s.output_share.mean for s in found.stages if s.output_share]
    assert not outputs or sum(outputs) == pytest.approx(1)
    total = sum(s.calls_per_execution for s in found.stages) * len(recorded)
    assert total == pytest.approx(len(calls))
    for stage in found.stages:
        own = [call for call in calls if call.stage == stage.stage]
        assert stage.calls_per_execution * len(recorded) == pytest.approx(len(own))
        assert stage.call_s_mean * len(own) == pytest.approx(sum(c.e2e_s for c in own))
        assert stage.calls.p5 <= stage.calls.p95
        assert 0 <= stage.time_share.p5 <= stage.time_share.p95 <= 1


@given(timed_executions())
def test_fan_out_is_work_over_busy_time_and_never_under_one(recorded):
    found = demand(recorded)

    for at, stage in enumerate(found.stages):
        busy_s = sum(execution.busy_s[at] for execution in found.executions)
        work_s = stage.call_s_mean * stage.calls_per_execution * len(recorded)
        peaks = [
            activity.peak_parallel
            for execution in recorded
            for activity in structure(execution).stages
            if activity.stage == stage.stage
        ]
        assert 1 <= stage.fan_out <= max(peaks) + 1e-9
        assert busy_s * stage.fan_out == pytest.approx(work_s)


@given(timed_executions(), st.randoms(use_true_random=False))
def test_demand_does_not_depend_on_the_order_of_executions(recorded, random):
    shuffled = list(recorded)
    random.shuffle(shuffled)

    first, second = demand(recorded), demand(shuffled)

    assert [s.stage for s in first.stages] == [s.stage for s in second.stages]
    for a, b in zip(first.stages, second.stages, strict=True):
        assert a.fan_out == pytest.approx(b.fan_out)
        assert a.time_share.mean == pytest.approx(b.time_share.mean)
        assert a.time_share.sd == pytest.approx(b.time_share.sd)
        assert a.calls == b.calls
    key = [sorted(map(repr, found.executions)) for found in (first, second)]
    assert key[0] == key[1]


@given(timed_executions())
def test_an_execution_is_busy_or_in_a_gap(recorded):
    """Gap and busy time make its length; stages that never overlap make it by themselves."""
    for execution, reduced in zip(recorded, demand(recorded).executions, strict=True):
        shape = structure(execution)
        overlap_s = sum(pair.overlap_s for pair in shape.overlaps)

        assert reduced.gap_s == pytest.approx(shape.gap_s)
        assert reduced.execution_s == execution.execution_s
        assert reduced.gap_s + max(reduced.busy_s) <= execution.execution_s + 1e-9
        covered_s = reduced.gap_s + sum(reduced.busy_s)
        assert covered_s - overlap_s <= execution.execution_s + 1e-9 <= covered_s + 2e-9


@given(timed_executions())
def test_the_critical_path_waits_for_each_of_its_calls(recorded):
    for execution in recorded:
        shape = structure(execution)
        path = shape.critical_path

        assert path[-1].end_s == execution.end_s
        assert all(a.end_s <= b.start_s for a, b in pairwise(path))
        assert len(path) <= shape.depth <= len(execution.calls)
        assert 1 <= shape.peak_parallel <= len(execution.calls)
        for activity in shape.stages:
            assert all(a.end_s < b.start_s for a, b in pairwise(activity.busy))
            assert activity.busy_s == total_s(activity.busy)
            assert activity.busy_s <= activity.work_s + 1e-9
