"""Calls as Parquet, a row each, for analysis elsewhere and back. Needs the extra ``parquet``."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scepsy.errors import InputError, MissingError
from scepsy.model.execution import Call, Execution
from scepsy.traces.readers.jsonl import CallRow, row
from scepsy.traces.readers.source import Lost, Naming, reason_of

_ROWS_PER_GROUP = 512
"""Few enough that a group of calls with thousands of blocks each fits memory easily."""


def read_parquet(
    path: Path, naming: Naming, on_bytes: Callable[[int], None]
) -> Iterator[Sequence[Call] | Lost]:
    """Give calls by groups of rows, and each row that could not be used.

    ``on_bytes`` is told how far into the file the reading is, taking rows as equally long.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: the file cannot be opened as Parquet. A truncated one cannot: its index is at
            the end.
    """
    pyarrow, parquet = _pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_PER_GROUP):
                calls: list[Call] = []
                for fields in batch.to_pylist():
                    number += 1
                    try:
                        calls.append(CallRow.model_validate(fields).call(naming))
                    except (ValidationError, InputError) as error:
                        yield Lost(number, reason_of(error))
                yield calls
                on_bytes(path.stat().st_size * number // file.metadata.num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        if number == 0:
            raise InputError(f"{path} is not a whole Parquet file: {error}") from error
        yield Lost(number + 1, f"the file is damaged from here on: {error}")


def write_parquet(path: Path, executions: Iterable[Execution]) -> int:
    """Write executions, one call a row; give the number of calls written.

    Raises:
        MissingError: pyarrow is not installed.
        InputError: the file cannot be written.
    """
    pyarrow, parquet = _pyarrow()
    schema = _schema(pyarrow)
    count = 0
    try:
        with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            for calls in _groups(executions):
                rows = [row(call) for call in calls]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                count += len(calls)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    return count


def _groups(executions: Iterable[Execution]) -> Iterator[Sequence[Call]]:
    group: list[Call] = []
    for execution in executions:
        for call in execution.calls:
            group.append(call)
            if len(group) == _ROWS_PER_GROUP:
                yield group
                group = []
    if group:
        yield group


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415 (an optional extra, and slow to import)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MissingError(
            "Parquet files need pyarrow, which is not installed",
            hint="install the extra: pip install 'scepsy[parquet]'; or use JSONL",
        ) from None
    return pyarrow, parquet


def _schema(pyarrow: Any) -> Any:
    text, real, whole = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    required = {
        "id": text,
        "execution": text,
        "workflow": text,
        "llm": text,
        "role": text,
        "start_s": real,
        "end_s": real,
        "prompt_tokens": whole,
        "output_tokens": whole,
        "endpoint": text,
        "status": text,
        "block_tokens": whole,
        "prefix_blocks": pyarrow.list_(whole),
        "output_blocks": pyarrow.list_(whole),
    }
    optional = {"first_token_s": real, "cached_tokens": whole, "replica": text}
    fields = [pyarrow.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pyarrow.field(name, kind) for name, kind in optional.items()]
    return pyarrow.schema(fields)
