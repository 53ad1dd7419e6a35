"""Random planning problems: clusters, profiles, demands, limits."""

import random
from dataclasses import replace

from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuType,
    GpuTypeName,
    NodeName,
    RackName,
)
from scepsy.model.plan import WorkflowRate, WorkflowWeight
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.search.limits import Limits, LlmLimits, Scope, Target
from scepsy.search.problem import PlanRequest
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
MEMORY_BYTES = 80 * 1024**3


def a_cluster(rng: random.Random) -> Cluster:
    """Two to six GPUs of one or two types on nodes of one or two NVLink domains."""
    gpus: list[Gpu] = []
    kinds = ["cheap", "dear"][: rng.choice([1, 1, 2])]
    for kind in kinds:
        for node in range(rng.randint(1, 3 if len(kinds) == 1 else 2)):
            domains = rng.randint(1, 2)
            gpus += [
                Gpu(
                    id=GpuId(f"{kind}-{node}/gpu-{n}"),
                    type=GpuTypeName(kind),
                    node=NodeName(f"{kind}-{node}"),
                    domain=DomainName(f"{kind}-{node}-{n % domains}"),
                    rack=RackName(f"rack-{node // 2}"),
                )
                for n in range(rng.randint(1, 2))
            ]
    types = [
        GpuType(
            name=GpuTypeName(kind),
            memory_bytes=MEMORY_BYTES,
            price_per_hour=rng.choice([1.0, 2.0, rng.uniform(0.5, 3.0)]),
        )
        for kind in kinds
    ]
    return Cluster(tuple(gpus), tuple(types))


def a_curve(rng: random.Random, key: ProfileKey) -> ProfileCurve:
    loads = sorted(rng.sample([n / 20 for n in range(20)], rng.randint(1, 4)))
    part = key.tensor_parallel * key.gpu_fraction * rng.uniform(0.5, 1.5)
    latencies = sorted(rng.uniform(0.5, 2.0) / part for _ in loads)
    return ProfileCurve(
        key=key,
        capacity_per_s=5.0 * part,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=s)
            for u, s in zip(loads, latencies, strict=True)
        ),
        provenance=Provenance.MEASURED,
        source="made up",
    )


def some_profiles(
    rng: random.Random, stages: list[Stage], kinds: list[GpuTypeName], units_per_gpu: int
) -> ProfileSet:
    curves = []
    shares = [n / units_per_gpu for n in range(1, units_per_gpu + 1)]
    for llm in sorted({stage.llm for stage in stages}):
        for kind in rng.sample(kinds, rng.randint(1, len(kinds))):
            for degree in rng.sample([1, 2], rng.randint(1, 2)):
                for share in rng.sample(shares, rng.randint(1, min(2, len(shares)))):
                    curves += [
                        a_curve(
                            rng,
                            ProfileKey(
                                stage=stage,
                                gpu_type=kind,
                                tensor_parallel=degree,
                                gpu_fraction=share,
                            ),
                        )
                        for stage in stages
                        if stage.llm == llm
                    ]
    return ProfileSet(tuple(curves))


def a_demand(rng: random.Random, name: str, stages: list[Stage]) -> WorkflowDemand:
    made = tuple(
        StageDemand(
            stage=stage,
            calls_per_execution=rng.uniform(0.5, 4.0),
            calls=SPREAD,
            fan_out=rng.uniform(1.0, 3.0),
            time_share=SPREAD,
            call_s_mean=rng.uniform(0.5, 2.0),
            prompt_tokens_mean=100.0,
            output_tokens_mean=10.0,
            cached_fraction=None,
        )
        for stage in sorted(stages)
    )
    gap_s = rng.uniform(0.0, 1.0)
    stretch = [rng.uniform(0.2, 1.8) for _ in range(9)]
    stretch = [x * len(stretch) / sum(stretch) for x in stretch]
    busy_s = [
        tuple(x * s.calls_per_execution * s.call_s_mean / s.fan_out for s in made) for x in stretch
    ]
    return WorkflowDemand(
        workflow=WorkflowName(name),
        stages=made,
        executions=tuple(ExecutionDemand(b, gap_s, sum(b) + gap_s) for b in busy_s),
    )


def some_limits(rng: random.Random, llms: list[LlmName], cluster: Cluster) -> Limits:
    def seldom(*values: int) -> int:
        return rng.choice(values) if rng.random() < 0.3 else values[0]

    named = rng.choice(cluster.gpus).id
    return Limits(
        llms={
            llm: LlmLimits(
                tensor_parallel=seldom(0, 1, 2) or None,
                min_replicas=seldom(1, 2),
                share=not seldom(0, 1),
            )
            for llm in llms
            if rng.random() < 0.5
        },
        share=not seldom(0, 0, 1),
        free_gpus=seldom(0, 1, 2),
        keep_free=frozenset({named} if seldom(0, 1) else ()),
        survive=[None, Scope.NODE, Scope.RACK][seldom(0, 1, 1, 2)],
        target=list(Target)[seldom(0, 1, 2)],
    )


def a_request(seed: int, *, workflows: int | None = None) -> PlanRequest:
    """1-2 workflows that may share 1-3 LLMs, on a few GPUs; half have limits."""
    rng = random.Random(seed)
    cluster = a_cluster(rng)
    llms = [LlmName(f"llm-{n}") for n in range(rng.choice([1, 2, 2, 3]))]
    names = ("a", "b")[: workflows or rng.randint(1, 2)]
    stages = {
        name: [Stage(WorkflowName(name), m) for m in llms if m == llms[0] or rng.random() < 0.7]
        for name in names
    }
    units_per_gpu = rng.choice([1, 2, 2, 5]) if len(cluster.gpus) < 5 else rng.choice([1, 2])
    kinds = sorted({gpu.type for gpu in cluster.gpus})
    limits = some_limits(rng, llms, cluster) if rng.random() < 0.5 else Limits()
    used = {stage.llm for own in stages.values() for stage in own}
    limits = replace(limits, llms={llm: own for llm, own in limits.llms.items() if llm in used})
    if len(cluster.gpus) - len(limits.keep_free) <= limits.free_gpus:
        limits = replace(limits, free_gpus=0, keep_free=frozenset())
    return PlanRequest(
        demands=tuple(a_demand(rng, name, own) for name, own in stages.items()),
        profiles=some_profiles(
            rng, [s for own in stages.values() for s in own], kinds, units_per_gpu
        ),
        cluster=cluster,
        rates=tuple(WorkflowRate(WorkflowName(n), 10 ** rng.uniform(-1, 0.5)) for n in names),
        weights=tuple(
            WorkflowWeight(WorkflowName(n), rng.uniform(0.2, 5.0))
            for n in names
            if rng.random() < 0.5
        ),
        limits=limits,
        units_per_gpu=units_per_gpu,
    )
