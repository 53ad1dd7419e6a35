"""Figures as SVG text. Same values, same bytes: no date and no random ids."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scepsy.model.execution import Call, Execution
from scepsy.model.plan import Plan
from scepsy.model.workflow import LlmName
from scepsy.profiles.curve import ProfileCurve
from scepsy.report.comparison import Comparison
from scepsy.traces.demand import WorkflowDemand

# Okabe and Ito's palette: told apart under all common colour blindness.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scepsy",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
"""Of a figure from its first line on: for ``mpl.rc_context``."""

Colours = Mapping[LlmName, str]


def llm_colours(llms: Iterable[LlmName]) -> Colours:
    """One colour for each LLM, the same in every figure of a report."""
    return {llm: _PALETTE[i % len(_PALETTE)] for i, llm in enumerate(sorted(set(llms)))}


@contextmanager
def _figure(width: float, height: float, columns: int = 1) -> Iterator[tuple[list[Axes], "_Svg"]]:
    svg = _Svg()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield list(axes), svg
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    svg.text = text[text.index("<svg") :]


class _Svg:
    """Filled when the figure's block ends."""

    text: str = ""


def timelines(executions: Sequence[Execution], colours: Colours) -> str:
    """One row of bars for each execution: a bar is a call, its shade the LLM.

    Calls that overlap are stacked within the row, so fan-out is seen as height.
    """
    with _figure(9.5, 0.5 + 0.55 * len(executions)) as ((axes,), svg):
        for row, execution in enumerate(executions):
            lanes = _lanes(execution)
            height = 0.86 / max(len(lanes), 1)
            for lane, calls in enumerate(lanes):
                for call in calls:
                    axes.add_patch(
                        Rectangle(
                            (call.start_s - execution.start_s, row - 0.43 + lane * height),
                            call.e2e_s,
                            height * 0.92,
                            color=colours[call.llm],
                            linewidth=0,
                        )
                    )
        axes.set_xlim(0, max(e.execution_s for e in executions) * 1.02)
        axes.set_ylim(len(executions) - 0.5, -0.5)
        axes.set_yticks(
            range(len(executions)),
            [f"…{e.id[-12:]}" if len(e.id) > 13 else e.id for e in executions],
        )
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds since the execution's first call")
        used = sorted({call.llm for e in executions for call in e.calls})
        handles = [Rectangle((0, 0), 1, 1, color=colours[llm]) for llm in used]
        axes.legend(handles, used, loc="lower right", fontsize=8)
    return svg.text


def _lanes(execution: Execution) -> list[list[Call]]:
    lanes: list[list[Call]] = []
    for call in execution.calls:
        free = next((lane for lane in lanes if lane[-1].end_s <= call.start_s), None)
        if free is None:
            lanes.append([call])
        else:
            free.append(call)
    return lanes


