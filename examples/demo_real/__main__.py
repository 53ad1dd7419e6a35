"""The main job from end to end on a real model, on the CPU: record, profile, plan, serve, compare.

    python -m examples.demo_real --out demo-out/real

Smaller than ``examples.demo``: a CPU answers tens of tokens/s, so there are tens of executions,
not hundreds, and what is measured scatters. Nothing is promised of the errors.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import typer

from examples.demo.compare import Expectation, compare_capacity, compare_latency
from examples.demo.report import some_executions, write_report
from examples.demo.talk import console, elapsed_s, heading, scepsy, show
from examples.demo_real.engines import run_to_end
from examples.demo_real.settings import ENGINES, RealSettings
from examples.demo_real.work import (
    Measured,
    load_plan_served,
    profile,
    record,
    with_queues,
    workloads,
)
from scepsy.cli.output import fail, progress
from scepsy.engines.llama_cpp import find_smollm2
from scepsy.errors import EngineError, ScepsyError
from scepsy.files.plan_file import load_plan
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.predict.pipeline import RatedWorkflow, predict
from scepsy.profiles.curve import ProfileSet
from scepsy.profiles.store import load_profiles, save_profiles
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.traces.demand import WorkflowDemand, demand
from scepsy.traces.store import SqliteTraceStore

CLUSTER = """\
# Each `GPU` is one CPU engine. The planner weighs memory by its profiles alone, so the size of
# a GPU plays no part here.
gpu_types:
{types}
nodes:
{nodes}
"""

NEXT_TO_NOTHING = 1e-6
"""A rate at which nothing is near its capacity."""


def record_workflows(settings: RealSettings) -> None:
    """Step 1: run the workflows through the gateway and keep what it saw.

    Raises:
        EngineError: an execution failed.
    """
    total = settings.recorded_executions * len(settings.workflows)
    with progress("recording executions", total=total) as advance:
        records = run_to_end(record(settings, lambda _: advance()))
    if failed := [each for each in records if not each.ok]:
        raise EngineError(f"{len(failed)} executions failed; the first: {failed[0].error}")
    right = sum(each.correct for each in records)
    console.print(
        f"{len(records)} executions ended well, {right} with a right answer "
        "(a model of 135 million weights is not asked for those)"
    )


def profile_engines(settings: RealSettings) -> None:
    """Step 3: measure each recorded stage on the engine that serves its LLM."""
    with SqliteTraceStore.open(settings.path("traces.db"), create=False) as store:
        replayed = workloads(
            settings,
            [each for name in settings.workflows for each in store.executions(WorkflowName(name))],
        )
    steps = (1 + len(settings.profiled_loads)) * sum(map(len, replayed.values()))
    with progress("measuring both engines over HTTP", total=steps) as advance:
        curves = run_to_end(profile(settings, replayed, advance))
    save_profiles(settings.path("profiles.json"), ProfileSet(curves))
    load = settings.target_load
    for curve in sorted(curves, key=lambda curve: curve.key):
        console.print(
            f"{curve.key.stage!s}: {curve.capacity_per_s:.2f} calls/s on {curve.key.gpu_type}, "
            f"{curve.latency_s(load):.2f} s at {load:.0%} load"
        )


def target_rates(settings: RealSettings, demands: Sequence[WorkflowDemand]) -> Mapping[str, float]:
    """Rates that load no engine further than is wanted; each workflow takes an equal part."""
    groups = (
        ReplicaGroup(
            llm=LlmName(engine.llm),
            gpu_type=GpuTypeName(engine.gpu_type),
            tensor_parallel=1,
            replicas=1,
        )
        for engine in sorted(ENGINES, key=lambda engine: engine.llm)
    )
    allocation = Allocation(tuple(groups))
    profiles = load_profiles(settings.path("profiles.json"))
    rated = [RatedWorkflow(each, WorkflowRate(each.workflow, NEXT_TO_NOTHING)) for each in demands]
    return {
        each.workflow: settings.target_load * each.capacity_alone_per_s / len(demands)
        for each in predict(rated, allocation, profiles).workflows
    }


def plan_engines(settings: RealSettings) -> Expectation:
    """Step 4: a plan for a cluster of two `GPUs`, each of which is one CPU engine."""
    with SqliteTraceStore.open(settings.path("traces.db"), create=False) as traces:
        demands = tuple(
            demand(traces.executions(WorkflowName(name), with_blocks=False))
            for name in sorted(settings.workflows)
        )
    rates = target_rates(settings, demands)
    types = "\n".join(f"  - name: {each.gpu_type}\n    memory_gib: 1.0" for each in ENGINES)
    nodes = "\n".join(f"  - gpu: {each.gpu_type}\n    gpus: 1" for each in ENGINES)
    cluster = settings.path("cluster.yaml")
    cluster.write_text(CLUSTER.format(types=types, nodes=nodes), encoding="utf-8")
    scepsy(
        "plan",
        f"--traces={settings.path('traces.db')}",
        f"--profiles={settings.path('profiles.json')}",
        f"--cluster={cluster}",
        *(f"--rate={name}={rate:.4g}" for name, rate in rates.items()),
        f"--output={settings.path('plan.json')}",
    )
    plan = load_plan(settings.path("plan.json"))
    return Expectation(plan, demands, load_profiles(settings.path("profiles.json")))


def compare(
    settings: RealSettings, expectation: Expectation, measured: Measured
) -> tuple[list[Comparison], list[BottleneckComparison]]:
    """Step 6: every prediction beside its measurement."""
    comparisons = compare_latency(
        expectation.plan.prediction, "both at target", measured.target, promised=False
    )
    bottlenecks: list[BottleneckComparison] = []
    for name, window in measured.saturated.items():
        watched, executions = with_queues(settings, window)
        capacity, bottleneck = compare_capacity(expectation, name, watched, executions)
        comparisons.append(replace(capacity, max_error_fraction=None))
        bottlenecks.append(bottleneck)
    return comparisons, bottlenecks


def run(settings: RealSettings) -> None:
    """The whole demo."""
    settings.out.mkdir(parents=True, exist_ok=True)
    for old in settings.out.glob("*.db*"):
        old.unlink()
    heading(f"Recording two workflows on two real engines ({settings.model.stem})")
    for engine in ENGINES:
        console.print(
            f"{engine.llm}: the same weights and one thread; {engine.slots} calls at a time, "
            f"prompts computed {engine.batch_tokens} tokens at a time"
        )
    console.print(
        f"{settings.recorded_executions} executions of each: a CPU answers tens of tokens/s"
    )
    record_workflows(settings)
    heading("What the workflows ask of their LLMs")
    scepsy("demand", str(settings.path("traces.db")))
    heading("What each engine can do with these calls")
    profile_engines(settings)
    heading("A plan for two `GPUs`")
    console.print(
        "A `GPU` is one CPU engine here, and each LLM was measured on one of them, so there is one "
        "way to place them; what the plan adds is whether they sustain the rates, and how fast."
    )
    expectation = plan_engines(settings)
    heading("Serving the plan on the same two engines and measuring it")
    with progress("serving and measuring", total=2 + len(settings.workflows)) as advance:
        measured = run_to_end(load_plan_served(settings, expectation, advance))
    comparisons, bottlenecks = compare(settings, expectation, measured)
    show(comparisons, bottlenecks)
    counts = Counter(each.workflow for each in measured.target.within)
    console.print(
        "executions that latencies at target are of: "
        + ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    )
    console.print(
        "Nothing is promised here: few executions, and engines, gateway and clients share the "
        "cores with all else that runs on this machine."
    )
    write_report(
        settings.path("report.html"),
        expectation,
        comparisons,
        bottlenecks,
        title="Scepsy on real engines",
        facts=(f"seed {settings.seed}", f"llama.cpp on the CPU serving {settings.model.name}"),
        executions=some_executions(settings.path("traces.db"), settings.workflows),
        plans=(expectation.plan,),
    )
    console.print(f"report: {settings.path('report.html')}   ({elapsed_s():.0f} s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run; 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo_real", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("demo-out/real"), help="where files go")
    parser.add_argument("--seed", type=int, default=0, help="of tasks, arrivals and answers")
    parser.add_argument("--model", type=Path, help="another GGUF file than SmolLM2's")
    options = parser.parse_args(arguments)
    try:
        model = options.model or find_smollm2()
        run(RealSettings(out=options.out, model=model, seed=options.seed))
    except ScepsyError as error:
        try:
            fail(error)
        except typer.Exit as end:
            return end.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
