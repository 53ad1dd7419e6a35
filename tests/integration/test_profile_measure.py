"""A curve measured over HTTP, from an emulated engine, is the curve of the engine model."""

import random
from collections.abc import Sequence

import pytest

from scepsy.clock import ScaledClock
from scepsy.engines.emulated import EngineServerConfig, start_engine
from scepsy.errors import EngineError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Endpoint, Execution, ExecutionId
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileKey
from scepsy.profiles.measure import LiveEngine, measure_stage
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Workload, stage_workload
from scepsy.sim.profile import profile_stage

STAGE = Stage(WorkflowName("w"), LlmName("m"))
KEY = ProfileKey(
    stage=STAGE, gpu_type=GpuTypeName("h100"), tensor_parallel=1, gpu_fraction=1.0, replicas=1
)
SPEEDUP = 10.0


class LinearTimes:
    """20 ms a decode step and 0.1 ms a prompt token: slow enough that HTTP hardly counts."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 1e-4 * prefill_tokens + (0.02 if decodes else 0.0)

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return 0.02 * steps


SPEC = EngineSpec(times=LinearTimes(), kv_blocks=2000, max_seqs=16)


def executions(endpoint: Endpoint = Endpoint.CHAT) -> Sequence[Execution]:
    """A burst of three, then one more that extends a prompt; the first block is everyone's."""
    rng = random.Random(7)
    made = []
    for n in range(20):
        name, own = ExecutionId(str(n)), 1000 * (n + 1)
        spans = [(0.0, 2.0)] * 3 + [(2.5, 4.5)]
        calls = [
            Call(
                id=CallId(f"{n}-{at}"),
                execution=name,
                workflow=STAGE.workflow,
                llm=STAGE.llm,
                start_s=start,
                end_s=end,
                prompt_tokens=300 if at < 3 else 400,
                output_tokens=rng.randint(20, 60) if endpoint is Endpoint.CHAT else 0,
                prefix_blocks=(1, own, own + 1) if at < 3 else (1, own, own + 1, own + 2),
                endpoint=endpoint,
            )
            for at, (start, end) in enumerate(spans)
        ]
        made.append(Execution(name, STAGE.workflow, tuple(calls)))
    return made


def workload(endpoint: Endpoint = Endpoint.CHAT) -> Workload:
    return stage_workload(executions(endpoint), STAGE)


async def test_measured_over_http_agrees_with_the_engine_model() -> None:
    server = await start_engine(EngineServerConfig(llm="m", speedup=SPEEDUP, spec=SPEC))
    engine = LiveEngine(
        url=server.url,
        model="m",
        clock=ScaledClock(SPEEDUP),
        provenance=Provenance.SIMULATED,
        source="emulated",
    )
    try:
        measured = await measure_stage(
            workload(), KEY, engine, seed=1, min_calls=60, utilizations=(0.3, 0.6)
        )
    finally:
        await server.stop()
    modelled = profile_stage(executions(), KEY, SPEC, seed=1, min_calls=60, utilizations=(0.3, 0.6))
    assert measured.capacity_per_s == pytest.approx(modelled.capacity_per_s, rel=0.1)
    for at, point in enumerate(measured.points):
        assert point.latency_s_mean == pytest.approx(modelled.points[at].latency_s_mean, rel=0.1)
        assert point.ttft_s_mean < point.latency_s_mean / 2
    assert measured.provenance is Provenance.SIMULATED
    assert measured.source == "emulated"


@pytest.mark.parametrize("endpoint", [Endpoint.EMBEDDING, Endpoint.RERANK])
async def test_calls_without_answers_are_measured_at_their_own_endpoint(endpoint: Endpoint) -> None:
    # Slower than elsewhere: a call takes 30 ms of the engine's time, and must not drown in ours.
    server = await start_engine(EngineServerConfig(llm="m", speedup=3, spec=SPEC))
    engine = LiveEngine(url=server.url, model="m", clock=ScaledClock(3))
    try:
        curve = await measure_stage(
            workload(endpoint),
            KEY,
            engine,
            seed=1,
            min_calls=40,
            utilizations=(0.3,),
            inflight=(8,),
        )
    finally:
        await server.stop()
    assert curve.capacity_per_s > 0
    assert server.statistics().prompt_tokens > 40 * 300


async def test_an_engine_that_is_not_there_or_refuses_is_said() -> None:
    nowhere = LiveEngine(url="http://127.0.0.1:9", model="m", clock=ScaledClock())
    with pytest.raises(EngineError, match=r"cannot call http://127\.0\.0\.1:9"):
        await measure_stage(workload(), KEY, nowhere, seed=1)
    server = await start_engine(EngineServerConfig(llm="m", spec=SPEC))
    try:
        wrong = LiveEngine(url=server.url, model="other", clock=ScaledClock())
        with pytest.raises(EngineError, match="answered 404"):
            await measure_stage(workload(), KEY, wrong, seed=1)
    finally:
        await server.stop()
