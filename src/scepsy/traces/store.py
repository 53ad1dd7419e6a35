"""The trace store: one SQLite file that is written as calls end and read while it grows.

The store knows nothing of HTTP or of file formats.
"""

import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from scepsy.errors import InputError, MissingError, StoreError, UnknownNameError
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.traces.blocks import common_prefix
from scepsy.traces.schema import (
    BLOCK_COLUMNS,
    COLUMNS,
    INSERT_CALL,
    call_of,
    check,
    connect,
    row_of,
)

_REMEMBERED_STAGES = 512
"""Stages of executions whose last blocks are kept in memory, to store the next call's short."""

_INSERT_EXECUTION = """
INSERT INTO executions (workflow, id, first_s) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET first_s = min(first_s, excluded.first_s) RETURNING key
"""
_WORKFLOWS = """
SELECT workflow, count(DISTINCT e.key), count(*), min(start_s), max(end_s)
FROM executions AS e JOIN calls AS c ON c.execution = e.key GROUP BY workflow ORDER BY workflow
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowSummary:
    """What a store holds of one workflow."""

    workflow: WorkflowName
    executions: int
    calls: int
    llms: tuple[LlmName, ...]
    first_s: float
    """Arrival of the first call."""
    last_s: float
    """End of the last call."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a call sent and got, as bytes; kept only where recording it was asked for."""

    request: bytes
    response: bytes


