"""The report: what was recorded, profiled, planned and measured, on one page that works offline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from scepsy.model.execution import Execution
from scepsy.model.plan import Plan, WorkflowPrediction
from scepsy.model.workflow import LlmName
from scepsy.profiles.curve import ProfileCurve
from scepsy.report import figures
from scepsy.report.comparison import BottleneckComparison, Comparison
from scepsy.traces.demand import WorkflowDemand
from scepsy.units import format_duration

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """All that a report shows. Parts that are empty are left out."""

    title: str
    facts: tuple[str, ...]
    """What a reader needs to judge the figures: machine, versions, seed."""
    executions: tuple[Execution, ...] = ()
    """Those whose timelines are drawn."""
    demands: tuple[WorkflowDemand, ...] = ()
    curves: tuple[ProfileCurve, ...] = ()
    plans: tuple[Plan, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    bottlenecks: tuple[BottleneckComparison, ...] = ()


@dataclass(frozen=True, slots=True)
class _Block:
    caption: str = ""
    svg: str = ""
    header: tuple[str, ...] = ()
    rows: Rows = ()


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    text: str
    blocks: tuple[_Block, ...]


def render_report(report: ReportInput) -> str:
    """The page as HTML text, with no reference to anything outside of it."""
    colours = figures.llm_colours(_llms(report))
    sections = [s for s in _sections(report, colours) if s.blocks]
    template = files("scepsy.report").joinpath("page.html.j2").read_text()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=report.title, facts=report.facts, colours=colours, sections=sections
    )


def _llms(report: ReportInput) -> Iterator[LlmName]:
    yield from (call.llm for execution in report.executions for call in execution.calls)
    yield from (stage.stage.llm for demand in report.demands for stage in demand.stages)
    yield from (curve.key.stage.llm for curve in report.curves)
    yield from (group.llm for plan in report.plans for group in plan.allocation.groups)


def _sections(report: ReportInput, colours: figures.Colours) -> Iterator[_Section]:
    yield _Section(
        "Predicted against measured",
        "The plan was served and loaded; each prediction was made before, from the recording and "
        "the profiles alone.",
        _comparison_blocks(report),
    )
    yield _Section(
        "Plans",
        "Who sits on which fraction of which GPU, and what is expected of it.",
        tuple(block for plan in report.plans for block in _plan_blocks(plan, colours)),
    )
    yield _Section(
        "Executions",
        "Calls of recorded executions over time. Calls that overlap share the height of a row.",
        _timeline_blocks(report.executions, colours),
    )
    yield _Section(
        "Demand",
        "How an execution's LLM time divides over stages. What varies little can be planned for.",
        _demand_blocks(report.demands, colours),
    )
    yield _Section(
        "Profiles",
        "What one replica can do with the recorded calls of a stage, up to saturation.",
        _profile_blocks(report.curves, colours),
    )


def _comparison_blocks(report: ReportInput) -> tuple[_Block, ...]:
    blocks = []
    if report.comparisons:
        header = ("", "condition", "predicted", "measured", "error", "promised", "")
        rows = tuple(comparison_row(c) for c in report.comparisons)
        svg = figures.predicted_and_measured(report.comparisons)
        blocks.append(_Block(svg=svg, header=header, rows=rows))
    if report.bottlenecks:
        blocks.append(
            _Block(
                header=("bottleneck of", "predicted", "measured", "", "how close it was"),
                rows=tuple(
                    (
                        str(b.workflow),
                        b.predicted,
                        b.measured,
                        "kept" if b.is_kept else "missed",
                        b.evidence,
                    )
                    for b in report.bottlenecks
                ),
            )
        )
    return tuple(blocks)


def comparison_row(comparison: Comparison) -> tuple[str, ...]:
    """A comparison as cells of a table."""
    verdict = {True: "kept", False: "missed", None: ""}[comparison.is_kept]
    allowed = comparison.max_error_fraction
    return (
        f"{comparison.workflow}: {comparison.quantity}",
        comparison.condition,
        f"{comparison.predicted:.3g} {comparison.unit}",
        f"{comparison.measured:.3g} {comparison.unit}",
        f"{comparison.error_fraction:+.1%}",
        "" if allowed is None else f"{allowed:.0%}",
        verdict,
    )


def _plan_blocks(plan: Plan, colours: figures.Colours) -> Iterator[_Block]:
    types = ", ".join(sorted({str(gpu.type) for gpu in plan.cluster.gpus}))
    caption = f"{len(plan.cluster.gpus)} GPUs ({types})"
    groups = tuple(
        (
            str(g.llm),
            str(g.replicas),
            str(g.tensor_parallel),
            f"{g.gpu_fraction:.1f}" + (" (turns)" if plan.allocation.turns_of(g.llm) else ""),
            f"{g.gpus:.1f}",
        )
        for g in plan.allocation.groups
    )
    yield _Block(
        caption=caption,
        svg=figures.cluster_picture(plan, colours),
        header=("LLM", "replicas", "TP", "GPU fraction", "GPUs"),
        rows=groups,
    )
    yield _Block(
        header=("workflow", "rate", "mean", "p95", "capacity", "bottleneck"),
        rows=tuple(_prediction_row(w) for w in plan.prediction.workflows),
    )


def _prediction_row(workflow: WorkflowPrediction) -> tuple[str, ...]:
    return (
        str(workflow.workflow),
        f"{workflow.rate_per_s:.3g}/s",
        format_duration(workflow.execution_s_mean),
        format_duration(workflow.execution_s_p95),
        f"{workflow.capacity_per_s:.3g}/s",
        str(workflow.bottleneck),
    )


def _timeline_blocks(
    executions: Sequence[Execution], colours: figures.Colours
) -> tuple[_Block, ...]:
    workflows = sorted({execution.workflow for execution in executions})
    return tuple(
        _Block(
            caption=str(workflow),
            svg=figures.timelines([e for e in executions if e.workflow == workflow], colours),
        )
        for workflow in workflows
    )


def _demand_blocks(
    demands: Sequence[WorkflowDemand], colours: figures.Colours
) -> tuple[_Block, ...]:
    if not demands:
        return ()
    header = ("stage", "calls/execution", "fan-out", "share", "prompt tokens", "output tokens")
    rows = tuple(
        (
            str(stage.stage),
            f"{stage.calls_per_execution:.1f} ± {stage.calls.sd:.1f}",
            f"{stage.fan_out:.2f}",
            f"{stage.time_share.mean:.2f} ± {stage.time_share.sd:.2f}",
            f"{stage.prompt_tokens_mean:.0f}",
            f"{stage.output_tokens_mean:.0f}",
        )
        for demand in demands
        for stage in demand.stages
    )
    return (_Block(svg=figures.demand_shares(demands, colours), header=header, rows=rows),)


def _profile_blocks(curves: Sequence[ProfileCurve], colours: figures.Colours) -> tuple[_Block, ...]:
    if not curves:
        return ()
    sources = sorted({(str(curve.provenance), curve.source) for curve in curves})
    return (
        _Block(
            svg=figures.profile_curves(curves, colours),
            header=("provenance", "source"),
            rows=tuple(sources),
        ),
    )
