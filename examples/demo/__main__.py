"""The main job from end to end, without a GPU: record, profile, plan, serve, compare.

python -m examples.demo --out demo-out --seed 0
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
import uvloop

from examples.demo.compare import (
    Expectation,
    compare_capacity,
    compare_latency,
    served_executions,
)
from examples.demo.record import record
from examples.demo.report import some_executions, write_report
from examples.demo.serve import SERVED_GPUS, Measured, measure
from examples.demo.settings import DemoSettings
from examples.demo.talk import console, elapsed_s, heading, scepsy, show
from scepsy.cli.output import fail, progress
from scepsy.errors import ScepsyError
from scepsy.files.plan_file import load_plan
from scepsy.model.workflow import WorkflowName
from scepsy.profiles.store import load_profiles
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.traces.demand import demand
from scepsy.traces.store import SqliteTraceStore

CLUSTERS = {16: (2, 8), 4: (1, 4)}
"""GPUs of each cluster that is planned for, as nodes x GPUs of a node."""


def record_workflows(settings: DemoSettings) -> None:
    """Step 1: run the workflows through the gateway and keep what it saw."""
    settings.out.mkdir(parents=True, exist_ok=True)
    for old in settings.out.glob("*.db*"):
        old.unlink()
    total = settings.recorded_executions * len(settings.rates)
    with progress("recording executions", total=total) as advance:
        records = uvloop.run(record(settings, lambda _: advance()))
    ok = sum(r.ok for r in records)
    correct = sum(r.correct for r in records)
    console.print(f"{ok} of {len(records)} executions ended well, {correct} with a right answer")


def plan_clusters(settings: DemoSettings) -> None:
    """Steps 2 to 4: demand, profiles, and a plan for each cluster."""
    traces, profiles = str(settings.path("traces.db")), str(settings.path("profiles.json"))
    heading("What the workflows ask of their LLMs")
    scepsy("demand", traces)
    heading("What each LLM can do with these calls")
    workflows = [f"--workflow={name}" for name in settings.rates]
    scepsy(
        "profile", "--traces", traces, *workflows, "--gpu", settings.gpu,
        "--replicas", "1,2", "--output", profiles,
    )  # fmt: skip
    rates = [f"--rate={name}={rate:g}" for name, rate in settings.rates.items()]
    for gpus, (nodes, per_node) in CLUSTERS.items():
        heading(f"A plan for {gpus} GPUs ({nodes} x {per_node} {settings.gpu.upper()})")
        cluster = settings.path(f"cluster-{gpus}.yaml")
        cluster.write_text(
            f"nodes:\n  - gpu: {settings.gpu}\n    gpus: {per_node}\n    count: {nodes}\n", "utf-8"
        )
        plan = settings.path(f"plan-{gpus}.json")
        scepsy(
            "plan",
            "--traces",
            traces,
            "--profiles",
            profiles,
            "--cluster",
            str(cluster),
            *rates,
            "--output",
            str(plan),
        )


def expectation_of(settings: DemoSettings) -> Expectation:
    """What the plan that is served promises."""
    with SqliteTraceStore.open(settings.path("traces.db"), create=False) as traces:
        demands = tuple(
            demand(traces.executions(WorkflowName(name), with_blocks=False))
            for name in sorted(settings.rates)
        )
    plan = load_plan(settings.path(f"plan-{SERVED_GPUS}.json"))
    return Expectation(plan, demands, load_profiles(settings.path("profiles.json")))


def compare(
    settings: DemoSettings, expectation: Expectation, measured: Measured
) -> tuple[list[Comparison], list[BottleneckComparison]]:
    """Step 6: every prediction beside its measurement."""
    comparisons: list[Comparison] = []
    bottlenecks: list[BottleneckComparison] = []
    for name, window in measured.saturated.items():
        executions = served_executions(settings.path("served.db"), window)[name]
        capacity, bottleneck = compare_capacity(expectation, name, window, executions)
        comparisons.append(capacity)
        bottlenecks.append(bottleneck)
    for name, window in measured.part_loaded.items():
        rate = settings.load_fraction * expectation.capacity_per_s(name)
        condition = f"{settings.load_fraction:.0%} of capacity, alone"
        prediction = expectation.at({name: rate})
        comparisons += compare_latency(prediction, condition, window, promised=True)
    comparisons += compare_latency(
        expectation.plan.prediction, "both at target", measured.target, promised=False
    )
    return comparisons, bottlenecks


def write_page(
    settings: DemoSettings,
    expectation: Expectation,
    comparisons: Sequence[Comparison],
    bottlenecks: Sequence[BottleneckComparison],
) -> Path:
    """Step 7: all of it on one page."""
    path = settings.path("report.html")
    write_report(
        path,
        expectation,
        comparisons,
        bottlenecks,
        title="Scepsy: from recording to served plan",
        facts=(f"seed {settings.seed}", f"emulated {settings.gpu.upper()} engines"),
        executions=some_executions(settings.path("traces.db"), settings.rates),
        plans=tuple(load_plan(settings.path(f"plan-{gpus}.json")) for gpus in CLUSTERS),
    )
    return path


def run(settings: DemoSettings) -> bool:
    """The whole demo; gives whether every promise was kept."""
    heading("Recording two workflows through the gateway, on three emulated engines")
    record_workflows(settings)
    plan_clusters(settings)
    heading(f"Serving the plan for {SERVED_GPUS} GPUs and measuring it")
    expectation = expectation_of(settings)
    with progress("serving and measuring", total=2 + 2 * len(settings.rates)) as advance:
        measured = uvloop.run(measure(settings, expectation, advance))
    comparisons, bottlenecks = compare(settings, expectation, measured)
    show(comparisons, bottlenecks)
    path = write_page(settings, expectation, comparisons, bottlenecks)
    console.print(f"report: {path}   ({elapsed_s():.0f} s)")
    verdicts = [each.is_kept for each in comparisons] + [each.is_kept for each in bottlenecks]
    return False not in verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run; 1 where something failed, or a promise was not kept and that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="where files go")
    parser.add_argument("--seed", type=int, default=0, help="of tasks, arrivals and answers")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a promise is missed")
    options = parser.parse_args(arguments)
    try:
        kept = run(DemoSettings(out=options.out, seed=options.seed))
    except ScepsyError as error:
        try:
            fail(error)
        except typer.Exit as end:
            return end.exit_code
    return int(options.strict and not kept)


if __name__ == "__main__":
    sys.exit(main())