def demand_shares(demands: Sequence[WorkflowDemand], colours: Colours) -> str:
    """Part of the LLM time that each stage takes, with its spread over executions."""
    rows = [(demand.workflow, stage) for demand in demands for stage in demand.stages]
    with _figure(8, 0.8 + 0.32 * len(rows)) as ((axes,), svg):
        for at, (_, stage) in enumerate(rows):
            share = stage.time_share
            spread = [[max(share.mean - share.p5, 0)], [max(share.p95 - share.mean, 0)]]
            axes.barh(at, share.mean, color=colours[stage.stage.llm], height=0.7)
            axes.errorbar(share.mean, at, xerr=spread, color="#333", capsize=3, linewidth=1)
        axes.set_yticks(range(len(rows)), [f"{w} / {s.stage.label}" for w, s in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share of an execution's LLM time: mean, and 5th to 95th percentile")
    return svg.text


def profile_curves(curves: Sequence[ProfileCurve], colours: Colours) -> str:
    """Mean latency of a call against calls/s of one replica, a line for each shape."""
    styles = ("-", "--", ":", "-.")
    stages = sorted({curve.key.stage for curve in curves})
    columns = min(3, len(stages))
    texts = []
    for at in range(0, len(stages), columns):
        part = stages[at : at + columns]
        with _figure(3.3 * columns, 2.7, columns) as (axes, svg):
            for axis in axes[len(part) :]:
                axis.set_axis_off()
            for axis, stage in zip(axes, part, strict=False):
                for n, curve in enumerate(c for c in curves if c.key.stage == stage):
                    key = curve.key
                    axis.plot(
                        [p.utilization * curve.capacity_per_s for p in curve.points],
                        [p.latency_s_mean for p in curve.points],
                        styles[n % len(styles)],
                        color=colours[stage.llm],
                        marker=".",
                        label=f"TP {key.tensor_parallel}, {key.gpu_fraction:.1f} GPU",
                    )
                axis.set_title(f"{stage.workflow}\n{stage.label}", fontsize=9)
                axis.set_xlabel("calls/s per replica")
                axis.set_ylim(bottom=0)
                axis.legend(fontsize=7)
            axes[0].set_ylabel("mean latency of a call (s)")
        texts.append(svg.text)
    return "\n".join(texts)


def cluster_picture(plan: Plan, colours: Colours) -> str:
    """Every GPU as a box, filled by the fractions of the replicas that sit on it."""
    nodes: dict[str, list[str]] = {}
    for gpu in plan.cluster.gpus:
        nodes.setdefault(gpu.node, []).append(gpu.id)
    widest = max(map(len, nodes.values()))
    with _figure(max(4.0, 1.15 * widest + 0.8), 1.75 * len(nodes) + 0.3) as ((axes,), svg):
        corners = {
            gpu_id: (column * 1.15, row * 1.35)
            for row, ids in enumerate(nodes.values())
            for column, gpu_id in enumerate(ids)
        }
        for gpu_id, (x, y) in corners.items():
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="#888", linewidth=1))
            axes.text(x + 0.5, y + 1.06, gpu_id, ha="center", va="top", fontsize=7, color="#555")
        filled = dict.fromkeys(corners, 0.0)
        for replica in plan.placement.replicas:
            fraction = replica.gpu_fraction
            for gpu_id in replica.gpus:
                x, y = corners[gpu_id]
                low = y + 1 - filled[gpu_id] - fraction
                filled[gpu_id] += fraction
                colour = colours[replica.llm]
                axes.add_patch(Rectangle((x, low), 1, fraction, color=colour, linewidth=0))
                label = f"{replica.name}\n{fraction:.0%}" if fraction > 0.25 else replica.name
                axes.text(
                    x + 0.5,
                    low + fraction / 2,
                    label,
                    ha="center",
                    va="center",
                    fontsize=min(7.0, 110 / len(replica.name)),
                    color="white",
                )
        axes.set_xlim(-0.1, widest * 1.15)
        axes.set_ylim(len(nodes) * 1.35, -0.1)
        axes.set_axis_off()
        axes.set_aspect("equal")
    return svg.text


def predicted_and_measured(comparisons: Sequence[Comparison]) -> str:
    """Each comparison as measured over predicted; 1 is a perfect prediction."""
    with _figure(8, 0.8 + 0.32 * len(comparisons)) as ((axes,), svg):
        for at, comparison in enumerate(comparisons):
            if allowed := comparison.max_error_fraction:
                axes.barh(
                    at, 2 * allowed, left=1 - allowed, height=0.8, color="#009E73", alpha=0.18
                )
            colour = "#D55E00" if comparison.is_kept is False else "#0072B2"
            axes.plot(1 + comparison.error_fraction, at, "o", color=colour)
        axes.axvline(1, color="#333", linewidth=1)
        names = [f"{c.workflow}: {c.quantity}, {c.condition}" for c in comparisons]
        axes.set_yticks(range(len(comparisons)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("predicted / measured; green: the promised error")
    return svg.text
