"""``scepsy traces``: look into a trace store, and bring traces in and out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from scepsy.cli.output import JsonOption, print_json, print_table, progress, say

if TYPE_CHECKING:
    from scepsy.model.execution import Call, Execution
    from scepsy.model.workflow import WorkflowName
    from scepsy.traces.files import ImportReport
    from scepsy.traces.store import SqliteTraceStore
    from scepsy.traces.structure import Interval, Structure

app = typer.Typer(no_args_is_help=True, help="Look into a trace store; import and export traces.")

StoreArgument = Annotated[Path, typer.Argument(help="Trace store.")]
WorkflowOption = Annotated[str | None, typer.Option(help="Only this workflow.")]

_TIMELINE_CHARS = 60
_LOST_SHOWN = 5


@app.command("ls")
def list_traces(
    traces: StoreArgument,
    workflow: WorkflowOption = None,
    executions: Annotated[
        bool, typer.Option("--executions", help="List each execution, not only workflows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the workflows in a trace store, or with `--executions` each execution.

    Example: `scepsy traces ls traces.db --executions --workflow beam-search`
    """
    from scepsy.model.workflow import WorkflowName
    from scepsy.traces.store import SqliteTraceStore

    with SqliteTraceStore.open(traces, create=False) as store:
        summaries = store.select(None if workflow is None else WorkflowName(workflow))
        if executions:
            rows = [row for one in summaries for row in _execution_rows(store, one.workflow)]
            _print_executions(rows, as_json=as_json)
            return
    if as_json:
        print_json(summaries)
        return
    print_table(
        str(traces),
        ("workflow", "executions", "calls", "LLMs"),
        [
            (one.workflow, str(one.executions), str(one.calls), ", ".join(one.llms))
            for one in summaries
        ],
    )


