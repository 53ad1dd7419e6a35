"""Which allocation is best by simulation, and the allocations next to one."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.errors import InfeasibleError
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Allocation, Prediction, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.place.pack import Unplaced, pack
from scepsy.profiles.step_time import EngineSpec
from scepsy.search.neighbours import neighbours
from scepsy.sim.rank import Trial, climb, race, simulated
from scepsy.sim.script import scripts
from scepsy.sim.summary import Summary

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


def mean_s(found: Summary) -> float:
    return found.workflows[0].execution.mean_s


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
        rates=(WorkflowRate(W, rate_per_s),),
        spec_of=spec_of,
        objective=mean_s,
    )


def test_the_race_ends_with_the_best_and_the_last_are_those_that_left_first() -> None:
    several = [an_allocation((1, 1), (degree, 1)) for degree in (1, 2, 4)]
    several += [an_allocation((degree, 1), (1, 1)) for degree in (2, 4)]
    trials = 0

    def count() -> None:
        nonlocal trials
        trials += 1

    ranked = race(a_trial(), several, rounds=(10, 40), on_trial=count)

    assert [each.allocation for each in ranked][:2] == [several[2], several[1]]
    assert [each.executions for each in ranked] == [40, 40, 40, 10, 10]
    assert trials == 8
    assert {each.allocation for each in ranked} == set(several)


def test_what_does_not_fit_is_left_out() -> None:
    fits, not_so = an_allocation((1, 1), (1, 1)), an_allocation((TOO_LARGE, 1), (1, 1))

    assert [each.allocation for each in race(a_trial(), [not_so, fits], rounds=(5,))] == [fits]


def test_climbing_ends_where_no_neighbour_is_better() -> None:
    cluster = regular_cluster(GpuType(name=GPU, memory_bytes=1), nodes=1, gpus_per_node=5)
    shapes = dict.fromkeys((A, B), ((1, 1.0), (2, 1.0), (4, 1.0)))
    trial = a_trial()
    start = trial.rank(an_allocation((4, 1), (1, 1)), 40)
    assert start is not None

    def near(allocation: Allocation) -> Iterable[Allocation]:
        return neighbours(allocation, shapes, cluster)

    best = climb(trial, start, near, executions=40, most_trials=100)

    assert best.allocation == an_allocation((1, 1), (4, 1))
    assert best.value < start.value
    assert climb(trial, start, near, executions=40, most_trials=0) == start


GROUPS = st.tuples(st.sampled_from((1, 2, 4)), st.integers(1, 3))


@settings(max_examples=50)
@given(GROUPS, GROUPS, st.integers(1, 2))
def test_neighbours_can_be_placed_and_differ_in_one_group_or_two(
    a: tuple[int, int], b: tuple[int, int], nodes: int
) -> None:
    cluster = regular_cluster(GpuType(name=GPU, memory_bytes=1), nodes=nodes, gpus_per_node=4)
    shapes = dict.fromkeys((A, B), ((1, 0.5), (1, 1.0), (2, 1.0), (4, 1.0)))
    start = an_allocation(a, b)

    found = list(neighbours(start, shapes, cluster))

    assert len(found) == len(set(found))
    assert start not in found
    for each in found:
        assert not isinstance(pack(each, cluster), Unplaced)
        assert [group.llm for group in each.groups] == [A, B]


def test_a_prediction_takes_the_simulated_latencies() -> None:
    empty = Prediction("pipeline", ())
    ranked = a_trial().rank(an_allocation((1, 1), (1, 1)), 10)
    assert ranked is not None

    assert simulated(empty, ranked.summary).predictor == "simulator"
