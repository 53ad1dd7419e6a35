"""The figures of the evaluation, as SVG. Same results, same bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.paper.results import SLO_FACTORS, Field
from benchmarks.paper.settings import WORKLOADS
from benchmarks.paper.systems import OURS
from benchmarks.svg import MARKERS, PALETTE, drawn
from scepsy.report.figures import STYLE

PEAKS = "peaks.svg"


def latency_against_throughput(
    workload: str, of_gpus: Mapping[int, Field], systems: Sequence[str]
) -> str:
    """A panel for each cluster: mean latency of every system, as far as it keeps up."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(of_gpus), 3.2), layout="constrained")
        axes = figure.subplots(1, len(of_gpus), squeeze=False)[0]
        for panel, (gpus, field) in zip(axes, of_gpus.items(), strict=True):
            for name in field.systems:
                points = list(field.curve(name))
                if points:
                    panel.errorbar(
                        [rate for rate, _ in points],
                        [mean.value for _, mean in points],
                        [mean.half for _, mean in points],
                        label=name,
                        markersize=4,
                        linewidth=1.8 if name == OURS else 1.1,
                        **_look(name, systems),
                    )
            panel.set_yscale("log")
            panel.set_title(f"{WORKLOADS[workload].title}, {gpus} GPUs")
            panel.set_xlabel("executions/s")
        axes[0].set_ylabel("mean execution latency (s)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        return drawn(figure)


def peak_bars(
    fields: Mapping[tuple[str, int], Field], systems: Sequence[str], slo_factor: float
) -> str:
    """Peak rate at an SLO over ours, for every workload and cluster."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 1.0 * len(fields)), 3.2), layout="constrained")
        panel = figure.subplots()
        width = 0.8 / len(systems)
        for at, name in enumerate(systems):
            heights = [_part_of_ours(field, name, slo_factor) for field in fields.values()]
            panel.bar(
                [n + (at - len(systems) / 2 + 0.5) * width for n in range(len(heights))],
                heights,
                width,
                label=name,
                color=_look(name, systems)["color"],
            )
        names = [f"{WORKLOADS[workload].title}\n{gpus} GPUs" for workload, gpus in fields]
        panel.set_xticks(range(len(names)), names, fontsize=7)
        panel.set_ylabel("peak rate at the SLO, over ours")
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        return drawn(figure)


def _part_of_ours(field: Field, name: str, slo_factor: float) -> float:
    """0 where it misses the SLO at the lowest rate already."""
    ours, own = field.peak(OURS, slo_factor), field.peak(name, slo_factor)
    if ours is None or own is None or own.is_bound or ours.is_bound:
        return 0.0
    return own.rate_per_s.value / ours.rate_per_s.value


def pictures(fields: Mapping[tuple[str, int], Field]) -> Mapping[str, str]:
    """File name and SVG of every figure."""
    systems = [OURS]
    by_workload: dict[str, dict[int, Field]] = {}
    for (workload, gpus), field in fields.items():
        by_workload.setdefault(workload, {})[gpus] = field
        systems += [name for name in field.systems if name not in systems]
    found = {
        f"latency-{workload.replace('_', '-')}.svg": latency_against_throughput(
            workload, of_gpus, systems
        )
        for workload, of_gpus in by_workload.items()
    }
    if fields:
        found[PEAKS] = peak_bars(fields, systems, SLO_FACTORS[0])
    return found


def _look(name: str, systems: Sequence[str]) -> dict[str, Any]:
    if name == OURS:
        return {"color": "#000000", "marker": "o"}
    at = [each for each in systems if each != OURS].index(name)
    return {"color": PALETTE[at % len(PALETTE)], "marker": MARKERS[at % len(MARKERS)]}
