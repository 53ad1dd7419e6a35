"""What happened: one run of a workflow, as the calls that the gateway saw."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from scepsy.errors import InputError
from scepsy.model.workflow import NO_ROLE, LlmName, Role, Stage, WorkflowName

ExecutionId = NewType("ExecutionId", str)
CallId = NewType("CallId", str)
ReplicaName = NewType("ReplicaName", str)

BLOCK_TOKENS = 64
"""Tokens in one prefix block of a recorded call, unless its trace says otherwise."""


class Endpoint(StrEnum):
    """Which API a call used."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    OTHER = "other"


class CallStatus(StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    """The engine, or the way to it, failed."""
    REJECTED = "rejected"
    """The engine or the gateway refused the call (4xx)."""
    CANCELLED = "cancelled"
    """The client left before the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One LLM request. Instants are seconds on the trace's clock."""

    id: CallId
    execution: ExecutionId
    workflow: WorkflowName
    llm: LlmName
    start_s: float
    """Arrival at the gateway."""
    end_s: float
    """Last byte of the answer."""
    prompt_tokens: int
    output_tokens: int
    role: Role = NO_ROLE
    endpoint: Endpoint = Endpoint.CHAT
    first_token_s: float | None = None
    """First output token; None where the answer was not streamed."""
    cached_tokens: int | None = None
    """Prompt tokens that the engine said were in its KV cache; None where it did not say."""
    status: CallStatus = CallStatus.OK
    replica: ReplicaName | None = None
    block_tokens: int = BLOCK_TOKENS
    prefix_blocks: tuple[int, ...] = ()
    """Ids of the prompt's full blocks; equal ids mean an equal prefix up to and including it."""
    output_blocks: tuple[int, ...] = ()
    """Ids of the blocks that prompt and output fill beyond ``prefix_blocks``."""

    def __post_init__(self) -> None:
        if self.prompt_tokens < 0 or self.output_tokens < 0:
            raise InputError(f"call {self.id}: tokens must be >= 0")
        first_s = self.start_s if self.first_token_s is None else self.first_token_s
        if not self.start_s <= first_s <= self.end_s:
            raise InputError(
                f"call {self.id}: need start <= first token <= end, got "
                f"{self.start_s}, {self.first_token_s}, {self.end_s}"
            )

    @property
    def stage(self) -> Stage:
        """The stage that this call belongs to."""
        return Stage(self.workflow, self.llm, self.role)

    @property
    def e2e_s(self) -> float:
        """From arrival to the last token."""
        return self.end_s - self.start_s

    @property
    def ttft_s(self) -> float | None:
        """From arrival to the first token; None where it was not seen."""
        return None if self.first_token_s is None else self.first_token_s - self.start_s


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a workflow: its calls, by start."""

    id: ExecutionId
    workflow: WorkflowName
    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        if not self.calls:
            raise InputError(f"execution {self.id} has no calls")
        if any(a.start_s > b.start_s for a, b in zip(self.calls, self.calls[1:], strict=False)):
            raise InputError(f"execution {self.id}: calls must be sorted by start")

    @property
    def start_s(self) -> float:
        """Arrival of the first call."""
        return self.calls[0].start_s

    @property
    def end_s(self) -> float:
        """End of the last call to end."""
        return max(call.end_s for call in self.calls)

    @property
    def execution_s(self) -> float:
        """Execution latency as the gateway can see it: first arrival to last token."""
        return self.end_s - self.start_s
