from collections.abc import Sequence

import pytest

from scepsy.errors import MissingError
from scepsy.model.execution import Call, CallId, CallStatus, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.workload import SegmentRun, poisson_arrivals, stage_workload

WORKFLOW = WorkflowName("w")
LLM = LlmName("m")
STAGE = Stage(WORKFLOW, LLM)


def execution(
    name: str,
    times: Sequence[tuple[float, float]],
    *,
    blocks: Sequence[tuple[int, ...]] = (),
    status: CallStatus = CallStatus.OK,
) -> Execution:
    calls = [
        Call(
            id=CallId(f"{name}-{at}"),
            execution=ExecutionId(name),
            workflow=WORKFLOW,
            llm=LLM,
            start_s=start,
            end_s=end,
            prompt_tokens=100,
            output_tokens=10,
            prefix_blocks=blocks[at] if blocks else (),
            status=status,
        )
        for at, (start, end) in enumerate(times)
    ]
    return Execution(ExecutionId(name), WORKFLOW, tuple(calls))


def test_a_burst_waits_for_the_whole_burst_before_it() -> None:
    bursts = [(10, 12), (10, 14), (10.5, 13), (15, 16), (15, 17), (20, 21)]
    calls = stage_workload([execution("e", bursts)], STAGE).segments[0].calls
    assert [call.waits_for for call in calls] == [(), (), (), (0, 1, 2), (0, 1, 2), (3, 4)]
    assert [call.after_s for call in calls] == [0, 0, 0.5, 1, 1, 3]


def test_calls_that_last_no_time_wait_for_none_of_their_own_instant() -> None:
    calls = stage_workload([execution("e", [(1, 1), (1, 1), (2, 2)])], STAGE).segments[0].calls
    assert [call.waits_for for call in calls] == [(), (), (0, 1)]


def test_a_run_releases_a_call_when_the_last_it_waits_for_has_ended() -> None:
    workload = stage_workload([execution("e", [(0, 1), (0, 2), (3, 4)])], STAGE)
    run = SegmentRun(workload.segments[0])
    assert run.first() == [0, 1]
    assert run.ended(1) == []
    assert run.ended(0) == [2]
    assert run.ended(2) == []


def test_copies_share_only_what_executions_shared() -> None:
    first = execution("a", [(0, 1), (2, 3)], blocks=[(7, 8), (7, 8, 9)])
    second = execution("b", [(0, 1)], blocks=[(7, 20)])
    workload = stage_workload([first, second], STAGE)
    call, longer = workload.segments[0].calls
    (one, _), (two, _), (next_one, _) = (
        call.copy_blocks(1),
        call.copy_blocks(2),
        longer.copy_blocks(1),
    )
    assert one[0] == two[0] == 7
    assert one[1] != two[1]
    assert next_one[:2] == one


def test_failed_calls_are_left_out_and_none_left_is_an_error() -> None:
    good = execution("a", [(0, 1)])
    bad = execution("b", [(0, 1)], status=CallStatus.ERROR)
    assert len(stage_workload([good, bad], STAGE).segments) == 1
    with pytest.raises(MissingError, match="no recorded call of w/m ended well"):
        stage_workload([bad], STAGE)


def test_arrivals_hold_every_execution_equally_often_and_repeat() -> None:
    workload = stage_workload([execution(f"e{n}", [(0, 1)] * (n + 1)) for n in range(10)], STAGE)
    arrivals = poisson_arrivals(workload, min_calls=100, seed=1)
    assert arrivals.calls == 110
    lengths = sorted(len(segment.calls) for segment in arrivals.segments)
    assert lengths == sorted([*range(1, 11)] * 2)
    assert arrivals == poisson_arrivals(workload, min_calls=100, seed=1)
    assert arrivals != poisson_arrivals(workload, min_calls=100, seed=2)
    period_s = sum(arrivals.gap_s(n, calls_per_s=5.0) for n in range(20))
    assert period_s == pytest.approx(110 / 5)
    assert arrivals.segment(25) is arrivals.segment(5)


def test_of_many_executions_only_as_many_are_taken_as_are_needed() -> None:
    workload = stage_workload([execution(f"e{n}", [(0, 1)] * 5) for n in range(100)], STAGE)
    assert len(poisson_arrivals(workload, min_calls=200, seed=1).segments) == 40
