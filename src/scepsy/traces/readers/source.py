"""Lines of a trace file, plain or gzip, with what could not be read said and not skipped.

A recording that broke off (a full disk, a killed process, a cut download) still holds whole lines:
those are given, and the rest comes back as ``Lost``.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from scepsy.errors import InputError
from scepsy.model.execution import Call
from scepsy.model.workflow import LlmName, WorkflowName

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a trace file."""

    number: int
    """1 is the first."""
    text: bytes
    position_bytes: int
    """How far into the file, as it is on disk, the reading is."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A line (or a row group) that could not be read, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Naming:
    """Names to give to the calls read, whatever the file says; None leaves the file's."""

    workflow: WorkflowName | None = None
    llm: LlmName | None = None


LineParser = Callable[[bytes], Sequence[Call]]
"""Calls of one line. Raises InputError or pydantic's ValidationError for a line it cannot use."""


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A format of one JSON object a line."""

    name: str
    has_keys: frozenset[str]
    """Keys that a line of this format has and no other format's line has."""
    parser: Callable[[Naming], LineParser]
    """Makes the parser of one file; it may remember earlier lines."""

    def matches(self, row: Mapping[str, object]) -> bool:
        """Whether a parsed line looks like this format."""
        return self.has_keys <= row.keys()


def read_lines(path: Path) -> Iterator[Line | Lost]:
    """Give the lines of a file, empty ones left out, then what broke off, if anything did.

    Raises:
        InputError: the file cannot be opened.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    with raw:
        magic = raw.read(2)
        raw.seek(0)
        stream = gzip.open(raw) if magic == _GZIP_MAGIC else raw  # noqa: SIM115 (raw is closed)
        number = 0
        try:
            for number, text in enumerate(stream, start=1):
                if stripped := text.strip():
                    yield Line(number, stripped, raw.tell())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Lost(number + 1, f"the file breaks off here, what followed is lost: {error}")


def reason_of(error: ValidationError | InputError) -> str:
    """Why a line cannot be used, in one short sentence."""
    if isinstance(error, InputError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
