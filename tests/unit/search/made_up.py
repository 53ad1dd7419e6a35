"""A made-up workflow of a big and a small LLM, for the planner's tests."""

from scepsy.model.cluster import Cluster, GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.slo import parse_slo
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.search.problem import PlanRequest
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

H100 = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)
SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
BIG, SMALL = LlmName("big"), LlmName("small")
CALL_S = {BIG: 2.0, SMALL: 0.2}
SHAPES = {BIG: ((1, 1.0), (2, 0.5), (2, 1.0), (4, 1.0)), SMALL: ((1, 0.2), (1, 1.0))}
"""The big LLM fits one whole GPU or halves of two; the small one a fifth."""


def demand(name: str, *, executions: int = 20) -> WorkflowDemand:
    """Each execution calls the big LLM 4 times and the small one 8 times, none at a time."""
    calls = {BIG: 4.0, SMALL: 8.0}
    stretch = [0.5 + n / executions for n in range(executions + 1)]
    busy_s = [tuple(calls[llm] * CALL_S[llm] * x for llm in calls) for x in stretch]
    return WorkflowDemand(
        workflow=WorkflowName(name),
        stages=tuple(
            StageDemand(
                stage=Stage(WorkflowName(name), llm),
                calls_per_execution=calls[llm],
                calls=SPREAD,
                fan_out=1.0,
                time_share=SPREAD,
                call_s_mean=CALL_S[llm],
                prompt_tokens_mean=100.0,
                output_tokens_mean=10.0,
                cached_fraction=None,
            )
            for llm in calls
        ),
        executions=tuple(ExecutionDemand(busy, 0.5, sum(busy) + 0.5) for busy in busy_s),
    )


def profiles(
    *names: str, shapes: dict[LlmName, tuple[tuple[int, float], ...]] = SHAPES
) -> ProfileSet:
    """A call takes CALL_S on one idle GPU; 16 calls at a time saturate a replica."""
    return ProfileSet(
        tuple(
            _curve(Stage(WorkflowName(name), llm), degree, fraction)
            for name in names
            for llm, profiled in shapes.items()
            for degree, fraction in profiled
        )
    )


def _curve(stage: Stage, degree: int, fraction: float) -> ProfileCurve:
    call_s = CALL_S[stage.llm] * (0.3 + 0.7 / degree / fraction)
    return ProfileCurve(
        key=ProfileKey(
            stage=stage, gpu_type=H100.name, tensor_parallel=degree, gpu_fraction=fraction
        ),
        capacity_per_s=16 / call_s,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=2 * s, ttft_s_mean=s / 10)
            for u in (0.0, 0.3, 0.6, 0.9)
            for s in (call_s * (1 + u * u),)
        ),
        provenance=Provenance.SIMULATED,
        source="made up",
    )


def request(
    gpus: int = 8,
    *,
    nodes: int = 1,
    rate_per_s: float = 2.0,
    slo: str | None = None,
    cluster: Cluster | None = None,
    shapes: dict[LlmName, tuple[tuple[int, float], ...]] = SHAPES,
) -> PlanRequest:
    return PlanRequest(
        demands=(demand("w"),),
        profiles=profiles("w", shapes=shapes),
        cluster=cluster or regular_cluster(H100, nodes=nodes, gpus_per_node=gpus // nodes),
        rates=(WorkflowRate(WorkflowName("w"), rate_per_s),),
        slo=None if slo is None else parse_slo(slo),
    )
