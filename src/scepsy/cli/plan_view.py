"""A plan for the eye: tables of what it gives, and a picture of who sits where."""

from collections.abc import Iterator
from itertools import groupby

from rich.markup import escape
from rich.text import Text

from scepsy.cli.output import out, print_table
from scepsy.model.cluster import Gpu, GpuId
from scepsy.model.plan import PlacedReplica, Plan, ReplicaGroup, StagePrediction
from scepsy.model.workflow import LlmName
from scepsy.units import format_duration

_CELLS = 30
"""Width of a whole GPU in the picture: three cells a tenth, enough for a letter and a number."""
_COLORS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
_MOST_NODES = 32
"""Nodes drawn; the rest of a large cluster is counted."""


def print_plan(plan: Plan) -> None:
    """Print a plan on stdout: allocation, stages, workflows, and the cluster."""
    _print_allocation(plan)
    out.print()
    _print_stages(plan)
    out.print()
    _print_workflows(plan)
    for line in _remarks(plan):
        out.print(escape(line), soft_wrap=True)
    out.print()
    print_cluster(plan)


def print_cluster(plan: Plan) -> None:
    """Print which replica sits on which fraction of which GPU, node by node."""
    for line in cluster_picture(plan):
        out.print(line, soft_wrap=True)


def cluster_picture(plan: Plan) -> Iterator[Text]:
    """The lines of the picture, readable without colour.

    A row for each GPU, a letter for each LLM, a number for each replica; a replica of several
    GPUs has the same label on each.
    """
    letters = _letters(plan)
    on_gpu: dict[GpuId, list[PlacedReplica]] = {}
    for replica in plan.placement.replicas:
        for gpu_id in replica.gpus:
            on_gpu.setdefault(gpu_id, []).append(replica)
    legend = Text("  ").join(
        Text.assemble((f" {letter} ", f"black on {color}"), f" {llm}")
        for llm, (letter, color) in letters.items()
    )
    yield Text.assemble(("Cluster", "bold"), f": {_touched(plan)}   ", legend)
    nodes = [(node, list(gpus)) for node, gpus in groupby(plan.cluster.gpus, lambda g: g.node)]
    for node, gpus in nodes[:_MOST_NODES]:
        yield Text.assemble((str(node), "bold"), f"  {gpus[0].type}, {gpus[0].rack}{_nvlink(gpus)}")
        for gpu in gpus:
            yield _gpu_line(gpu, on_gpu.get(gpu.id, []), letters)
    if len(nodes) > _MOST_NODES:
        yield Text(f"... and {len(nodes) - _MOST_NODES} more nodes")


def _gpu_line(
    gpu: Gpu, replicas: list[PlacedReplica], letters: dict[LlmName, tuple[str, str]]
) -> Text:
    name = str(gpu.id).removeprefix(f"{gpu.node}/")
    line = Text(f"  {name:<6} ")
    drawn, used = 0, 0.0
    for replica in replicas:
        letter, color = letters[replica.llm]
        used += replica.gpu_fraction
        width = max(1, round(used * _CELLS) - drawn)
        segment = _label(replica, letters)[:width].ljust(width, letter.lower())
        line.append(segment, style=f"black on {color}")
        drawn += width
    line.append("·" * (_CELLS - drawn), style="dim")
    shares = ", ".join(
        f"{_label(replica, letters)} {replica.gpu_fraction:g}" for replica in replicas
    )
    return line.append(f"  {shares or 'free'}", style="" if replicas else "dim")


def _label(replica: PlacedReplica, letters: dict[LlmName, tuple[str, str]]) -> str:
    """The LLM's letter and the replica's number, as in ``B2``."""
    return letters[replica.llm][0] + str(replica.name).removeprefix(f"{replica.llm}-")


def _nvlink(gpus: list[Gpu]) -> str:
    """How the node is cut into NVLink domains, where it is not one."""
    domains = [list(group) for _, group in groupby(gpus, lambda g: g.domain)]
    if len(domains) > 1:
        return f", NVLink domains of {len(domains[0])}"
    return "" if str(gpus[0].domain) == str(gpus[0].node) else f", NVLink domain {gpus[0].domain}"


