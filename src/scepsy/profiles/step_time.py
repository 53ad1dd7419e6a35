"""What an engine iteration costs, and what an engine can hold: the interface to silicon data.

Times are those of one model on one GPU type at one tensor parallel degree and GPU fraction.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from scepsy.errors import InputError
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.model.provenance import Provenance


class StepTimes(Protocol):
    """Duration of engine steps. Pure; never falls as any argument rises."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        """Seconds of one step that computes prompt tokens beside one token for each decode.

        Args:
            prefill_tokens: new prompt tokens computed in this step, over all calls; may be 0.
            prefill_context_tokens: tokens already in KV that those attend to, over all calls.
            decodes: calls that get one output token each; may be 0.
            decode_context_tokens: tokens in KV of those calls, summed.
        """
        ...

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        """Seconds of ``steps`` pure decode steps in a row, each context growing by 1 token."""
        ...


@dataclass(frozen=True, slots=True)
class BatchShape:
    """What a step computes, call by call as far as that matters."""

    prefills: tuple[tuple[int, int], ...]
    """Of each call in prefill: new prompt tokens, at least 1, and tokens that it has in KV."""
    decodes: int
    decode_context_tokens: int
    """Tokens in KV of the calls that decode, summed."""
    longest_decode_tokens: int
    """Tokens in KV of the one of them that has most."""

    @property
    def tokens(self) -> int:
        """Tokens that the step computes."""
        return self.decodes + sum(new for new, _ in self.prefills)

    @property
    def sequences(self) -> int:
        """Calls in the step."""
        return self.decodes + len(self.prefills)


@runtime_checkable
class BatchStepTimes(StepTimes, Protocol):
    """Step times that know how a step's tokens are spread over its calls."""

    def batch_step_s(self, batch: BatchShape) -> float:
        """Seconds of one step."""
        ...

    def batch_run_s(self, batch: BatchShape, steps: int) -> float:
        """Seconds of ``steps`` pure decode steps in a row, each context growing by 1 token."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """All that the engine model needs to know of one replica."""

    times: StepTimes
    kv_blocks: int
    """KV blocks that fit beside weights and overhead, over the whole replica."""
    block_tokens: int = BLOCK_TOKENS
    max_seqs: int = 256
    """Calls in the batch at most (vLLM's ``max_num_seqs``)."""
    chunk_tokens: int = 2048
    """Tokens in one step at most (vLLM's ``max_num_batched_tokens``)."""
    host_blocks: int = 0
    """KV blocks that are kept in host memory when the GPU has no room for them."""
    host_block_s: float = 0.0
    """Seconds to bring one of them back."""
    provenance: Provenance = Provenance.SIMULATED
    source: str = ""
    """Which data the times come from, e.g. ``aiconfigurator-core 0.12.0, vllm 0.24.0, h100``."""

    error_fraction: float | None = None
    """Relative error of step times that 9 of 10 stay within; None: as usual for the provenance."""

    def __post_init__(self) -> None:
        if min(self.kv_blocks, self.block_tokens, self.max_seqs, self.chunk_tokens) < 1:
            raise InputError("an engine needs at least one KV block, sequence and token a step")

    @property
    def kv_move_s(self) -> float:
        """Seconds to bring back as many blocks as there is room for."""
        return self.kv_blocks * self.host_block_s
