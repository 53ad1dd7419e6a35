"""Which allocation is best by simulation, and the allocations next to one."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.errors import InfeasibleError
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import (
    Allocation,
    Prediction,
    ReplicaGroup,
    WorkflowPrediction,
    WorkflowRate,
)
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.step_time import EngineSpec
from scepsy.search.neighbours import neighbours
from scepsy.sim.rank import Latencies, Trial, climb, race, simulated
from scepsy.sim.script import scripts
from scepsy.sim.summary import Latency

A, B, W = LlmName("a"), LlmName("b"), WorkflowName("w")
GPU = GpuTypeName("g")
TOO_LARGE = 8


class Slow:
    """A step takes as long as it is told."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return self._step_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return self._step_s * steps


def spec_of(llm: LlmName, _gpu: GpuTypeName, degree: int, fraction: float) -> EngineSpec:
    """Twice the GPUs, half the time; `b` takes ten times as long."""
    if degree == TOO_LARGE:
        raise InfeasibleError("it does not fit")
    step_s = (0.1 if llm == B else 0.01) / degree / fraction
    return EngineSpec(times=Slow(step_s), kv_blocks=1000, max_seqs=4)


def an_allocation(a: tuple[int, int], b: tuple[int, int]) -> Allocation:
    """(degree, replicas) of each."""
    return Allocation(
        tuple(
            ReplicaGroup(llm=llm, gpu_type=GPU, tensor_parallel=degree, replicas=replicas)
            for llm, (degree, replicas) in ((A, a), (B, b))
        )
    )


def mean_s(found: Latencies) -> float:
    return found[W].mean_s


def a_trial(rate_per_s: float = 1.0) -> Trial:
    calls = tuple(
        Call(
            id=CallId(str(at)),
            execution=ExecutionId("e"),
            workflow=W,
            llm=llm,
            start_s=2.0 * at,
            end_s=2.0 * at + 1,
            prompt_tokens=64,
            output_tokens=10,
        )
        for at, llm in enumerate((A, B))
    )
    return Trial(
        scripts={W: scripts([Execution(ExecutionId("e"), W, calls)])},
        expected={W: Latency(mean_s=2, p50_s=2, p95_s=2, p99_s=2)},
        rates=(WorkflowRate(W, rate_per_s),),
        spec_of=spec_of,
        objective=mean_s,
    )


SEVERAL = [an_allocation((a, 1), (b, 1)) for a in (1, 2, 4) for b in (1, 2, 4)]
BEST, SECOND = an_allocation((4, 1), (4, 1)), an_allocation((2, 1), (4, 1))


def test_the_race_ends_with_the_best_and_the_last_are_those_that_left_first() -> None:
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return True

    ranked = race(a_trial(), SEVERAL, rounds=(20, 80), go_on=count)

    assert [each.allocation for each in ranked][:2] == [BEST, SECOND]
    assert [each.calls for each in ranked] == [80] * 3 + [20] * 6
    assert asked == 9 + 3
    assert {each.allocation for each in ranked} == set(SEVERAL)


@settings(max_examples=8, deadline=None)
@given(st.permutations(SEVERAL), st.sampled_from((0.3, 1.0, 3.0)))
def test_the_winner_is_the_least_of_the_last_round_whatever_was_given_up(
    candidates: list[Allocation], rate_per_s: float
) -> None:
    trial = a_trial(rate_per_s)

    winner = race(trial, candidates, rounds=(16, 40), kept=(5,))[0]

    in_full = {each: trial.rank(each, 16) for each in candidates}
    assert all(in_full.values())
    best = sorted(candidates, key=lambda each: in_full[each].value)[:5]  # type: ignore[union-attr]
    last = [trial.rank(each, 40) for each in best]
    assert winner.value == min(each.value for each in last if each is not None)
    assert not winner.is_bound


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(SEVERAL), st.sampled_from((0.3, 0.9, 2.0)), st.floats(0.5, 1.0))
def test_what_is_given_up_is_worse_and_a_bound_is_none_too_high(
    allocation: Allocation, rate_per_s: float, part: float
) -> None:
    trial = a_trial(rate_per_s)
    in_full = trial.rank(allocation, 40)
    assert in_full is not None

    given_up = trial.rank(allocation, 40, beyond=part * in_full.value)
    not_so = trial.rank(allocation, 40, beyond=in_full.value)

    assert not_so == in_full
    assert given_up is not None
    assert part * in_full.value <= given_up.value <= in_full.value


