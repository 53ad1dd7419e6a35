"""Trace files into a store and out of it: finds the format, keeps what is whole, says what is not.

Map: what a file is (``find_format``, ``trace_files``), reading (``import_file``), writing
(``export``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.execution import Call, Execution
from scepsy.traces.readers import chatdev, claude_code, jsonl
from scepsy.traces.readers.parquet import read_parquet, write_parquet
from scepsy.traces.readers.source import LineFormat, Lost, Naming, read_lines, reason_of
from scepsy.traces.store import SqliteTraceStore

PARQUET = "parquet"
LINE_FORMATS = {f.name: f for f in (claude_code.FORMAT, chatdev.FORMAT, jsonl.FORMAT)}
FORMATS = (*LINE_FORMATS, PARQUET)

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_PARQUET_MAGIC = b"PAR1"
_CALLS_PER_TRANSACTION = 256

OnBytes = Callable[[int], None]
"""Told how far into the file the reading is (bytes on disk)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What came of one file."""

    path: Path
    format: str
    executions: int
    calls: int
    """Whole calls read; those that the store had already are among them."""
    new_calls: int
    lost: tuple[Lost, ...]
    file_bytes: int


def trace_files(path: Path) -> tuple[Path, ...]:
    """The file itself, or the trace files directly in a folder, sorted.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return (path,)
    if not path.exists():
        raise InputError(f"there is no file or folder {path}")
    found = sorted(f for f in path.iterdir() if f.name.endswith(_SUFFIXES) and f.is_file())
    if not found:
        raise InputError(
            f"the folder {path} has no trace files", hint=f"looked for {', '.join(_SUFFIXES)}"
        )
    return tuple(found)


def find_format(path: Path) -> str:
    """The format of a file, by the first line that can be read.

    Raises:
        InputError: the file is empty, or no format fits.
    """
    if not path.stat().st_size:
        raise InputError(f"{path} is empty")
    with path.open("rb") as file:
        if file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC:
            return PARQUET
    for line in read_lines(path):
        if isinstance(line, Lost):
            continue
        try:
            row = orjson.loads(line.text)
        except orjson.JSONDecodeError:
            continue  # a damaged line; the import counts it
        for candidate in LINE_FORMATS.values():
            if isinstance(row, dict) and candidate.matches(row):
                return candidate.name
    raise InputError(
        f"{path}: no line of it is in a known trace format",
        hint=f"say which with --format; known: {', '.join(FORMATS)}",
    )


def import_file(
    store: SqliteTraceStore,
    path: Path,
    *,
    format_name: str | None = None,
    naming: Naming = Naming(),  # noqa: B008 (a frozen value)
    on_bytes: OnBytes = lambda _: None,
) -> ImportReport:
    """Put the calls of a file into a store. What is whole is kept, the rest reported.

    Raises:
        InputError: nothing in the file is whole, or its format is not known.
        UnknownNameError: there is no format of that name.
    """
    name = format_name or find_format(path)
    if name not in FORMATS:
        raise UnknownNameError("trace format", name, FORMATS)
    reading = (
        read_parquet(path, naming, on_bytes)
        if name == PARQUET
        else _read_lines(path, LINE_FORMATS[name], naming, on_bytes)
    )
    executions: set[tuple[str, str]] = set()
    lost: list[Lost] = []
    calls = new_calls = 0
    for batch in _batches(reading, lost):
        new_calls += store.append(batch)
        calls += len(batch)
        executions.update((call.workflow, call.execution) for call in batch)
    if not calls:
        why = f"; the first: line {lost[0].line}: {lost[0].reason}" if lost else ""
        raise InputError(f"{path}: no call of it is whole, {len(lost)} lines are lost{why}")
    file_bytes = path.stat().st_size
    on_bytes(file_bytes)
    return ImportReport(
        path=path,
        format=name,
        executions=len(executions),
        calls=calls,
        new_calls=new_calls,
        lost=tuple(lost),
        file_bytes=file_bytes,
    )


def export(path: Path, executions: Iterable[Execution]) -> int:
    """Write executions in the format that the file's name says; give the number of calls.

    Raises:
        InputError: the name ends in no format that can be written, or writing fails.
    """
    if path.suffix == ".parquet":
        return write_parquet(path, executions)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return jsonl.write_jsonl(path, executions)
    raise InputError(
        f"cannot tell a trace format from the name `{path.name}`",
        hint="end it in .jsonl, .jsonl.gz or .parquet",
    )


def _read_lines(
    path: Path, line_format: LineFormat, naming: Naming, on_bytes: OnBytes
) -> Iterator[Sequence[Call] | Lost]:
    parse = line_format.parser(naming)
    for line in read_lines(path):
        if isinstance(line, Lost):
            yield line
            continue
        try:
            calls = parse(line.text)
        except (ValidationError, InputError) as error:
            yield Lost(line.number, reason_of(error))
        else:
            yield calls
        on_bytes(line.position_bytes)


def _batches(
    reading: Iterable[Sequence[Call] | Lost], lost: list[Lost]
) -> Iterator[Sequence[Call]]:
    """Gather calls into batches worth a transaction; what is lost goes to ``lost``."""
    batch: list[Call] = []
    for item in reading:
        if isinstance(item, Lost):
            lost.append(item)
            continue
        batch.extend(item)
        if len(batch) >= _CALLS_PER_TRANSACTION:
            yield batch
            batch = []
    if batch:
        yield batch
