"""``scepsy demand``: what each workflow asks of each LLM and role, with its spread."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from scepsy.traces.demand import Spread, StageDemand, WorkflowDemand

_HEADER = (
    "stage",
    "n (p5-p95)",
    "p",
    "time share (sd, p5-p95)",
    "output share (sd)",
    "call s",
    "prompt",
    "output",
    "cached",
)


def demand(
    traces: Annotated[Path, typer.Argument(help="Trace store.")],
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what one execution asks of each LLM and role, with its spread over executions.

    **n**: calls per execution. **p**: calls at one time while any runs (fan-out). **time share**:
    part of the execution's LLM time. **prompt**, **output**: tokens of a call, mean. **cached**:
    part of the prompt that engines had in KV; `-` where they did not say.

    Example: `scepsy demand traces.db --workflow beam-search`
    """
    from scepsy.model.workflow import WorkflowName
    from scepsy.traces.demand import demands
    from scepsy.traces.store import SqliteTraceStore

    with SqliteTraceStore.open(traces, create=False) as store:
        found = demands(store, None if workflow is None else WorkflowName(workflow))
    if as_json:
        print_json(found)
        return
    for one in found:
        print_table(_title(one), _HEADER, [_row(stage) for stage in one.stages])


def _title(found: "WorkflowDemand") -> str:
    from scepsy.traces.demand import spread
    from scepsy.units import format_duration

    execution_s = spread([execution.execution_s for execution in found.executions])
    gap_s = spread([execution.gap_s for execution in found.executions])
    return (
        f"{found.workflow}: {len(found.executions)} executions, "
        f"{format_duration(execution_s.mean)} each (p95 {format_duration(execution_s.p95)}), "
        f"of it {format_duration(gap_s.mean)} without an LLM call"
    )


def _row(stage: "StageDemand") -> tuple[str, ...]:
    cached = stage.cached_fraction
    calls = stage.calls
    return (
        stage.stage.label,
        f"{calls.mean:.2f} ({calls.p5:.3g}-{calls.p95:.3g})",
        f"{stage.fan_out:.2f}",
        _share(stage.time_share),
        "-" if stage.output_share is None else _short(stage.output_share),
        f"{stage.call_s_mean:.3g}",
        f"{stage.prompt_tokens_mean:.0f}",
        f"{stage.output_tokens_mean:.0f}",
        "-" if cached is None else f"{cached:.2f}",
    )


def _short(share: "Spread") -> str:
    return f"{share.mean:.2f} ({share.sd:.2f})"


def _share(share: "Spread") -> str:
    return f"{share.mean:.2f} ({share.sd:.2f}, {share.p5:.2f}-{share.p95:.2f})"
