"""How commands talk: data on stdout, everything else on stderr, errors without a traceback."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from scepsy.errors import ScepsyError

out = Console(highlight=False)
"""For data."""
err = Console(stderr=True, highlight=False)
"""For talk: progress, warnings, errors."""

_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
_UNBOUNDED_WIDTH = 10_000
"""Of a pipe or file: there, nothing is cut or wrapped."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: object) -> None:
    """Print dataclasses, lists and plain values as JSON on stdout."""
    text = orjson.dumps(value, default=_plain, option=_JSON_OPTIONS | orjson.OPT_INDENT_2)
    typer.echo(text.decode())


def print_json_line(value: object) -> None:
    """Print one value as one line of JSON, at once: for programs that wait for it."""
    typer.echo(orjson.dumps(value, default=_plain, option=_JSON_OPTIONS).decode())
    sys.stdout.flush()


def _plain(value: object) -> object:
    """What orjson does not know of by itself."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"cannot print {type(value).__name__} as JSON")


def print_table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows on stdout; numbers (all but the first column) are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(header):
        table.add_column(name, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console = out if out.is_terminal else Console(file=out.file, width=_UNBOUNDED_WIDTH)
    console.print(table)


def say(message: str) -> None:
    """Tell a person something, on stderr."""
    err.print(message)


def fail(error: ScepsyError) -> NoReturn:
    """Say what is wrong and what to do, and exit 1."""
    err.print(f"[bold red]error:[/] {escape(str(error))}")
    if error.hint:
        err.print(f"[bold]hint:[/] {escape(error.hint)}")
    raise typer.Exit(1)


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator["Advance"]:
    """Show a bar on stderr while the block runs; call the result to move it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=not err.is_terminal) as bar:
        yield Advance(bar, bar.add_task(description, total=total))


class Advance:
    """Moves one progress bar."""

    def __init__(self, bar: Progress, task: int) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, amount: float = 1.0) -> None:
        """Move by an amount."""
        self._bar.advance(self._task, amount)  # type: ignore[arg-type]

    def at(self, completed: float, *, total: float | None = None) -> None:
        """Move to a position."""
        self._bar.update(self._task, completed=completed, total=total)  # type: ignore[arg-type]
