"""Milliseconds to the best allocation, by LLMs and GPUs; made-up profiles in tenths of a GPU.

Two workflows, the second with every other LLM of the first. Each stage is profiled for 4 degrees,
3 fractions and 4 replica counts; the rates load the cluster by about half.
"""

from time import perf_counter

from benchmarks.host import report
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.search.exact import choices
from scepsy.search.plan import make_plan
from scepsy.search.problem import PlanRequest, Problem, problem
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

REPEATS = 5
GPU = GpuType(name=GpuTypeName("h100"), memory_bytes=80 * 1024**3)
LOADS = (0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
ONE = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)


def a_request(llms: int, nodes: int) -> PlanRequest:
    demands = tuple(
        a_demand(WorkflowName(name), [LlmName(f"llm-{n:03}") for n in range(0, llms, step)])
        for name, step in (("a", 1), ("b", 2))
    )
    curves = [curve for one in demands for stage in one.stages for curve in some_curves(stage)]
    return PlanRequest(
        demands=demands,
        profiles=ProfileSet(tuple(curves)),
        cluster=regular_cluster(GPU, nodes=nodes, gpus_per_node=8),
        rates=tuple(WorkflowRate(one.workflow, 8 * nodes / llms) for one in demands),
    )


def a_demand(workflow: WorkflowName, llms: list[LlmName]) -> WorkflowDemand:
    stages = tuple(
        StageDemand(
            stage=Stage(workflow, llm),
            calls_per_execution=1.0 + at % 4,
            calls=ONE,
            fan_out=1.0 + at % 3 / 2,
            time_share=ONE,
            call_s_mean=0.3 * (1 + at % 5),
            prompt_tokens_mean=500.0,
            output_tokens_mean=100.0,
            cached_fraction=None,
        )
        for at, llm in enumerate(llms)
    )
    execution = ExecutionDemand((1.0,) * len(stages), 0.0, float(len(stages)))
    return WorkflowDemand(workflow=workflow, stages=stages, executions=(execution,))


def some_curves(demand: StageDemand) -> list[ProfileCurve]:
    return [
        a_curve(demand, degree, fraction, replicas)
        for degree in (1, 2, 4, 8)
        for fraction in (0.2, 0.5, 1.0)
        for replicas in (1, 2, 4, 8)
    ]


def a_curve(demand: StageDemand, degree: int, fraction: float, replicas: int) -> ProfileCurve:
    idle_s = demand.call_s_mean * (0.3 + 0.7 / degree**0.8 / fraction**0.5)
    latencies_s = [idle_s * (1 + u * u / (1 - u) / replicas) for u in LOADS]
    return ProfileCurve(
        key=ProfileKey(
            stage=demand.stage,
            gpu_type=GPU.name,
            tensor_parallel=degree,
            gpu_fraction=fraction,
            replicas=replicas,
        ),
        capacity_per_s=16 / idle_s,
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=2 * s, ttft_s_mean=s / 10)
            for u, s in zip(LOADS, latencies_s, strict=True)
        ),
        provenance=Provenance.ASSUMED,
        source="made up",
    )


def search_ms(asked: Problem) -> float:
    """The median of some runs, profiles to best allocation."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        next(choices(asked.options(), asked.budgets))
        times.append(perf_counter() - start)
    return round(sorted(times)[REPEATS // 2] * 1000, 1)


def plan_ms(request: PlanRequest) -> float:
    """One run, placement and prediction included."""
    start = perf_counter()
    make_plan(request)
    return round((perf_counter() - start) * 1000, 1)


if __name__ == "__main__":
    small, large = a_request(5, 2), a_request(50, 128)
    report(
        "search",
        repeats=REPEATS,
        search_5_llms_16_gpus_ms=search_ms(problem(small)),
        plan_5_llms_16_gpus_ms=plan_ms(small),
        search_50_llms_1024_gpus_ms=search_ms(problem(large)),
    )
