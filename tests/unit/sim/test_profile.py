"""Profiling on an engine whose times can be computed by hand."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import poisson_arrivals, stage_workload
from scepsy.sim.profile import group_of, profile_stage, saturated_per_s, served_calls

STAGE = Stage(WorkflowName("w"), LlmName("m"))


@dataclass(frozen=True, slots=True)
class Serial:
    """A prompt token takes 1 ms, a decode step 10 ms whatever the batch."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 0.001 * prefill_tokens + (0.01 if decodes else 0.0)

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return 0.01 * steps


SPEC = EngineSpec(times=Serial(), kv_blocks=1000, max_seqs=1, chunk_tokens=1000, source="by hand")


def executions(
    number: int,
    bursts: Sequence[int],
    *,
    prompt_tokens: int = 100,
    output_tokens: int = 0,
    think_s: float = 1.0,
    blocks: bool = False,
) -> list[Execution]:
    """Equal executions: bursts of calls, each burst some time after the end of the last."""
    made = []
    for n in range(number):
        calls, now_s = [], 0.0
        for burst in bursts:
            own = (1, 1000 + n) if blocks else ()
            calls += [
                Call(
                    id=CallId(f"{n}-{len(calls)}-{at}"),
                    execution=ExecutionId(str(n)),
                    workflow=STAGE.workflow,
                    llm=STAGE.llm,
                    start_s=now_s,
                    end_s=now_s + 0.1,
                    prompt_tokens=prompt_tokens,
                    output_tokens=output_tokens,
                    prefix_blocks=own,
                )
                for at in range(burst)
            ]
            now_s += 0.1 + think_s
        made.append(Execution(ExecutionId(str(n)), STAGE.workflow, tuple(calls)))
    return made


def profiled(
    recorded: Sequence[Execution],
    spec: EngineSpec = SPEC,
    *,
    replicas: int = 1,
    seed: int = 1,
    min_calls: int = 1000,
    utilizations: Sequence[float] = (0.02, 0.5),
) -> ProfileCurve:
    key = ProfileKey(
        stage=STAGE,
        gpu_type=GpuTypeName("h100"),
        tensor_parallel=1,
        gpu_fraction=1.0,
        replicas=replicas,
    )
    return profile_stage(
        recorded, key, spec, seed=seed, min_calls=min_calls, utilizations=utilizations
    )


@pytest.mark.no_cover  # tracing would take most of its time
def test_calls_of_equal_size_queue_as_in_an_m_d_1_queue() -> None:
    curve = profiled(executions(50, [1]), min_calls=20_000, utilizations=(0.3, 0.6, 0.8))
    assert curve.capacity_per_s == pytest.approx(10.0, rel=0.01)
    for load, tolerance in ((0.3, 0.02), (0.6, 0.03), (0.8, 0.10)):
        wait_s = 0.1 * load / (2 * (1 - load))  # Pollaczek and Khinchine, no variance of service
        assert curve.latency_s(load) == pytest.approx(0.1 + wait_s, rel=tolerance)


def test_calls_of_a_burst_wait_for_each_other_even_when_idle() -> None:
    curve = profiled(executions(50, [4]), utilizations=(0.001,))
    assert curve.points[0].latency_s_mean == pytest.approx(0.1 * (1 + 2 + 3 + 4) / 4, rel=0.02)
    assert curve.points[0].latency_s_p95 == pytest.approx(0.4, rel=0.01)


def test_a_later_burst_begins_when_the_one_before_has_ended_and_the_think_time_is_over() -> None:
    workload = stage_workload(executions(1, [2, 1], think_s=3.0), STAGE)
    arrivals = poisson_arrivals(workload, min_calls=60, seed=1)
    served = served_calls(
        arrivals, workload, group_of(workload.stage.llm, SPEC, 1), 0.001, guess_s=0.15
    )
    first = [call for call in served if call.call < 2]
    later = [call for call in served if call.call == 2]
    assert len(first) == 2 * len(later)
    ends = {call.copy: call.end_s for call in first if call.call == 1}
    assert all(call.start_s == pytest.approx(ends[call.copy] + 3.0) for call in later)


def test_capacity_counts_every_call_whatever_the_think_time() -> None:
    for think_s in (0.0, 5.0):
        curve = profiled(executions(20, [2, 3], think_s=think_s), utilizations=(0.1,))
        assert curve.capacity_per_s == pytest.approx(10.0, rel=0.01)


def test_the_first_token_comes_before_the_last() -> None:
    curve = profiled(executions(20, [1], output_tokens=11), utilizations=(0.001,))
    assert curve.points[0].ttft_s_mean == pytest.approx(0.1, rel=0.01)
    assert curve.points[0].latency_s_mean == pytest.approx(0.2, rel=0.01)


@pytest.mark.no_cover
def test_replicas_behind_one_router_queue_less_at_equal_load() -> None:
    recorded = executions(50, [1])
    one, four = profiled(recorded, min_calls=4000), profiled(recorded, replicas=4, min_calls=4000)
    assert four.capacity_per_s == pytest.approx(one.capacity_per_s, rel=0.02)
    assert four.latency_s(0.5) < one.latency_s(0.5) * 0.8
    assert four.latency_s(0.02) == pytest.approx(one.latency_s(0.02), rel=0.02)


def test_a_replayed_copy_finds_its_own_prompts_cached_but_not_those_of_another() -> None:
    """Each execution asks twice: block 1 is everyone's, the second block is its own."""
    recorded = executions(20, [1, 1], prompt_tokens=150, blocks=True)
    curve = profiled(recorded, utilizations=(0.001,))
    first_s, second_s = (150 - 64) / 1000, (150 - 128) / 1000
    assert curve.points[0].latency_s_mean == pytest.approx((first_s + second_s) / 2, rel=0.05)


def test_the_same_seed_gives_the_same_curve() -> None:
    recorded = [*executions(10, [1]), *executions(10, [3, 2])]
    assert profiled(recorded) == profiled(recorded)
    assert profiled(recorded) != profiled(recorded, seed=2)


def test_a_call_that_does_not_fit_the_cache_is_no_bug() -> None:
    small = EngineSpec(times=Serial(), kv_blocks=1)
    with pytest.raises(InfeasibleError, match="a recorded call has 100 tokens"):
        profiled(executions(1, [1]), small)


def test_a_stage_that_was_not_recorded_is_missing() -> None:
    with pytest.raises(MissingError, match="no recorded call of w/m"):
        profiled([])


def test_provenance_is_as_bad_as_the_step_times() -> None:
    assumed = EngineSpec(times=Serial(), kv_blocks=1000, provenance=Provenance.ASSUMED, source="s")
    curve = profiled(executions(20, [1]), assumed, utilizations=(0.1,), min_calls=50)
    assert curve.provenance is Provenance.ASSUMED
    assert curve.source == "engine model; s"


def test_saturation_is_that_of_each_replica() -> None:
    workload = stage_workload(executions(20, [3]), STAGE)
    arrivals = poisson_arrivals(workload, min_calls=500, seed=3)
    assert saturated_per_s(arrivals, workload, SPEC, replicas=3) == pytest.approx(10.0, rel=0.02)