class SqliteTraceStore:
    """Executions in one SQLite file.

    One process writes, any number read meanwhile; each ``append`` is one transaction, so a crash
    loses at most the calls that were not yet appended. Methods may be called from any thread.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Take over a connection to a checked file; use ``open``."""
        self._connection = connection
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[ExecutionId, Stage], tuple[int, tuple[int, ...]]]
        self._last = OrderedDict()
        self.path = path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> Self:
        """Open a store, and make it if need be. Must be closed.

        Raises:
            MissingError: there is no such file and ``create`` is false.
            InputError: the file is not a trace store, or of a later version.
        """
        path = Path(path)
        if not create and not path.exists():
            raise MissingError(
                f"there is no trace store at {path}",
                hint="record executions through `scepsy gateway`, or import a trace file "
                "with `scepsy traces import`",
            )
        try:
            connection = connect(path)
            try:
                check(connection, path, create=create)
            except BaseException:
                connection.close()
                raise
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} is not a trace store: {error}") from error
        return cls(connection, path)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, calls: Sequence[Call]) -> int:
        """Store calls in one transaction; give how many were new.

        A call whose id is known already is left as it is, so appending again changes nothing.

        Raises:
            StoreError: the disk is full, or the file cannot be written; nothing was stored.
        """
        with self._lock, self._transaction():
            return sum(self._insert(call) for call in calls)

    def append_content(self, call_id: CallId, request: bytes, response: bytes) -> None:
        """Store what a call sent and got, compressed; the call itself may come later.

        Raises:
            StoreError: the disk is full, or the file cannot be written; nothing was stored.
        """
        row = (call_id, zlib.compress(request), zlib.compress(response))
        with self._lock, self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", row)

    def workflows(self) -> tuple[WorkflowSummary, ...]:
        """What the store holds, by workflow name; empty for an empty store."""
        with self._reading():
            rows = self._connection.execute(_WORKFLOWS).fetchall()
            return tuple(
                WorkflowSummary(
                    workflow=WorkflowName(workflow),
                    executions=executions,
                    calls=calls,
                    llms=self._llms(workflow),
                    first_s=first_s,
                    last_s=last_s,
                )
                for workflow, executions, calls, first_s, last_s in rows
            )

    def select(self, workflow: WorkflowName | None = None) -> tuple[WorkflowSummary, ...]:
        """What the store holds of one workflow, or of all: at least one.

        Raises:
            MissingError: the store is empty.
            UnknownNameError: it has no workflow of that name.
        """
        found = self.workflows()
        if not found:
            raise MissingError(
                f"{self.path} has no executions",
                hint="record some through `scepsy gateway`, or import a trace file with "
                "`scepsy traces import`",
            )
        if workflow is None:
            return found
        if chosen := tuple(summary for summary in found if summary.workflow == workflow):
            return chosen
        raise UnknownNameError("workflow", workflow, [summary.workflow for summary in found])

    def executions(
        self, workflow: WorkflowName | None = None, *, with_blocks: bool = True
    ) -> Iterator[Execution]:
        """Give executions by first arrival, holding one at a time.

        Args:
            workflow: only those of this workflow.
            with_blocks: false leaves the blocks of each call empty, which is faster.
        """
        where, values = ("WHERE workflow = ?", (workflow,)) if workflow is not None else ("", ())
        query = f"SELECT key, workflow, id FROM executions {where} ORDER BY first_s, key"
        with self._reading():
            found = self._connection.execute(query, values).fetchall()
        for key, name, execution in found:
            yield self._execution(key, name, execution, with_blocks=with_blocks)

    def execution(self, execution: ExecutionId, workflow: WorkflowName | None = None) -> Execution:
        """The execution of that id.

        Raises:
            MissingError: there is none.
            InputError: several workflows have one, and no workflow was given.
        """
        query = "SELECT key, workflow, id FROM executions WHERE id = ?"
        with self._reading():
            found = self._connection.execute(query, (execution,)).fetchall()
        found = [row for row in found if workflow in (None, row[1])]
        if not found:
            raise MissingError(
                f"{self.path} has no execution `{execution}`",
                hint="list them with `scepsy traces ls`",
            )
        if len(found) > 1:
            names = ", ".join(row[1] for row in found)
            raise InputError(
                f"execution `{execution}` is in several workflows: {names}",
                hint="say which with --workflow",
            )
        return self._execution(*found[0], with_blocks=True)

    def content(self, call_id: CallId) -> Content | None:
        """What a call sent and got; None where it was not recorded."""
        query = "SELECT request, response FROM contents WHERE call = ?"
        with self._reading():
            row = self._connection.execute(query, (call_id,)).fetchone()
        return None if row is None else Content(zlib.decompress(row[0]), zlib.decompress(row[1]))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._last.clear()  # it may name calls that are now not stored
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {self.path}: {error}") from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error

    def _insert(self, call: Call) -> bool:
        known = "SELECT 1 FROM calls WHERE id = ?"
        if self._connection.execute(known, (call.id,)).fetchone():
            return False
        values = (call.workflow, call.execution, call.start_s)
        (execution,) = self._connection.execute(_INSERT_EXECUTION, values).fetchone()
        stage = (call.execution, call.stage)
        base, base_blocks = self._last.get(stage, (None, ()))
        shared = common_prefix(base_blocks, call.prefix_blocks)
        row = row_of(call, execution, base if shared else None, shared)
        key = self._connection.execute(INSERT_CALL, row).lastrowid
        if call.prefix_blocks and key is not None:
            self._last[stage] = (key, call.prefix_blocks)
            self._last.move_to_end(stage)
            if len(self._last) > _REMEMBERED_STAGES:
                self._last.popitem(last=False)
        return True

    def _llms(self, workflow: str) -> tuple[LlmName, ...]:
        query = """
        SELECT DISTINCT llm FROM calls WHERE execution IN
            (SELECT key FROM executions WHERE workflow = ?) ORDER BY llm
        """
        return tuple(LlmName(llm) for (llm,) in self._connection.execute(query, (workflow,)))

    def _execution(self, key: int, workflow: str, name: str, *, with_blocks: bool) -> Execution:
        columns = f"{COLUMNS}, {BLOCK_COLUMNS}" if with_blocks else COLUMNS
        query = f"SELECT {columns} FROM calls WHERE execution = ? ORDER BY key"
        with self._reading():
            rows = self._connection.execute(query, (key,)).fetchall()
        blocks: dict[int, tuple[int, ...]] = {}
        calls = [call_of(row, WorkflowName(workflow), ExecutionId(name), blocks) for row in rows]
        calls.sort(key=lambda call: call.start_s)
        return Execution(ExecutionId(name), WorkflowName(workflow), tuple(calls))
