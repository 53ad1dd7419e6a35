"""The one knob, from the tail to throughput: python -m benchmarks.programs.frontier

Runs ``ours`` with one ``patience`` after the other (``scepsy.policy.dispatch_settings.Settings``),
all else as it is. For every cell a table, with --page for all of the half that have been run, into
docs/reference/programs.md, and a figure beside it.

Needs SCEPSY_DATA. Results are JSON lines; what is there is not run again without ``--again``.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isinf
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.paper.statistics import Mean, mean_of
from benchmarks.programs import page, results, tables
from benchmarks.programs.measure import Run
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.side_runs import Wanted, parser, run_cells
from benchmarks.programs.systems import SYSTEMS, System
from benchmarks.svg import MARKERS, PALETTE, drawn
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.report.figures import STYLE

FILE, PICTURE = "frontier.jsonl", "programs-knob.svg"
COMMAND = "python -m benchmarks.programs.frontier --page"
DEFAULT = Settings().patience
VALUES = tuple(sorted({0.3, 0.6, 1.25, 2.5, 5.0, 10.0, inf, DEFAULT}))
NEVER = 1e9
"""Patience that does not end before the run does."""
GOAL = 0.95
"""Of the most throughput of all values."""
_NAME = "patience "


@dataclass(frozen=True, slots=True)
class Point:
    """One value of the knob on one cell."""

    patience: float
    runs: Sequence[Run]
    """By seed."""
    part: Mean
    """Of the throughput of the value that has the most, seed by seed."""


def system(patience: float) -> System:
    """Ours, but for its patience."""
    ours = SYSTEMS["ours"]
    whole = ours.dispatcher()
    assert isinstance(whole, ByProgram)
    settings = replace(whole.settings, patience=min(patience, NEVER))
    return replace(ours, dispatcher=lambda: ByProgram(settings))


def name(patience: float) -> str:
    return f"{_NAME}{patience:g}"


def frontier(by_name: Mapping[str, Sequence[Run]]) -> Sequence[Point]:
    """One cell, by rising patience, over the seeds that all of them have."""
    seeds = set.intersection(*({run.seed for run in runs} for runs in by_name.values()))
    kept = {
        float(each.removeprefix(_NAME)): sorted(
            (run for run in runs if run.seed in seeds), key=lambda run: run.seed
        )
        for each, runs in by_name.items()
    }
    most = max(kept.values(), key=lambda runs: sum(run.executions_per_s for run in runs))

    def part(runs: Sequence[Run]) -> Mean:
        pairs = zip(runs, most, strict=True)
        return mean_of([run.executions_per_s / best.executions_per_s for run, best in pairs])

    return [Point(patience, kept[patience], part(kept[patience])) for patience in sorted(kept)]


def table(points: Sequence[Point]) -> str:
    """A line for each value; the default's is bold."""
    lines = [
        "| patience | executions/h | of the most | task time (s) | p99 task (s) | p99 TTFT (s) |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        value = _label(point.patience)
        late = sum(run.unfinished for run in point.runs)
        spread = f" ± {point.part.half:.1%}" if point.part.count > 1 else ""
        lines.append(
            f"| {f'**{value}**' if point.patience == DEFAULT else value} "
            f"| {tables.shown(point.runs, lambda run: 3600 * run.executions_per_s)} "
            f"| {point.part.value:.1%}{spread} "
            f"| {tables.shown(point.runs)}{f' ({late} unfinished)' if late else ''} "
            f"| {tables.shown(point.runs, lambda run: run.task_p99_s)} "
            f"| {tables.shown(point.runs, lambda run: run.ttft_p99_s, digits=1)} |"
        )
    return "\n".join(lines)


def section(cells: Mapping[str, Sequence[Point]]) -> str:
    """A table for each cell."""
    parts = []
    for cell, points in cells.items():
        seeds = len(points[0].runs)
        parts += [f"**{cell}**, {seeds} seed{'' if seeds == 1 else 's'}", table(points)]
    return "\n\n".join(parts)


def write(cells: Mapping[str, Sequence[Point]], half: str) -> Path:
    """Put figure and tables into the page."""
    shown = f"![Throughput by p99 TTFT, for each patience, on every cell]({PICTURE})"
    part = f"On the half for {half}:\n\n{shown}\n\n{section(cells)}"
    (page.PAGE.parent / PICTURE).write_text(picture(cells))
    return page.put({"frontier": part}, COMMAND)


def picture(cells: Mapping[str, Sequence[Point]]) -> str:
    """A panel for each workload with a line for each of its cells, as SVG."""
    kinds = list(dict.fromkeys(_kind(cell) for cell in cells))
    workloads = list(dict.fromkeys(cell.partition("-")[0] for cell in cells))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 3.8 * len(workloads)), 3.8), layout="constrained")
        panels = figure.subplots(1, len(workloads), sharey=True, squeeze=False)[0]
        for panel, workload in zip(panels, workloads, strict=True):
            for cell, points in cells.items():
                if cell.startswith(f"{workload}-"):
                    _line(panel, points, kinds.index(_kind(cell)), _kind(cell))
            panel.axhline(100 * GOAL, color="#666666", linewidth=0.8, linestyle="--")
            panel.set(title=workload, xlabel="p99 TTFT (s)", xscale="log")
            panel.margins(0.1)
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            panel.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("executions/h, of the most (%)")
        shown = {
            label: handle
            for panel in panels
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False
        )
        return drawn(figure)


