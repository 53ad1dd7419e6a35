import pytest

from scepsy.model.execution import Execution
from scepsy.traces.structure import peak_parallel, predecessors, structure


def test_fan_out_and_join(make_call):
    """A planner, two workers at once, a pause, a writer: the longer worker is on the path."""
    calls = (
        make_call(0, 2, id="plan", llm="big"),
        make_call(2, 5, id="short", llm="small"),
        make_call(2.5, 7, id="long", llm="small"),
        make_call(8, 10, id="write", llm="big"),
    )

    shape = structure(Execution("e", "w", calls))

    assert [call.id for call in shape.critical_path] == ["plan", "long", "write"]
    assert shape.depth == 3
    assert shape.peak_parallel == 2
    assert [(gap.start_s, gap.end_s) for gap in shape.gaps] == [(7, 8)]
    assert shape.gap_s == 1
    big, small = shape.stages
    assert (big.busy_s, big.work_s, big.peak_parallel) == (4, 4, 1)
    assert (small.busy_s, small.work_s, small.peak_parallel) == (5, 7.5, 2)
    assert shape.overlaps == ()


def test_stages_that_overlap(make_call):
    calls = (
        make_call(0, 4, llm="a"),
        make_call(1, 3, llm="b"),
        make_call(5, 7, llm="a"),
        make_call(6, 9, llm="b"),
    )

    (pair,) = structure(Execution("e", "w", calls)).overlaps

    assert (pair.first.llm, pair.second.llm, pair.overlap_s) == ("a", "b", pytest.approx(3))


def test_calls_that_touch_do_not_run_side_by_side(make_call):
    assert peak_parallel([make_call(0, 1), make_call(1, 2)]) == 1
    assert peak_parallel([make_call(1, 1), make_call(1, 1)]) == 1
    assert peak_parallel([]) == 0


def test_calls_that_take_no_time_depend_in_their_order(make_call):
    calls = [make_call(0, 1), make_call(1, 1), make_call(1, 1), make_call(1, 2)]

    assert predecessors(calls) == (None, 0, 1, 2)
