"""Executions through a fleet: arrivals, order, replicas that are lost and come back."""

import random
from itertools import islice

import pytest

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.policy.order import find_order
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Arrival, ClosedLoop, OpenLoop, Stream, as_recorded, merged
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names
from scepsy.sim.run import Fault, FaultySimulation, Simulation
from scepsy.sim.script import Script, scripts

A = LlmName("a")


class Steady:
    """A step takes 1 s, whatever is in it."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 1.0

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return float(steps)


def a_script(*, at_s: float = 0.0, tokens: int = 10, calls: int = 1) -> Script:
    """Calls one after the other, 1 s apart."""
    recorded = tuple(
        Call(
            id=CallId(f"{at_s}-{number}"),
            execution=ExecutionId("e"),
            workflow=WorkflowName("w"),
            llm=A,
            start_s=at_s + 2 * number,
            end_s=at_s + 2 * number + 1,
            prompt_tokens=10,
            output_tokens=tokens,
        )
        for number in range(calls)
    )
    return scripts([Execution(ExecutionId("e"), WorkflowName("w"), recorded)])[0]


def a_fleet(replicas: int = 1, max_seqs: int = 8) -> Fleet:
    spec = EngineSpec(times=Steady(), kv_blocks=1000, max_seqs=max_seqs)
    return Fleet([ServedGroup(A, spec, replica_names(A, replicas))])


def test_the_next_call_starts_when_the_one_before_has_ended_and_the_gap_is_over() -> None:
    source = OpenLoop(as_recorded([a_script(calls=2)]))

    (served,) = Simulation(source, a_fleet()).run()

    first, second = served.calls
    assert (first.start_s, first.scheduled_s, first.first_token_s, first.end_s) == (0, 0, 1, 10)
    assert (second.start_s, second.end_s) == (11, 21)
    assert served.execution_s == 21
    assert {call.replica for call in served.calls} == {"a-0"}


def test_recorded_arrivals_keep_their_distances_and_can_be_faster() -> None:
    recorded = [a_script(at_s=100), a_script(at_s=130), a_script(at_s=110)]

    assert [arrival.at_s for arrival in as_recorded(recorded)] == [0, 10, 30]
    assert [arrival.at_s for arrival in as_recorded(recorded, speed=2)] == [0, 5, 15]


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 3.0])
def test_a_stream_has_its_rate_and_its_burstiness(burstiness: float) -> None:
    stream = Stream(scripts=(a_script(),), rate_per_s=4.0, burstiness=burstiness)

    at_s = [arrival.at_s for arrival in islice(stream.arrivals(seed=1), 20_000)]

    gaps_s = [b - a for a, b in zip([0.0, *at_s], at_s, strict=False)]
    mean_s = sum(gaps_s) / len(gaps_s)
    variance = sum((gap - mean_s) ** 2 for gap in gaps_s) / len(gaps_s)
    assert mean_s == pytest.approx(1 / 4, rel=0.1)
    assert variance**0.5 / mean_s == pytest.approx(burstiness, rel=0.1)


def test_over_a_period_the_rate_is_exact_and_each_script_comes_equally_often() -> None:
    several = tuple(a_script(tokens=n) for n in (1, 2, 3))
    stream = Stream(scripts=several, rate_per_s=2.0)

    arrivals = list(islice(stream.arrivals(seed=0, period=30), 60))

    assert arrivals[29].at_s == pytest.approx(15)
    assert [a.script for a in arrivals[:30]] == [a.script for a in arrivals[30:]]
    assert [sum(a.script is script for a in arrivals[:30]) for script in several] == [10] * 3


def test_streams_are_merged_by_their_instants() -> None:
    streams = [
        iter([Arrival(1, a_script()), Arrival(4, a_script())]),
        iter([Arrival(2, a_script())]),
    ]

    assert [arrival.at_s for arrival in merged(streams)] == [1, 2, 4]


@pytest.mark.parametrize(("users", "think_s"), [(0, 0.0), (1, -1.0)])
def test_a_closed_loop_needs_users_and_no_negative_think_time(users: int, think_s: float) -> None:
    with pytest.raises(InputError, match="closed loop"):
        ClosedLoop([a_script()], users=users, think_s=think_s)


def test_users_of_a_closed_loop_think_between_their_executions() -> None:
    source = ClosedLoop([a_script()], users=2, think_s=5.0)

    served = list(islice(Simulation(source, a_fleet()).run(), 6))

    starts_s = [each.start_s for each in sorted(served, key=lambda each: each.number)]
    assert starts_s == [0, 2.5, 15, 18, 30, 33]  # 10 s of work; a call waits for a step to end


def test_calls_of_older_executions_go_first_where_the_order_says_so() -> None:
    """One call at a time; the second call of the first execution comes after the others' first."""
    several = [a_script(at_s=at, calls=2 if at == 0 else 1) for at in (0, 1, 2)]

    def ends(order: str) -> list[float]:
        source = OpenLoop(as_recorded(several))
        fleet = a_fleet(max_seqs=1)
        served = Simulation(source, fleet, order=find_order(order)).run()
        return [each.end_s for each in sorted(served, key=lambda each: each.number)]

    assert ends("first-come") == [40, 20, 30]
    assert ends("oldest-execution") == [30, 20, 40]


def test_an_unknown_order_is_told() -> None:
    with pytest.raises(UnknownNameError, match="unknown order policy `oldest`"):
        find_order("oldest")


def test_calls_of_a_lost_replica_begin_anew_on_another() -> None:
    source = OpenLoop(as_recorded([a_script(), a_script()]))
    fault = Fault(at_s=4.0, llm=A, replica=ReplicaName("a-1"))

    served = list(FaultySimulation(source, a_fleet(2), [fault]).run())

    calls = [each.calls[0] for each in sorted(served, key=lambda each: each.number)]
    assert [(call.end_s, call.replica, call.restarts) for call in calls] == [
        (10, "a-0", 0),
        (14, "a-0", 1),
    ]
    assert calls[1].first_token_s == 5


def test_calls_wait_where_no_replica_is_left_until_it_is_back() -> None:
    source = OpenLoop(as_recorded([a_script(), a_script(at_s=6)]))
    fault = Fault(at_s=4.0, llm=A, replica=ReplicaName("a-0"), back_s=20.0)

    served = list(FaultySimulation(source, a_fleet(1), [fault]).run())

    assert [each.end_s for each in served] == [30, 30]


def test_an_llm_that_nothing_serves_is_told() -> None:
    fleet = Fleet([])

    with pytest.raises(UnknownNameError, match="unknown LLM of the plan `a`"):
        list(Simulation(OpenLoop(as_recorded([a_script()])), fleet).run())


def test_equal_seeds_give_equal_executions() -> None:
    def ends(seed: int) -> list[float]:
        stream = Stream(scripts=(a_script(calls=3), a_script(tokens=4)), rate_per_s=0.3)
        source = OpenLoop(stream.arrivals(seed))
        return [each.end_s for each in islice(Simulation(source, a_fleet(2)).run(), 50)]

    seed = random.randrange(1000)
    assert ends(seed) == ends(seed)
    assert ends(seed) != ends(seed + 1)
