"""Serving a plan in virtual time."""

import pytest

from scepsy.errors import MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, CallStatus, Execution, ExecutionId
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Stream
from scepsy.sim.fleet import Fleet
from scepsy.sim.script import scripts
from scepsy.sim.serve import fleet_of, serve

W = WorkflowName("w")


class Linear:
    """A step takes 10 ms, and 1 ms for each call that decodes."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 0.01 + 0.001 * decodes

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return steps * (0.01 + 0.001 * decodes)


SPEC = EngineSpec(times=Linear(), kv_blocks=1000)
ALLOCATION = Allocation(
    tuple(
        ReplicaGroup(llm=LlmName(llm), gpu_type=GpuTypeName("g"), tensor_parallel=1, replicas=n)
        for llm, n in (("a", 1), ("b", 2))
    )
)


def an_execution(
    *calls: tuple[str, float, float], status: CallStatus = CallStatus.OK, of: str = W
) -> Execution:
    return Execution(
        ExecutionId("e"),
        WorkflowName(of),
        tuple(
            Call(
                id=CallId(str(at)),
                execution=ExecutionId("e"),
                workflow=WorkflowName(of),
                llm=LlmName(llm),
                start_s=start_s,
                end_s=end_s,
                prompt_tokens=64,
                output_tokens=11,
                status=status,
            )
            for at, (llm, start_s, end_s) in enumerate(calls)
        ),
    )


def plan() -> Fleet:
    return fleet_of(ALLOCATION, {LlmName("a"): SPEC, LlmName("b"): SPEC})


def test_a_lone_execution_takes_its_calls_and_gaps() -> None:
    """a, then b and b at once 2 s later, on two replicas: 0.01 + 10 x 0.011 s each."""
    recorded = [an_execution(("a", 0, 1), ("b", 3, 4), ("b", 3, 5))]
    stream = Stream(scripts=scripts(recorded), rate_per_s=0.01)

    runs = serve([stream], plan(), executions=3, warm_up=1, seed=0)

    assert [run.number for run in runs] == [1, 2, 3]
    for run in runs:
        assert run.execution_s == pytest.approx(2 + 2 * 0.12)
        assert [call.e2e_s for call in run.calls] == [pytest.approx(0.12)] * 3


def test_load_makes_calls_slower_and_loses_none() -> None:
    recorded = [an_execution(("a", 0, 1), ("b", 1, 2)), an_execution(("a", 0, 1))]
    means = []
    for rate_per_s in (0.1, 40.0):
        stream = Stream(scripts=scripts(recorded), rate_per_s=rate_per_s)
        runs = serve([stream], plan(), executions=200, warm_up=20, seed=0)
        assert all(run.is_over for run in runs)
        assert {len(run.calls) for run in runs} == {1, 2}
        assert sum(len(run.calls) for run in runs) == pytest.approx(300, abs=2)
        means.append(sum(run.execution_s for run in runs) / len(runs))
    assert means[1] > means[0] * 1.2


def test_equal_seeds_give_equal_runs_and_the_rate_is_the_one_asked_for() -> None:
    streams = [
        Stream(scripts=scripts([an_execution(("a", 0, 1), of=name)]), rate_per_s=rate)
        for name, rate in (("v", 2.0), ("w", 6.0))
    ]

    first, again, other = (
        [
            (run.workflow, run.start_s, run.execution_s)
            for run in serve(streams, plan(), executions=400, warm_up=40, seed=seed)
        ]
        for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
    assert first[-1][1] - first[0][1] == pytest.approx(400 / 8, rel=0.05)
    assert sum(name == "w" for name, *_ in first) == pytest.approx(300, rel=0.1)


def test_recordings_without_a_call_that_ended_well_are_refused() -> None:
    failed = an_execution(("a", 0, 1), status=CallStatus.ERROR)

    with pytest.raises(MissingError, match="no recorded call ended well"):
        scripts([failed])
