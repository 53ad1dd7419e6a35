"""Put all that a demo found on one page."""

import os
import platform
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from examples.demo.compare import Expectation
from scepsy import __version__
from scepsy.model.execution import Execution
from scepsy.model.plan import Plan
from scepsy.model.workflow import Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.report.page import ReportInput, render_report
from scepsy.traces.store import SqliteTraceStore

_DRAWN_EXECUTIONS = 6
"""Of each workflow."""


def some_executions(traces: Path, workflows: Iterable[str]) -> tuple[Execution, ...]:
    """The first few recorded executions of each workflow, to be drawn."""
    with SqliteTraceStore.open(traces, create=False) as store:
        return tuple(
            execution
            for name in workflows
            for execution in islice(
                store.executions(WorkflowName(name), with_blocks=False), _DRAWN_EXECUTIONS
            )
        )


def write_report(
    path: Path,
    expectation: Expectation,
    comparisons: Sequence[Comparison],
    bottlenecks: Sequence[BottleneckComparison],
    *,
    title: str,
    facts: Iterable[str],
    executions: Sequence[Execution],
    plans: Sequence[Plan],
) -> None:
    """Write the page: what was recorded, profiled, planned and measured."""
    report = ReportInput(
        title=title,
        facts=(
            f"scepsy {__version__}",
            f"Python {platform.python_version()} on {os.cpu_count()} CPUs ({platform.machine()})",
            *facts,
        ),
        executions=tuple(executions),
        demands=expectation.demands,
        curves=_drawn(expectation.profiles, plans),
        plans=tuple(plans),
        comparisons=tuple(comparisons),
        bottlenecks=tuple(bottlenecks),
    )
    path.write_text(render_report(report), encoding="utf-8")


def _drawn(profiles: ProfileSet, plans: Sequence[Plan]) -> tuple[ProfileCurve, ...]:
    """For each stage and planned degree the curves of the least and the largest fraction."""
    planned = {(g.llm, g.tensor_parallel) for plan in plans for g in plan.allocation.groups}
    found: dict[tuple[Stage, int], list[ProfileCurve]] = {}
    for curve in sorted(profiles.curves, key=lambda curve: curve.key):
        key = curve.key
        if key.replicas == 1 and (key.stage.llm, key.tensor_parallel) in planned:
            found.setdefault((key.stage, key.tensor_parallel), []).append(curve)
    return tuple(curve for curves in found.values() for curve in (curves[0], curves[-1]))