def _line(panel: Axes, points: Sequence[Point], at: int, label: str) -> None:
    color, marker = PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]
    places = [
        (mean_of([run.ttft_p99_s for run in point.runs]).value, 100 * point.part.value)
        for point in points
    ]
    panel.errorbar(
        [x for x, _ in places],
        [y for _, y in places],
        [100 * point.part.half for point in points],
        color=color,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        elinewidth=0.6,
        label=label,
    )
    for number, (point, place) in enumerate(zip(points, places, strict=True)):
        is_default = point.patience == DEFAULT
        if is_default:
            panel.plot(
                *place,
                "o",
                label=f"the default, {DEFAULT:g}",
                markersize=10,
                markerfacecolor="none",
                markeredgecolor="#000000",
            )
        panel.annotate(
            "∞" if isinf(point.patience) else f"{point.patience:g}",
            place,
            xytext=(4, 5 if number % 2 else -10),
            textcoords="offset points",
            fontsize=7,
            fontweight="bold" if is_default else "normal",
        )


def _kind(cell: str) -> str:
    return cell.partition("-")[2]


def _label(patience: float) -> str:
    return "never ends" if isinf(patience) else f"{patience:g}"


def _values(text: str) -> Sequence[float]:
    found = sorted({float(each) for each in text.split(",")})
    if not all(value >= 0 for value in found):
        raise argparse.ArgumentTypeError(f"patience is 0 or more, or inf, not {text}")
    return found


def main() -> None:
    asked = parser("benchmarks.programs.frontier", workloads="swe,coding,chat")
    asked.add_argument("--patience", type=_values, default=VALUES, help="values, or inf")
    asked.add_argument("--page", action="store_true", help="write all runs of the half to it")
    options = asked.parse_args()

    def wanted(scenario: Scenario) -> Iterator[Wanted]:
        for patience in options.patience:
            yield name(patience), name(patience), system(patience), scenario

    cells = run_cells(options, FILE, wanted)
    if options.page:
        runs = results.read(options.out / FILE).values()
        cells = tables.by_cell(run for run in runs if run.half == options.half)
    found = {cell: frontier(by_name) for cell, by_name in cells.items()}
    if options.page:
        print(f"wrote {write(found, options.half)} and {PICTURE} beside it", file=sys.stderr)
    else:
        print(section(found))


if __name__ == "__main__":
    main()