def _letters(plan: Plan) -> dict[LlmName, tuple[str, str]]:
    """A letter and a colour for each LLM."""
    return {
        group.llm: (chr(ord("A") + at % 26), _COLORS[at % len(_COLORS)])
        for at, group in enumerate(plan.allocation.groups)
    }


def _touched(plan: Plan) -> str:
    used = plan.placement.used
    return f"{len(used)} of {len(plan.cluster.gpus)} GPUs touched, {plan.allocation.gpus:.3g} taken"


def _print_allocation(plan: Plan) -> None:
    stages = [stage for workflow in plan.prediction.workflows for stage in workflow.stages]
    utilization = {stage.stage.llm: stage.utilization for stage in stages}
    types = {group.gpu_type for group in plan.allocation.groups}
    full = {workflow.bottleneck for workflow in plan.prediction.workflows}
    print_table(
        f"Allocation of {len(plan.cluster.gpus)} x {', '.join(sorted(types))}",
        ("LLM", "replicas", "TP", "fraction", "GPUs", "utilization", "bottleneck"),
        [
            (
                group.llm,
                str(group.replicas),
                str(group.tensor_parallel),
                f"{group.gpu_fraction:g}{_turns(plan, group)}",
                f"{group.gpus:.3g}",
                f"{utilization[group.llm]:.0%}",
                "◀" if group.llm in full else "",
            )
            for group in plan.allocation.groups
        ],
    )


def _turns(plan: Plan, group: ReplicaGroup) -> str:
    """Whom the LLM takes turns with: then its fraction is one of memory."""
    others = [llm for llm in plan.allocation.turns_of(group.llm) if llm != group.llm]
    return f" of memory, turns with {', '.join(others)}" if others else ""


def _print_stages(plan: Plan) -> None:
    rows = [
        _stage_row(str(workflow.workflow), stage, workflow.execution_s_mean)
        for workflow in plan.prediction.workflows
        for stage in workflow.stages
    ]
    for workflow in plan.prediction.workflows:
        part = workflow.gap_s_mean / workflow.execution_s_mean
        gap = (format_duration(workflow.gap_s_mean), f"{part:.0%}", "recorded")
        rows.append((str(workflow.workflow), "(no LLM call runs)", "", *gap))
    rows.sort(key=lambda row: row[0])
    header = ("workflow", "stage", "a call", "of an execution", "part", "figure is")
    print_table("Where the latency goes", header, rows)


def _stage_row(workflow: str, stage: StagePrediction, execution_s: float) -> tuple[str, ...]:
    return (
        workflow,
        stage.stage.label,
        format_duration(stage.call_s),
        format_duration(stage.contribution_s),
        f"{stage.contribution_s / execution_s:.0%}",
        str(stage.provenance),
    )


def _print_workflows(plan: Plan) -> None:
    print_table(
        f"Predicted by {plan.prediction.predictor}",
        ("workflow", "rate", "mean", "p50", "p95", "p99", "capacity", "alone"),
        [
            (
                str(workflow.workflow),
                f"{workflow.rate_per_s:.3g}/s",
                _with_error(workflow.execution_s_mean, workflow.error_fraction),
                format_duration(workflow.execution_s_p50),
                format_duration(workflow.execution_s_p95),
                format_duration(workflow.execution_s_p99),
                f"{workflow.capacity_per_s:.3g}/s",
                f"{workflow.capacity_alone_per_s:.3g}/s",
            )
            for workflow in plan.prediction.workflows
        ],
    )


def _with_error(mean_s: float, error_fraction: float | None) -> str:
    text = format_duration(mean_s)
    return text if error_fraction is None else f"{text} ±{error_fraction:.0%}"


def _remarks(plan: Plan) -> Iterator[str]:
    if plan.slo is not None:
        values_s = [
            getattr(w, f"execution_s_{plan.slo.statistic}") for w in plan.prediction.workflows
        ]
        yield f"SLO {'met' if max(values_s) <= plan.slo.bound_s else 'MISSED'}: {plan.slo}"
    if plan.passed_over and plan.objective_s is not None and plan.bound_s is not None:
        less = 1 - plan.bound_s / plan.objective_s
        yield (
            f"{plan.passed_over} faster allocations do not fit the GPUs"
            f"{' or miss the SLO' if plan.slo else ''}; "
            f"the fastest would have {less:.1%} less mean latency"
        )