def test_little_is_simulated_of_what_is_far_behind() -> None:
    trial = a_trial()
    slow, fast = trial.rank(an_allocation((1, 1), (1, 1)), 80), trial.rank(BEST, 80)
    assert slow is not None
    assert fast is not None

    given_up = trial.rank(slow.allocation, 80, beyond=fast.value)

    assert given_up is not None
    assert given_up.is_bound
    assert fast.value < given_up.value < slow.value


def test_what_does_not_keep_up_is_last_and_has_no_latencies() -> None:
    trial = a_trial(rate_per_s=20.0)

    ranked = race(trial, [an_allocation((1, 1), (1, 1)), BEST], rounds=(200,))

    assert ranked[0].allocation == BEST
    assert ranked[1].value == float("inf")
    assert trial.latencies(ranked[1].allocation, 200) is None
    assert trial.latencies(BEST, 200) is not None


def test_what_does_not_fit_is_left_out() -> None:
    fits, not_so = an_allocation((1, 1), (1, 1)), an_allocation((TOO_LARGE, 1), (1, 1))

    assert [each.allocation for each in race(a_trial(), [not_so, fits], rounds=(10,))] == [fits]


def test_out_of_time_the_round_before_decides() -> None:
    answers = iter([True] * 9 + [False] * 9)

    ranked = race(a_trial(), SEVERAL, rounds=(20, 80), go_on=lambda: next(answers))

    assert [each.calls for each in ranked] == [20] * 9
    assert ranked[0].allocation == BEST
    assert race(a_trial(), SEVERAL, rounds=(20,), go_on=lambda: False) != []


CLUSTER = regular_cluster(GpuType(name=GPU, memory_bytes=1), nodes=1, gpus_per_node=5)
SHAPES = dict.fromkeys((A, B), ((1, 1.0), (2, 1.0), (4, 1.0)))


def near(allocation: Allocation) -> Iterable[Allocation]:
    return neighbours(allocation, SHAPES, len(CLUSTER.gpus))


def test_climbing_ends_where_no_neighbour_is_better() -> None:
    trial, start = a_trial(), an_allocation((4, 1), (1, 1))

    best = climb(trial, start, near, rounds=(20, 80), most=100)
    none = climb(trial, start, near, rounds=(20, 80), most=0)

    assert best is not None
    assert best.allocation == an_allocation((1, 1), (4, 1))
    assert none is not None
    assert none.allocation == start
    assert none.value > best.value


GROUPS = st.tuples(st.sampled_from((1, 2, 4)), st.integers(1, 3))


@settings(max_examples=50)
@given(GROUPS, GROUPS, st.integers(4, 8))
def test_neighbours_are_distinct_and_take_no_more_than_there_is(
    a: tuple[int, int], b: tuple[int, int], gpus: int
) -> None:
    shapes = dict.fromkeys((A, B), ((1, 0.5), (1, 1.0), (2, 1.0), (4, 1.0)))
    start = an_allocation(a, b)

    found = list(neighbours(start, shapes, gpus))

    assert len(found) == len(set(found))
    assert start not in found
    for each in found:
        assert each.gpus <= max(gpus, start.gpus) + 1e-9
        assert [group.llm for group in each.groups] == [A, B]


def test_a_prediction_takes_the_simulated_latencies() -> None:
    found = a_trial().latencies(an_allocation((1, 1), (1, 1)), 20)
    assert found is not None
    predicted = WorkflowPrediction(
        workflow=W,
        rate_per_s=1.0,
        execution_s_mean=9.0,
        execution_s_p50=9.0,
        execution_s_p95=9.0,
        execution_s_p99=9.0,
        gap_s_mean=0.0,
        capacity_per_s=2.0,
        capacity_alone_per_s=2.0,
        bottleneck=B,
        bottleneck_alone=B,
        stages=(),
        error_fraction=0.2,
    )

    told = simulated(Prediction("pipeline", (predicted,)), found)

    assert told.predictor == "simulator"
    assert told.workflow(W).execution_s_mean == found[W].mean_s
    assert told.workflow(W).error_fraction is None
    assert told.workflow(W).capacity_per_s == 2.0
