"""Seconds to the best allocation and to a plan, by LLMs and GPUs, in tenths of a GPU.

    python -m benchmarks.search          # one JSON line on stdout; about two minutes
    python -m benchmarks.search --docs   # writes the tables and the picture in docs/reference too

On made-up profiles; beside them the whole `scepsy plan` process with its files, and its memory.

Two workflows, the second with every other LLM of the first. Each stage is profiled for 4 degrees,
3 fractions and 4 replica counts; the rates load the cluster by about half.
"""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from benchmarks.host import report
from benchmarks.process import Process, measured
from benchmarks.search_results import Measured, Target, met, write_page
from scepsy.model.cluster import GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.plan import Plan, WorkflowRate
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.profiles.store import save_profiles
from scepsy.search.exact import choices
from scepsy.search.plan import make_plan
from scepsy.search.problem import PlanRequest, problem
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand
from scepsy.traces.store import SqliteTraceStore

REPEATS, GROWTH_REPEATS = 5, 3
GPUS_PER_NODE = 8
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
        cluster=regular_cluster(GPU, nodes=nodes, gpus_per_node=GPUS_PER_NODE),
        rates=tuple(WorkflowRate(one.workflow, GPUS_PER_NODE * nodes / llms) for one in demands),
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


TARGETS = (
    Target(llms=5, gpus=16, search_s=0.05),
    Target(llms=50, gpus=1024, search_s=1.0),
    Target(llms=200, gpus=10_000, search_s=20.0, peak_bytes=2 * 1024**3),
)
LLM_GROWTH = tuple((llms, 1024) for llms in (5, 10, 20, 40, 80, 160))
GPU_GROWTH = tuple((20, gpus) for gpus in (32, 128, 512, 2048, 8192))


def search_s(request: PlanRequest) -> tuple[float, float]:
    """Time and CPU time from profiles to the best allocation, before placement."""
    start, cpu = perf_counter(), process_time()
    asked = problem(request)
    next(choices(asked.options(), asked.budgets))
    return perf_counter() - start, process_time() - cpu


def plan_s(request: PlanRequest) -> tuple[float, float, Plan]:
    """Time and CPU time from profiles to a plan, placement and prediction included; the plan."""
    start, cpu = perf_counter(), process_time()
    plan = make_plan(request)
    return perf_counter() - start, process_time() - cpu, plan


def write_files(folder: Path, request: PlanRequest) -> None:
    """The files that `scepsy plan` reads: an execution of each workflow, profiles, a cluster."""
    save_profiles(folder / "profiles.json", request.profiles)
    nodes = len({gpu.node for gpu in request.cluster.gpus})
    (folder / "cluster.yaml").write_text(
        f"nodes: [{{gpu: h100, gpus: {GPUS_PER_NODE}, count: {nodes}}}]\n"
    )
    calls: list[Call] = []
    for demand in request.demands:
        now_s = 0.0
        for stage in demand.stages:
            for _ in range(round(stage.calls_per_execution)):
                calls.append(
                    Call(
                        id=CallId(f"{demand.workflow}-{len(calls)}"),
                        execution=ExecutionId(str(demand.workflow)),
                        workflow=demand.workflow,
                        llm=stage.stage.llm,
                        start_s=now_s,
                        end_s=now_s + stage.call_s_mean,
                        prompt_tokens=500,
                        output_tokens=100,
                    )
                )
                now_s += stage.call_s_mean
    with SqliteTraceStore.open(folder / "traces.db") as store:
        store.append(calls)


def plan_process(request: PlanRequest, repeats: int) -> Process:
    """Medians of whole `scepsy plan`s, files to file."""
    rates = [part for r in request.rates for part in ("--rate", f"{r.workflow}={r.rate_per_s}")]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, request)
        files = [
            part
            for option in ("traces.db", "profiles.json", "cluster.yaml")
            for part in (f"--{option.split('.')[0]}", str(folder / option))
        ]
        command = [sys.executable, "-m", "scepsy", "plan", *files, *rates]
        runs = [measured([*command, "--output", str(folder / "plan.json")]) for _ in range(repeats)]
    return Process(
        wall_s=median(run.wall_s for run in runs),
        cpu_s=median(run.cpu_s for run in runs),
        peak_bytes=max(run.peak_bytes for run in runs),
    )


def measure(llms: int, gpus: int, repeats: int, *, process: bool) -> Measured:
    """One size; the whole process only if asked for."""
    say(f"{llms} LLMs, {gpus} GPUs")
    request = a_request(llms, gpus // GPUS_PER_NODE)
    plans = [plan_s(request) for _ in range(repeats)]
    plan = plans[0][2]
    searches = [search_s(request) for _ in range(repeats)]
    return Measured(
        llms=llms,
        gpus=gpus,
        repeats=repeats,
        search_s=median(seconds for seconds, _ in searches),
        search_cpu_s=median(cpu_s for _, cpu_s in searches),
        plan_s=median(seconds for seconds, _, _ in plans),
        plan_cpu_s=median(cpu_s for _, cpu_s, _ in plans),
        above_bound=(plan.objective_s or 0) / (plan.bound_s or 1) - 1,
        process=plan_process(request, repeats) if process else None,
    )


def say(line: str) -> None:
    print(line, file=sys.stderr)


def main(*, docs: bool) -> None:
    load = os.getloadavg()[0]
    sizes = [measure(t.llms, t.gpus, REPEATS, process=True) for t in TARGETS]
    by_llms, by_gpus = (
        [measure(llms, gpus, GROWTH_REPEATS, process=False) for llms, gpus in growth]
        for growth in (LLM_GROWTH, GPU_GROWTH)
    )
    if docs:
        write_page(list(zip(TARGETS, sizes, strict=True)), by_llms, by_gpus, load)
    report(
        "search",
        repeats=REPEATS,
        load_before=load,
        targets=[{**asdict(t), "met": met(t, got)} for t, got in zip(TARGETS, sizes, strict=True)],
        sizes=[asdict(one) for one in sizes],
        growth_in_llms=[asdict(one) for one in by_llms],
        growth_in_gpus=[asdict(one) for one in by_gpus],
    )


if __name__ == "__main__":
    main(docs="--docs" in sys.argv[1:])
