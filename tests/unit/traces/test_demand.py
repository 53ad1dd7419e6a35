import pytest

from scepsy.errors import InputError, MissingError
from scepsy.model.execution import CallStatus, Execution
from scepsy.model.workflow import Stage
from scepsy.traces.demand import demand, demands, spread
from scepsy.traces.store import SqliteTraceStore


@pytest.fixture
def executions(make_call):
    """One execution with two verifiers at once and a pause, one that needed no verifier."""
    first = (
        make_call(0, 4, llm="generator", prompt_tokens=100, output_tokens=60, cached_tokens=50),
        make_call(4, 6, llm="verifier", prompt_tokens=40, output_tokens=10),
        make_call(5, 7, llm="verifier", prompt_tokens=60, output_tokens=10),
        make_call(9, 11, llm="generator", prompt_tokens=300, output_tokens=20, cached_tokens=150),
    )
    second = (make_call(20, 24, llm="generator", prompt_tokens=200, output_tokens=100),)
    return [Execution("e", "w", first), Execution("f", "w", second)]


def test_demand_of_two_stages(executions):
    found = demand(executions)

    generator, verifier = found.stages
    assert found.workflow == "w"
    assert generator.stage == Stage("w", "generator")
    assert (generator.calls_per_execution, verifier.calls_per_execution) == (1.5, 1)
    assert (verifier.calls.mean, verifier.calls.sd) == (1, pytest.approx(2**0.5))
    assert (generator.fan_out, verifier.fan_out) == (1, pytest.approx(4 / 3))
    assert generator.time_share.mean == pytest.approx((0.6 + 1) / 2)
    assert verifier.time_share.mean == pytest.approx((0.4 + 0) / 2)
    assert generator.call_s_mean == pytest.approx(10 / 3)
    assert generator.prompt_tokens_mean == 200
    assert verifier.output_tokens_mean == 10
    assert generator.cached_fraction == 0.5
    assert verifier.cached_fraction is None
    assert generator.output_share is not None
    assert generator.output_share.mean == pytest.approx((0.8 + 1) / 2)


def test_each_execution_keeps_its_busy_times_and_gap(executions):
    first, second = demand(executions).executions

    assert (first.busy_s, first.gap_s, first.execution_s) == ((6, 3), 2, 11)
    assert (second.busy_s, second.gap_s, second.execution_s) == ((4, 0), 0, 4)


def test_only_calls_that_ended_well_count(make_call):
    calls = (make_call(0, 2), make_call(2, 5, status=CallStatus.ERROR), make_call(5, 6))
    lost = (make_call(0, 1, execution="f", status=CallStatus.CANCELLED),)

    found = demand([Execution("e", "w", calls), Execution("f", "w", lost)])

    assert found.stages[0].calls_per_execution == 2
    assert [(e.busy_s, e.gap_s, e.execution_s) for e in found.executions] == [((3,), 3, 6)]


def test_calls_that_took_no_time_share_by_their_number(make_call):
    calls = (make_call(0, 0, llm="a"), make_call(0, 0, llm="b"), make_call(0, 0, llm="b"))

    a, b = demand([Execution("e", "w", calls)]).stages

    assert (a.time_share.mean, b.time_share.mean) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert (a.fan_out, a.call_s_mean) == (1, 0)


def test_no_output_tokens_no_output_share(make_call):
    (stage,) = demand([Execution("e", "w", (make_call(0, 1, output_tokens=0),))]).stages

    assert stage.output_share is None


def test_spread_of_one_and_of_many():
    one = spread([3.0])
    assert (one.mean, one.sd, one.p5, one.p95) == (3, 0, 3, 3)
    many = spread(range(101))
    assert (many.mean, many.p5, many.p95) == (50, 5, 95)
    assert many.sd == pytest.approx(29.300, abs=1e-3)


def test_no_executions(tmp_path, make_call):
    with pytest.raises(MissingError):
        demand([])
    failed = Execution("e", "w", (make_call(0, 1, status=CallStatus.ERROR),))
    with pytest.raises(MissingError, match="w has no execution with a completed call"):
        demand([failed])
    with (
        SqliteTraceStore.open(tmp_path / "t.db") as store,
        pytest.raises(MissingError, match="has no executions"),
    ):
        demands(store)


def test_two_workflows_are_not_one(make_call):
    with pytest.raises(InputError, match="two workflows"):
        demand(
            [
                Execution("e", "v", (make_call(0, 1, workflow="v"),)),
                Execution("e", "w", (make_call(0, 1),)),
            ]
        )


def test_demands_by_workflow(tmp_path, make_call):
    with SqliteTraceStore.open(tmp_path / "t.db") as store:
        store.append([make_call(0, 1, workflow="v"), make_call(0, 1)])

        assert [found.workflow for found in demands(store)] == ["v", "w"]
        assert [found.workflow for found in demands(store, "w")] == ["w"]
