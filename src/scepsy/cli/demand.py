"""``scepsy demand``: what each workflow asks of each LLM and role, and how well that is known."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json, print_table, say
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.model.execution import Execution
    from scepsy.traces.demand import Spread, StageDemand, WorkflowDemand
    from scepsy.traces.gaps import GapDemand
    from scepsy.traces.roles import RoleSplit

_HEADER = (
    "stage",
    "n (p5-p95)",
    "p",
    "time share (sd, p5-p95)",
    "output share (sd)",
    "n l / p",
    "call s",
    "prompt",
    "output",
    "cached",
)
_GAP_HEADER = ("without an LLM call, after", "n", "mean", "p50", "p95", "part")
_NOTICED = 0.05
"""A change of the prediction, or a share of the time, that is worth a word."""


def demand(
    traces: Annotated[Path, typer.Argument(help="Trace store.")],
    workflow: Annotated[str | None, typer.Option(help="Only this workflow.")] = None,
    split_roles: Annotated[
        bool,
        typer.Option(
            "--split-roles",
            help="Give calls that name no role one, from how prompts begin or how long calls are.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(help="With --split-roles: write the executions with roles to this new store."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what one execution asks of each LLM and role, with its spread over executions.

    **n**: calls per execution. **p**: calls at one time while any runs (fan-out). **time share**:
    part of the execution's LLM time. **n l / p**: time of an execution in which the stage's calls
    run, with its 95 % confidence interval. **prompt**, **output**: tokens of a call, mean.
    **cached**: part of the prompt that engines had in KV; `-` where they did not say.

    Warns where the recording is too small to settle a stage within 10 %, or its halves disagree.

    Example: `scepsy demand traces.db --workflow beam-search`
    """
    from dataclasses import replace

    from scepsy.model.workflow import WorkflowName
    from scepsy.traces.demand import demand as demand_of
    from scepsy.traces.roles import with_roles
    from scepsy.traces.store import SqliteTraceStore

    if write is not None and not split_roles:
        raise InputError("`--write` is for executions with roles", hint="add --split-roles")
    found: list[WorkflowDemand] = []
    labelled: list[Execution] = []
    with SqliteTraceStore.open(traces, create=False) as store:
        for summary in store.select(None if workflow is None else WorkflowName(workflow)):
            executions = store.executions(summary.workflow, with_blocks=split_roles)
            if not split_roles:
                found.append(demand_of(executions))
                continue
            recorded = tuple(executions)
            roles, splits = with_roles(recorded)
            found.append(demand_of(roles))
            labelled += roles
            _say_split(demand_of(recorded), found[-1], splits)
    if write is not None:
        _write(write, labelled)
    if as_json:
        print_json([replace(one, calls=None) for one in found])
        return
    for one in found:
        print_table(_title(one), _HEADER, [_row(stage) for stage in one.stages])
        if one.gaps:
            print_table("", _GAP_HEADER, [_gap_row(gap) for gap in one.gaps])
        for warning in _warnings(one):
            say(warning)


def _say_split(
    merged: "WorkflowDemand", split: "WorkflowDemand", splits: Sequence["RoleSplit"]
) -> None:
    """Say what was split, and whether it matters."""
    from scepsy.traces.roles import split_effect
    from scepsy.units import format_duration

    if not splits:
        say(f"{merged.workflow}: the calls of each stage are of one kind, nothing is split")
        return
    for each in splits:
        say(f"{each.stage}: split by {each.by} into {', '.join(each.roles)}")
    effect = split_effect(merged, split)
    verdict = "it matters" if abs(effect.change_fraction) >= _NOTICED else "it hardly matters"
    say(
        f"{merged.workflow}: by its stages' averages an execution takes "
        f"{format_duration(effect.merged_s_mean)} (p95 {format_duration(effect.merged_s_p95)}) "
        f"without the split, {format_duration(effect.split_s_mean)} "
        f"(p95 {format_duration(effect.split_s_p95)}) with it: "
        f"{effect.change_fraction:+.1%}, {verdict}"
    )


def _write(path: Path, executions: Sequence["Execution"]) -> None:
    """Write executions to a new store.

    Raises:
        InputError: there is a file.
    """
    from scepsy.traces.store import SqliteTraceStore

    if path.exists():
        raise InputError(f"{path} exists already", hint="give the name of a new file")
    with SqliteTraceStore.open(path) as store:
        for execution in executions:
            store.append(execution.calls)
    say(f"wrote {path}")


def _warnings(found: "WorkflowDemand") -> Iterator[str]:
    executions = len(found.executions)
    for stage in found.stages:
        known = stage.stability
        if known is None or known.is_settled or stage.time_share.mean < _NOTICED:
            continue
        if known.halves_differ:
            yield (
                f"warning: {stage.stage}: the first and the second half of the recording disagree; "
                "the workflow has changed, or its load has: plan from the part that is still true"
            )
        elif executions == 1:
            yield f"warning: {stage.stage}: one execution says nothing of their spread; record more"
        else:
            more = max(1, known.executions_needed - executions)
            yield (
                f"warning: {stage.stage}: n l / p is known to "
                f"±{known.busy_s.error_fraction:.1%}; about {more} more executions would settle it"
            )


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
        _busy(stage),
        f"{stage.call_s_mean:.3g}",
        f"{stage.prompt_tokens_mean:.0f}",
        f"{stage.output_tokens_mean:.0f}",
        "-" if cached is None else f"{cached:.2f}",
    )


def _busy(stage: "StageDemand") -> str:
    from scepsy.units import format_duration

    if stage.stability is None:
        return "-"
    busy_s = stage.stability.busy_s
    if busy_s.error_fraction == float("inf"):
        return f"{format_duration(busy_s.mean)} (± ?)"
    return f"{format_duration(busy_s.mean)} (±{busy_s.error_fraction:.0%})"


def _gap_row(gap: "GapDemand") -> tuple[str, ...]:
    from scepsy.units import format_duration

    return (
        gap.after.label,
        f"{gap.gaps_per_execution:.2f}",
        format_duration(gap.gap_s_mean),
        format_duration(gap.gap_s_p50),
        format_duration(gap.gap_s_p95),
        f"{gap.execution_fraction:.0%}",
    )


def _short(share: "Spread") -> str:
    return f"{share.mean:.2f} ({share.sd:.2f})"


def _share(share: "Spread") -> str:
    return f"{share.mean:.2f} ({share.sd:.2f}, {share.p5:.2f}-{share.p95:.2f})"
