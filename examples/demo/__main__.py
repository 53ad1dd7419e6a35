"""The main job from end to end, without a GPU: record, profile, plan, serve, compare.

python -m examples.demo --out demo-out --seed 0
"""

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import typer
import uvloop
from rich.console import Console
from scepsy.files.plan_file import load_plan

from examples.connect import connect
from examples.demo.compare import (
    Expectation,
    compare_capacity,
    compare_latency,
    served_executions,
)
from examples.demo.measure import Measurement, Window
from examples.demo.record import record
from examples.demo.settings import DemoSettings
from scepsy import __version__
from scepsy.cli.output import fail, print_table, progress
from scepsy.deploy.process import Service
from scepsy.errors import ScepsyError
from scepsy.model.plan import WorkflowPrediction
from scepsy.model.workflow import WorkflowName
from scepsy.profiles.store import load_profiles
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.report.page import ReportInput, comparison_row, render_report
from scepsy.traces.demand import demand
from scepsy.traces.store import SqliteTraceStore

CLUSTERS = {16: (2, 8), 4: (1, 4)}
"""GPUs of each cluster that is planned for, as nodes x GPUs of a node."""
SERVED_GPUS = 4

console = Console(highlight=False)


def heading(text: str) -> None:
    """Start a step of the demo."""
    console.print(f"\n[bold]== {text}[/]")


