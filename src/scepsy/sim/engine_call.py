"""What goes into the engine model and what comes out of it.

Nothing changes a call or an event once it is made. They are not frozen for that: it would triple
the time that it takes to make one, and simulations make millions.
"""

from dataclasses import dataclass

from scepsy.errors import InputError
from scepsy.policy.program import NO_TOOL, ToolName


@dataclass(slots=True, kw_only=True)
class EngineCall:
    """What the engine must do. The output's length is oracle knowledge: no policy may see it."""

    id: str
    prompt_tokens: int
    output_tokens: int
    """0 for embeddings and reranking, which end with the prefill."""
    prefix_blocks: tuple[int, ...] = ()
    """Ids of the prompt's full blocks; equal ids mean an equal prefix. None: nothing is shared."""
    output_blocks: tuple[int, ...] = ()
    """Ids of the blocks that prompt and output fill beyond ``prefix_blocks``."""
    fetched_blocks: int = 0
    """So many of those, from the first on, can come from another replica."""
    fetch_s: float = 0.0
    """How long all of those take to come."""
    program: str = ""
    """Whose next call extends this one, e.g. an agent of an execution; may be empty."""
    kind: str = ""
    """What the wait for its next call depends on, as far as it is known when this one ends."""
    tool: ToolName = NO_TOOL
    """What its answer asks for: known when it has ended."""
    priority: float = 0.0
    """Of the calls that wait, the least goes first; of equal ones, the first to come."""

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 0:
            raise InputError(
                f"call {self.id}: needs prompt_tokens >= 1 and output_tokens >= 0, "
                f"got {self.prompt_tokens} and {self.output_tokens}"
            )


@dataclass(slots=True)
class FirstToken:
    """A call's prefill is complete, and with it its first output token."""

    at_s: float
    call_id: str
    cached_tokens: int
    """Prompt tokens that were found in the KV cache when the call was first scheduled."""


@dataclass(slots=True)
class Finished:
    """A call is complete; its blocks stay cached while there is room."""

    at_s: float
    call_id: str
    output_tokens: int
    cached_tokens: int
    """As in ``FirstToken``."""
    scheduled_s: float
    """When its first step began."""


@dataclass(slots=True)
class Preempted:
    """A running call lost its blocks and waits again; what it generated so far stays."""

    at_s: float
    call_id: str


EngineEvent = FirstToken | Finished | Preempted


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """State of an engine at the instant it was last advanced to. Totals are since its start."""

    running: int
    waiting: int
    kv_used_blocks: int
    kv_blocks: int
    prompt_tokens: int
    """Total prompt tokens of calls that were scheduled."""
    cached_tokens: int
    """Of those, found in the KV cache."""
    generated_tokens: int
    preemptions: int
    steps: int

    @property
    def kv_used_fraction(self) -> float:
        """Part of the KV blocks that calls hold, in [0, 1]."""
        return self.kv_used_blocks / self.kv_blocks
