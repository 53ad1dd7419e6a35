"""The trace store's file: its tables, how it is opened, and how a call becomes a row and back."""

import os
import sqlite3
from pathlib import Path
from typing import Any

from scepsy.errors import InputError
from scepsy.model.execution import (
    Call,
    CallId,
    CallStatus,
    Endpoint,
    ExecutionId,
    ReplicaName,
)
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.traces.blocks import pack_blocks, unpack_blocks

Row = tuple[Any, ...]

_APPLICATION_ID = 0x53435053  # "SCPS", in the header of every SQLite file that is a trace store
_SCHEMA_VERSION = 1
_BUSY_S = 10.0

_SCHEMA = f"""
CREATE TABLE executions (
    key INTEGER PRIMARY KEY, workflow TEXT NOT NULL, id TEXT NOT NULL, first_s REAL NOT NULL,
    UNIQUE (workflow, id)
);
CREATE INDEX executions_by_arrival ON executions (first_s, key);
CREATE TABLE calls (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
    execution INTEGER NOT NULL REFERENCES executions (key),
    llm TEXT NOT NULL, role TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    start_s REAL NOT NULL, first_token_s REAL, end_s REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cached_tokens INTEGER,
    replica TEXT, block_tokens INTEGER NOT NULL,
    base INTEGER, base_blocks INTEGER NOT NULL, more_blocks BLOB NOT NULL,
    output_blocks BLOB NOT NULL
);
CREATE INDEX calls_by_execution ON calls (execution, key);
CREATE TABLE contents (call TEXT PRIMARY KEY, request BLOB NOT NULL, response BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
"""
# A call's prefix blocks are the first `base_blocks` of the call whose key is `base` (an earlier
# one of the same execution), followed by `more_blocks`.

COLUMNS = (
    "key, id, llm, role, endpoint, status, start_s, first_token_s, end_s, prompt_tokens, "
    "output_tokens, cached_tokens, replica, block_tokens"
)
BLOCK_COLUMNS = "base, base_blocks, more_blocks, output_blocks"
INSERT_CALL = """
INSERT INTO calls (
    id, execution, llm, role, endpoint, status, start_s, first_token_s, end_s, prompt_tokens,
    output_tokens, cached_tokens, replica, block_tokens, base, base_blocks, more_blocks,
    output_blocks
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def connect(path: Path) -> sqlite3.Connection:
    """Connect; a store on a read-only file system is opened as one that nobody writes."""
    read_only = path.exists() and not os.access(path.parent, os.W_OK)
    suffix = "?mode=ro&immutable=1" if read_only else ""
    return sqlite3.connect(
        path.absolute().as_uri() + suffix,
        uri=True,
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


def check(connection: sqlite3.Connection, path: Path, *, create: bool) -> None:
    """Make the schema in a new file, or see that it is one we know."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if create and not application and not tables:
        _create(connection)
    elif application != _APPLICATION_ID:
        raise InputError(f"{path} is not a trace store")
    elif version != _SCHEMA_VERSION:
        raise InputError(
            f"{path} is a trace store of version {version}, this Scepsy reads {_SCHEMA_VERSION}",
            hint="use the Scepsy that wrote it to export it as JSONL",
        )
    connection.execute("PRAGMA synchronous = NORMAL")


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:  # else another process made it while we waited
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def row_of(call: Call, execution: int, base: int | None, base_blocks: int) -> Row:
    """A call's row, for ``INSERT_CALL``; its first ``base_blocks`` blocks are those of ``base``."""
    return (
        call.id,
        execution,
        call.llm,
        call.role,
        call.endpoint,
        call.status,
        call.start_s,
        call.first_token_s,
        call.end_s,
        call.prompt_tokens,
        call.output_tokens,
        call.cached_tokens,
        call.replica,
        call.block_tokens,
        base,
        base_blocks,
        pack_blocks(call.prefix_blocks[base_blocks:]),
        pack_blocks(call.output_blocks),
    )


def call_of(
    row: Row,
    workflow: WorkflowName,
    execution: ExecutionId,
    blocks: dict[int, tuple[int, ...]],
) -> Call:
    """A call from its row; ``blocks`` has those of earlier calls by key, and gets this one's."""
    key, id_, llm, role, endpoint, status, start_s, first_s, end_s, *rest = row
    prompt, output, cached, replica, block_tokens, *packed = rest
    prefix: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    if packed:
        base, base_blocks, more, output_blocks = packed
        earlier = blocks[base][:base_blocks] if base is not None else ()
        prefix = blocks[key] = earlier + unpack_blocks(more)
        after = unpack_blocks(output_blocks)
    return Call(
        id=CallId(id_),
        execution=execution,
        workflow=workflow,
        llm=LlmName(llm),
        role=Role(role),
        endpoint=Endpoint(endpoint),
        status=CallStatus(status),
        start_s=start_s,
        first_token_s=first_s,
        end_s=end_s,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=cached,
        replica=None if replica is None else ReplicaName(replica),
        block_tokens=block_tokens,
        prefix_blocks=prefix,
        output_blocks=after,
    )