def scepsy(*arguments: str) -> None:
    """Run a command of Scepsy as a user would, and show it.

    Raises:
        SystemExit: it failed; it has said why.
    """
    console.print(f"[dim]$ scepsy {shlex.join(arguments)}[/]")
    done = subprocess.run([sys.executable, "-m", "scepsy", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def record_workflows(settings: DemoSettings) -> None:
    """Step 1: run the workflows through the gateway and keep what it saw."""
    settings.out.mkdir(parents=True, exist_ok=True)
    for name in ("traces.db", "served.db"):
        for old in settings.out.glob(f"{name}*"):
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
    scepsy("profile", "--traces", traces, "--gpu", settings.gpu, "--output", profiles)
    rates = [f"--rate={name}={rate:g}" for name, rate in settings.rates.items()]
    for gpus, (nodes, per_node) in CLUSTERS.items():
        heading(f"A plan for {gpus} GPUs ({nodes} x {per_node} {settings.gpu.upper()})")
        cluster = settings.path(f"cluster-{gpus}.yaml")
        cluster.write_text(
            f"gpu: {settings.gpu}\nnodes: {nodes}\ngpus_per_node: {per_node}\n", "utf-8"
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


@dataclass(frozen=True, slots=True)
class Measured:
    """The windows of all loads on the served plan, by workflow where one ran alone."""

    target: Window
    part_loaded: dict[str, Window]
    saturated: dict[str, Window]


async def measure(settings: DemoSettings, expectation: Expectation) -> Measured:
    """Step 5: serve the plan, and load it."""
    arguments = (
        "deploy", "local", str(settings.path(f"plan-{SERVED_GPUS}.json")),
        f"--speedup={settings.served_speedup:g}", "--port=0",
        f"--record={settings.path('served.db')}",
        *(f"--script={path}" for path in settings.scripts),
    )  # fmt: skip
    console.print(f"[dim]$ scepsy {shlex.join(arguments)}[/]")
    part_loaded: dict[str, Window] = {}
    saturated: dict[str, Window] = {}
    async with AsyncExitStack() as stack:
        advance = stack.enter_context(
            progress("serving and measuring", total=2 * len(settings.rates) + 1)
        )
        service = await stack.enter_async_context(Service("deployment", arguments))
        client = await stack.enter_async_context(connect(f"{service.url}/v1"))
        run = Measurement(settings, client)
        all_together = expectation.plan.prediction.workflows
        target = await run.at_rates(
            "target", list(settings.rates.items()), warm_up_s=_warm_up_s(all_together)
        )
        advance()
        for name in settings.rates:
            rate = settings.load_fraction * expectation.capacity_per_s(name)
            alone = expectation.alone(name, rate).workflows
            part_loaded[name] = await run.at_rates(
                f"part-{name}", [(name, rate)], warm_up_s=_warm_up_s(alone)
            )
            advance()
        for name in settings.rates:
            rate = settings.full_fraction * expectation.capacity_per_s(name)
            full = expectation.alone(name, rate).workflows[0]
            # By Little's law; twice as many leave no doubt that all engines are kept busy.
            inflight = rate * full.execution_s_mean
            saturated[name] = await run.saturated(
                f"full-{name}",
                name,
                concurrency=round(2 * inflight),
                warm_up_s=2 * full.execution_s_mean,
            )
            advance()
    return Measured(target, part_loaded, saturated)


def _warm_up_s(workflows: Sequence[WorkflowPrediction]) -> float:
    """Until about as many executions run as will later on."""
    return max(workflow.execution_s_p95 for workflow in workflows)


def compare(
    settings: DemoSettings, expectation: Expectation, measured: Measured
) -> tuple[list[Comparison], list[BottleneckComparison]]:
    """Step 6: every prediction beside its measurement."""
    store = settings.path("served.db")
    comparisons: list[Comparison] = []
    bottlenecks: list[BottleneckComparison] = []
    for name, window in measured.saturated.items():
        executions = served_executions(store, window)[name]
        capacity, bottleneck = compare_capacity(expectation, name, window, executions)
        comparisons.append(capacity)
        bottlenecks.append(bottleneck)
    for name, window in measured.part_loaded.items():
        prediction = expectation.alone(
            name, settings.load_fraction * expectation.capacity_per_s(name)
        )
        condition = f"{settings.load_fraction:.0%} of capacity, alone"
        comparisons += compare_latency(prediction, condition, window, promised=True)
    comparisons += compare_latency(
        expectation.plan.prediction, "both at target", measured.target, promised=False
    )
    return comparisons, bottlenecks


def show(comparisons: Sequence[Comparison], bottlenecks: Sequence[BottleneckComparison]) -> None:
    """Print the comparison."""
    header = ("", "condition", "predicted", "measured", "error", "promised", "")
    print_table("Predicted against measured", header, map(comparison_row, comparisons))
    for each in bottlenecks:
        verdict = "kept" if each.is_kept else "missed"
        console.print(
            f"bottleneck of {each.workflow}: predicted {each.predicted}, "
            f"measured {each.measured} ({verdict})"
        )


def write_report(
    settings: DemoSettings,
    expectation: Expectation,
    comparisons: Sequence[Comparison],
    bottlenecks: Sequence[BottleneckComparison],
) -> Path:
    """Step 7: all of it on one page."""
    with SqliteTraceStore.open(settings.path("traces.db"), create=False) as traces:
        drawn = tuple(
            execution
            for name in settings.rates
            for execution in islice(traces.executions(WorkflowName(name), with_blocks=False), 6)
        )
    plans = tuple(load_plan(settings.path(f"plan-{gpus}.json")) for gpus in CLUSTERS)
    shapes = {(g.llm, g.tensor_parallel) for plan in plans for g in plan.allocation.groups}
    curves = tuple(
        c
        for c in expectation.profiles.curves
        if (c.key.stage.llm, c.key.tensor_parallel) in shapes and c.key.replicas == 1
    )
    path = settings.path("report.html")
    report = ReportInput(
        title="Scepsy: from recording to served plan",
        facts=(
            f"scepsy {__version__}",
            f"Python {platform.python_version()} on {os.cpu_count()} CPUs ({platform.machine()})",
            f"seed {settings.seed}",
            f"emulated {settings.gpu.upper()} engines, {settings.served_speedup:g} times real time",
            f"windows of {settings.measured_s:g} s",
        ),
        executions=drawn,
        demands=expectation.demands,
        curves=curves,
        plans=plans,
        comparisons=tuple(comparisons),
        bottlenecks=tuple(bottlenecks),
    )
    path.write_text(render_report(report), encoding="utf-8")
    return path


def run(settings: DemoSettings) -> bool:
    """The whole demo; gives whether every promise was kept."""
    began_s = time.monotonic()
    heading("Recording two workflows through the gateway, on three emulated engines")
    record_workflows(settings)
    plan_clusters(settings)
    heading(f"Serving the plan for {SERVED_GPUS} GPUs and measuring it")
    expectation = expectation_of(settings)
    measured = uvloop.run(measure(settings, expectation))
    comparisons, bottlenecks = compare(settings, expectation, measured)
    show(comparisons, bottlenecks)
    path = write_report(settings, expectation, comparisons, bottlenecks)
    console.print(f"report: {path}   ({time.monotonic() - began_s:.0f} s)")
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
