"""Milliseconds to the best allocation and to a plan, by LLMs and GPUs, in tenths of a GPU.

On made-up profiles; beside them the whole `scepsy plan` process with its files, and its memory.

Two workflows, the second with every other LLM of the first. Each stage is profiled for 4 degrees,
3 fractions and 4 replica counts; the rates load the cluster by about half.
"""

import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.host import report
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


def search_s(request: PlanRequest) -> float:
    """Profiles to the best allocation, before placement."""
    start = perf_counter()
    asked = problem(request)
    next(choices(asked.options(), asked.budgets))
    return perf_counter() - start


def plan_s(request: PlanRequest) -> tuple[float, Plan]:
    """Profiles to a plan: placement and prediction included."""
    start = perf_counter()
    plan = make_plan(request)
    return perf_counter() - start, plan


def write_files(folder: Path, request: PlanRequest) -> None:
    """The files that `scepsy plan` reads: an execution of each workflow, profiles, a cluster."""
    save_profiles(folder / "profiles.json", request.profiles)
    nodes = len({gpu.node for gpu in request.cluster.gpus})
    (folder / "cluster.yaml").write_text(f"nodes: [{{gpu: h100, gpus: 8, count: {nodes}}}]\n")
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


def process_s(folder: Path, request: PlanRequest) -> float:
    """A whole `scepsy plan`, files to file."""
    rates = [part for r in request.rates for part in ("--rate", f"{r.workflow}={r.rate_per_s}")]
    files = ("--traces", "traces.db", "--profiles", "profiles.json", "--cluster", "cluster.yaml")
    command = [sys.executable, "-m", "scepsy", "plan", *files, *rates, "--output", "plan.json"]
    start = perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return perf_counter() - start


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def measure(llms: int, nodes: int, *, process: bool = True) -> dict[str, float]:
    """Milliseconds and how far the plan is from the bound, for one size."""
    request = a_request(llms, nodes)
    plans = [plan_s(request) for _ in range(REPEATS)]
    plan = plans[0][1]
    found = {
        "search_ms": round(1e3 * median([search_s(request) for _ in range(REPEATS)]), 1),
        "plan_ms": round(1e3 * median([seconds for seconds, _ in plans]), 1),
        "above_bound": round((plan.objective_s or 0) / (plan.bound_s or 1) - 1, 4),
    }
    if process:
        with TemporaryDirectory() as name:
            write_files(Path(name), request)
            whole = median([process_s(Path(name), request) for _ in range(REPEATS)])
        found["process_ms"] = round(1e3 * whole, 1)
        found["process_max_mib"] = round(getrusage(RUSAGE_CHILDREN).ru_maxrss / 1024, 0)
    return found


SIZES = ((5, 2), (10, 8), (50, 128), (200, 1250))
LLM_GROWTH = ((5, 32), (10, 32), (20, 32), (40, 32), (80, 32))
GPU_GROWTH = ((20, 4), (20, 16), (20, 64), (20, 256), (20, 1024))

if __name__ == "__main__":
    sizes = {f"{llms}_llms_{8 * nodes}_gpus": measure(llms, nodes) for llms, nodes in SIZES}
    growth = {
        f"{llms}_llms_{8 * nodes}_gpus": measure(llms, nodes, process=False)
        for llms, nodes in (*LLM_GROWTH, *GPU_GROWTH)
    }
    report("search", repeats=REPEATS, sizes=sizes, growth=growth)
