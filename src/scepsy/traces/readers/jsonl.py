"""Scepsy's own interchange format: one call a line, in JSON; see the guide on traces.

A line stands alone, except that a call may name an earlier call of its execution whose first
blocks it shares (``base``), as an agent's long prompt is otherwise repeated on every line.
"""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from scepsy.errors import InputError
from scepsy.model.execution import (
    BLOCK_TOKENS,
    Call,
    CallId,
    CallStatus,
    Endpoint,
    Execution,
    ExecutionId,
    ReplicaName,
)
from scepsy.model.workflow import NO_ROLE, LlmName, Role, WorkflowName
from scepsy.traces.blocks import common_prefix
from scepsy.traces.readers.source import LineFormat, LineParser, Naming

_Name = Annotated[str, Field(min_length=1)]
_BlockId = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_Tokens = Annotated[int, Field(ge=0, lt=2**63)]
_Instant = Annotated[float, Field(allow_inf_nan=False)]


class BaseBlocks(BaseModel):
    """The first ``blocks`` blocks of call ``call``, an earlier one of the same execution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    call: _Name
    blocks: int = Field(ge=0)


class CallRow(BaseModel):
    """One call as a line of JSON or a row of Parquet. Instants are seconds on the trace's clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Name
    execution: _Name
    workflow: _Name
    llm: _Name
    role: str = NO_ROLE
    start_s: _Instant
    first_token_s: _Instant | None = None
    end_s: _Instant
    prompt_tokens: _Tokens
    output_tokens: _Tokens
    cached_tokens: _Tokens | None = None
    endpoint: Endpoint = Endpoint.CHAT
    status: CallStatus = CallStatus.OK
    replica: str | None = None
    block_tokens: int = Field(default=BLOCK_TOKENS, gt=0)
    base: BaseBlocks | None = None
    prefix_blocks: tuple[_BlockId, ...] = ()
    """Blocks after those of ``base``; all of them where there is no base."""
    output_blocks: tuple[_BlockId, ...] = ()

    def call(self, naming: Naming, base_blocks: tuple[int, ...] = ()) -> Call:
        """The call, with the blocks of ``base`` in front."""
        return Call(
            id=CallId(self.id),
            execution=ExecutionId(self.execution),
            workflow=naming.workflow or WorkflowName(self.workflow),
            llm=naming.llm or LlmName(self.llm),
            role=Role(self.role),
            start_s=self.start_s,
            first_token_s=self.first_token_s,
            end_s=self.end_s,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            endpoint=self.endpoint,
            status=self.status,
            replica=None if self.replica is None else ReplicaName(self.replica),
            block_tokens=self.block_tokens,
            prefix_blocks=base_blocks + self.prefix_blocks,
            output_blocks=self.output_blocks,
        )


def row(call: Call) -> dict[str, Any]:
    """A call's fields with all of its blocks: what ``CallRow`` reads."""
    return {
        "id": call.id,
        "execution": call.execution,
        "workflow": call.workflow,
        "llm": call.llm,
        "role": call.role,
        "start_s": call.start_s,
        "first_token_s": call.first_token_s,
        "end_s": call.end_s,
        "prompt_tokens": call.prompt_tokens,
        "output_tokens": call.output_tokens,
        "cached_tokens": call.cached_tokens,
        "endpoint": call.endpoint.value,
        "status": call.status.value,
        "replica": call.replica,
        "block_tokens": call.block_tokens,
        "prefix_blocks": call.prefix_blocks,
        "output_blocks": call.output_blocks,
    }


def _parser(naming: Naming) -> LineParser:
    execution = ""
    blocks: dict[str, tuple[int, ...]] = {}  # of the execution that is being read

    def parse(line: bytes) -> Sequence[Call]:
        nonlocal execution
        parsed = CallRow.model_validate_json(line)
        if parsed.execution != execution:
            execution = parsed.execution
            blocks.clear()
        base: tuple[int, ...] = ()
        if parsed.base is not None:
            base = blocks.get(parsed.base.call, ())[: parsed.base.blocks]
            if len(base) < parsed.base.blocks:
                raise InputError(f"base call `{parsed.base.call}` is missing or too short")
        call = parsed.call(naming, base)
        blocks[parsed.id] = call.prefix_blocks
        return (call,)

    return parse


FORMAT = LineFormat(
    name="jsonl", has_keys=frozenset({"execution", "workflow", "llm", "start_s"}), parser=_parser
)


def write_jsonl(path: Path, executions: Iterable[Execution]) -> int:
    """Write executions, one call a line (gzip for ``.gz``); give the number of calls written.

    Raises:
        InputError: the file cannot be written.
    """
    count = 0
    try:
        with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
            for execution in executions:
                for line in _lines(execution):
                    file.write(line)
                count += len(execution.calls)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return count


def _lines(execution: Execution) -> Iterable[bytes]:
    """Lines of one execution; each call shares blocks with the last one of its stage."""
    last: dict[object, Call] = {}
    for call in execution.calls:
        fields = row(call)
        base = last.get(call.stage)
        shared = common_prefix(base.prefix_blocks, call.prefix_blocks) if base else 0
        if base is not None and shared:
            fields["base"] = {"call": base.id, "blocks": shared}
            fields["prefix_blocks"] = call.prefix_blocks[shared:]
        last[call.stage] = call
        yield orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
