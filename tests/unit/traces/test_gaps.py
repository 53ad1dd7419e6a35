import pytest

from scepsy.model.execution import Execution
from scepsy.traces.demand import demand


def test_gaps_belong_to_the_stage_that_ended_last(make_call):
    """The search runs 3 s after the planner, then 1 s; writing overlaps and leaves no gap."""
    calls = (
        make_call(0, 2, role="planner"),
        make_call(5, 6, role="planner"),
        make_call(7, 9, role="writer"),
        make_call(8, 10, role="writer"),
    )

    (gap,) = demand([Execution("e", "w", calls)]).gaps

    assert gap.after.role == "planner"
    assert (gap.gaps_per_execution, gap.gap_s_mean, gap.gap_s_p50) == (2, 2, 2)
    assert gap.gap_s_cv == 0.5
    assert gap.execution_fraction == pytest.approx(0.4)


def test_gaps_add_up_to_what_executions_wait(make_call):
    calls = (make_call(0, 2), make_call(3, 4), make_call(3.5, 6), make_call(8, 9, llm="n"))

    found = demand([Execution("e", "w", calls)])

    total_s = sum(gap.gaps_per_execution * gap.gap_s_mean for gap in found.gaps)
    assert total_s == pytest.approx(found.executions[0].gap_s)