@app.command()
def show(
    traces: StoreArgument,
    execution: Annotated[str, typer.Argument(help="Id of an execution; `ls --executions`.")],
    workflow: WorkflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one execution: its calls, a timeline, and where its time went.

    Example: `scepsy traces show traces.db 7f3a-01`
    """
    from scepsy.model.execution import ExecutionId
    from scepsy.model.workflow import WorkflowName
    from scepsy.traces.store import SqliteTraceStore
    from scepsy.traces.structure import structure

    with SqliteTraceStore.open(traces, create=False) as store:
        name = None if workflow is None else WorkflowName(workflow)
        store.select(name)
        found = store.execution(ExecutionId(execution), name)
    shape = structure(found)
    if as_json:
        print_json({"execution": found, "structure": shape})
    else:
        _show(found, shape)


@app.command("import")
def import_traces(
    files: Annotated[list[Path], typer.Argument(help="Trace files, or folders of them.")],
    store: Annotated[Path, typer.Option(help="Trace store to add to; made if need be.")],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="claude-code, chatdev, jsonl or parquet; found out if not given."
        ),
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Name the workflow this.")] = None,
    llm: Annotated[str | None, typer.Option(help="Name the LLM of all calls this.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add the calls of trace files (plain or `.gz`) to a trace store.

    Lines that are damaged or cut off are counted and named; whole ones are kept. The exit code is 1
    if a file has no whole call at all.

    Example: `scepsy traces import sessions.jsonl.gz --store traces.db`
    """
    from scepsy.errors import InputError, UnknownNameError
    from scepsy.model.workflow import LlmName, WorkflowName
    from scepsy.traces.files import import_file, trace_files
    from scepsy.traces.readers.source import Naming
    from scepsy.traces.store import SqliteTraceStore

    naming = Naming(
        None if workflow is None else WorkflowName(workflow),
        None if llm is None else LlmName(llm),
    )
    paths = [path for given in files for path in trace_files(given)]
    reports: list[ImportReport] = []
    unusable: list[InputError] = []
    total_bytes = sum(path.stat().st_size for path in paths)
    done_bytes = 0
    with SqliteTraceStore.open(store) as opened, progress("reading", total=total_bytes) as advance:

        def move(at_bytes: int) -> None:
            advance.at(done_bytes + at_bytes, total=total_bytes)

        for path in paths:
            try:
                reports.append(
                    import_file(opened, path, format_name=format_name, naming=naming, on_bytes=move)
                )
            except UnknownNameError:
                raise
            except InputError as error:  # the other files may be whole
                unusable.append(error)
            done_bytes += path.stat().st_size
    _print_reports(reports, as_json=as_json)
    for refused in unusable[:-1]:
        say(escape(f"error: {refused}"))
    if unusable:
        raise unusable[-1]


@app.command()
def export(
    traces: StoreArgument,
    to: Annotated[Path, typer.Argument(help="File to write: .jsonl, .jsonl.gz or .parquet.")],
    workflow: WorkflowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the calls of a trace store as JSONL or Parquet, one call a line or row.

    Example: `scepsy traces export traces.db calls.parquet`
    """
    from scepsy.model.workflow import WorkflowName
    from scepsy.traces import files
    from scepsy.traces.store import SqliteTraceStore

    with SqliteTraceStore.open(traces, create=False) as store:
        name = None if workflow is None else WorkflowName(workflow)
        executions = sum(summary.executions for summary in store.select(name))
        with progress("writing", total=executions) as advance:

            def watched() -> "Iterator[Execution]":
                for execution in store.executions(name):
                    yield execution
                    advance()

            calls = files.export(to, watched())
    if as_json:
        file_bytes = to.stat().st_size
        print_json({"path": to, "executions": executions, "calls": calls, "bytes": file_bytes})
    else:
        say(escape(f"{calls} calls of {executions} executions written to {to}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _ExecutionRow:
    workflow: str
    execution: str
    calls: int
    failed_calls: int
    start_s: float
    execution_s: float
    output_tokens: int


def _execution_rows(
    store: "SqliteTraceStore", workflow: "WorkflowName"
) -> "Iterator[_ExecutionRow]":
    from scepsy.model.execution import CallStatus

    for found in store.executions(workflow, with_blocks=False):
        yield _ExecutionRow(
            workflow=found.workflow,
            execution=found.id,
            calls=len(found.calls),
            failed_calls=sum(call.status is not CallStatus.OK for call in found.calls),
            start_s=found.start_s,
            execution_s=found.execution_s,
            output_tokens=sum(call.output_tokens for call in found.calls),
        )


def _print_executions(rows: "Sequence[_ExecutionRow]", *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    print_table(
        f"{len(rows)} executions",
        ("execution", "workflow", "calls", "failed", "seconds", "output tokens"),
        [
            (
                row.execution,
                row.workflow,
                str(row.calls),
                str(row.failed_calls),
                f"{row.execution_s:.2f}",
                str(row.output_tokens),
            )
            for row in rows
        ],
    )


def _show(execution: "Execution", shape: "Structure") -> None:
    origin_s = execution.start_s
    critical = {call.id for call in shape.critical_path}
    print_table(
        f"{execution.workflow} / {execution.id}: {len(execution.calls)} calls in "
        f"{execution.execution_s:.2f} s, {shape.gap_s:.2f} s without a call, "
        f"{len(critical)} on the critical path, at most {shape.peak_parallel} at one time",
        ("stage", "start s", "first token s", "end s", "prompt", "cached", "output", "status", ""),
        [_call_row(call, origin_s, call.id in critical) for call in execution.calls],
    )
    typer.echo()
    width = max(len(stage.stage.label) for stage in shape.stages)
    for stage in shape.stages:
        bar = _bar(stage.busy, origin_s, execution.execution_s)
        label = stage.stage.label.ljust(width)
        typer.echo(f"{label} |{bar}| {stage.busy_s:.2f} s busy")


def _call_row(call: "Call", origin_s: float, is_critical: bool) -> tuple[str, ...]:
    first_s = call.first_token_s
    return (
        call.stage.label,
        f"{call.start_s - origin_s:.2f}",
        "-" if first_s is None else f"{first_s - origin_s:.2f}",
        f"{call.end_s - origin_s:.2f}",
        str(call.prompt_tokens),
        "-" if call.cached_tokens is None else str(call.cached_tokens),
        str(call.output_tokens),
        call.status.value,
        "*" if is_critical else "",
    )


def _bar(busy: "Sequence[Interval]", origin_s: float, length_s: float) -> str:
    """A line of characters over the execution: full where the stage runs."""
    cells = [" "] * _TIMELINE_CHARS
    cells_per_s = _TIMELINE_CHARS / length_s if length_s > 0 else 0.0
    for run in busy:
        first = min(_TIMELINE_CHARS - 1, int((run.start_s - origin_s) * cells_per_s))
        last = max(first + 1, round((run.end_s - origin_s) * cells_per_s))
        cells[first:last] = "█" * (min(last, _TIMELINE_CHARS) - first)
    return "".join(cells)


def _print_reports(reports: "Sequence[ImportReport]", *, as_json: bool) -> None:
    for report in reports:
        if report.lost:
            lines = "1 line" if len(report.lost) == 1 else f"{len(report.lost)} lines"
            say(escape(f"warning: {report.path}: {lines} lost, {report.calls} calls kept"))
            for lost in report.lost[:_LOST_SHOWN]:
                say(escape(f"  line {lost.line}: {lost.reason}"))
            if len(report.lost) > _LOST_SHOWN:
                say(f"  and {len(report.lost) - _LOST_SHOWN} more; --json names them all")
    if as_json:
        print_json(reports)
    elif reports:
        print_table(
            "imported",
            ("file", "format", "executions", "calls", "new calls", "lost lines", "bytes"),
            [
                (
                    str(report.path),
                    report.format,
                    str(report.executions),
                    str(report.calls),
                    str(report.new_calls),
                    str(len(report.lost)),
                    str(report.file_bytes),
                )
                for report in reports
            ],
        )
