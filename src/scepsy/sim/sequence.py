"""A call inside the engine model."""

from dataclasses import dataclass, field

from scepsy.sim.decode_batch import Decode
from scepsy.sim.engine_call import EngineCall


@dataclass(slots=True, eq=False)
class Sequence:
    """A call on its way. It decodes when all of ``target_tokens`` are computed."""

    call: EngineCall
    order: int
    arrived_s: float
    chain: tuple[int, ...]
    """Ids of the blocks that prompt and output fill, from the first on."""
    target_tokens: int
    """Tokens to compute before the next one can be generated: prompt and, after a preemption,
    what was generated before it."""
    computed_tokens: int = 0
    chunk_tokens: int = 0
    """Prompt tokens that the step under way computes."""
    generated_tokens: int = 0
    """By the time it last began to decode, where it does."""
    decode: Decode | None = None
    """Its place among the decoding calls."""
    cached_tokens: int | None = None
    """Prefix hit when first scheduled; None before that."""
    scheduled_s: float = 0.0
    """When it was first scheduled, if it was."""
    held: list[int] = field(default_factory=list)
    """Ids of the cached blocks that it holds; its other blocks are private."""
    registered: int = 0
    """Ids of the chain that were offered for sharing so far."""
    cancelled: bool = False
