"""What a replica can do, from an operator profile: step times and room for KV."""

from dataclasses import dataclass

from scepsy.errors import InfeasibleError, MissingError
from scepsy.profiles.catalog import LlmSpec, find_llm
from scepsy.profiles.operator_profile import OperatorProfile
from scepsy.profiles.operator_times import Layout, Link, OperatorModel, OperatorStepTimes
from scepsy.profiles.step_time import EngineSpec
from scepsy.units import GIB, format_bytes

_BF16 = 2
BLOCK_TOKENS = 16
"""vLLM's ``block_size`` on NVIDIA GPUs."""
_MATRICES = 3
"""Weight matrices of an expert: gate, up and down."""
VISIBLE = 0.985
"""Part of a GPU's nominal memory that CUDA sees: 23.58 of 24 GiB, 79.22 of 80 (logs in vLLM's pull
requests 14447 and 12126)."""
OVERHEAD_BYTES = 1 * GIB
"""What vLLM keeps of each GPU beside weights and KV at 2,048 tokens and 128 calls a step, assumed:
0.2 GiB outside of torch (the same logs), 0.4 to sort the calls' logits, 0.4 for CUDA graphs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    """What the catalogue does not say of an LLM, from its published ``config.json``."""

    hidden: int
    vocabulary: int
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0


_ARCHITECTURES = {
    "llama-3.1-8b": _Architecture(hidden=4096, vocabulary=128_256),
    "llama-3.1-70b": _Architecture(hidden=8192, vocabulary=128_256),
    "qwen3-8b": _Architecture(hidden=4096, vocabulary=151_936),
    "qwen3-32b": _Architecture(hidden=5120, vocabulary=151_936),
    "qwen3-30b-a3b": _Architecture(
        hidden=2048, vocabulary=151_936, experts=128, experts_per_token=8, expert_width=768
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory of each GPU as CUDA sees it, and the part of it that the engine takes."""

    memory_bytes: float
    utilization: float


def operator_engine_spec(
    profile: OperatorProfile,
    *,
    room: Room,
    max_seqs: int,
    chunk_tokens: int,
    layout: Layout | None = None,
    link: Link | None = None,
    kv_blocks: int | None = None,
) -> EngineSpec:
    """All that the engine model needs to know of one replica, or of each of its copies.

    Args:
        profile: of its LLM, GPU type and tensor parallel degree.
        room: GPU memory, for the KV cache.
        max_seqs: see ``EngineSpec``.
        chunk_tokens: see ``EngineSpec``.
        layout: how copies share experts, where they do.
        link: what joins its GPUs; not needed for one.
        kv_blocks: KV blocks that it has, where that is known; else what fits beside the weights.

    Raises:
        MissingError: the LLM's architecture is not known.
        UnknownNameError: the LLM is not in the catalogue.
        InfeasibleError: not even the weights fit.
        InputError: the profile does not suit the LLM, or several GPUs have no link.
    """
    llm, layout = find_llm(profile.llm), layout or Layout()
    known = _ARCHITECTURES.get(llm.name)
    if known is None:
        raise MissingError(
            f"no operator profile can be used for {llm.name}: its width is not known",
            hint=f"known: {', '.join(_ARCHITECTURES)}",
        )
    model = OperatorModel(
        layers=llm.layers,
        hidden=known.hidden,
        kv_heads=llm.kv_heads,
        vocabulary=known.vocabulary,
        experts=known.experts,
        experts_per_token=known.experts_per_token,
    )
    return EngineSpec(
        times=OperatorStepTimes(profile, model, layout, link),
        block_tokens=BLOCK_TOKENS,
        kv_blocks=kv_blocks or _kv_blocks(profile, llm, known, layout, room),
        max_seqs=max_seqs,
        chunk_tokens=chunk_tokens,
        source=f"operator profile of {profile.llm}, {profile.engine}, {profile.gpu_type}",
    )


def _kv_blocks(
    profile: OperatorProfile, llm: LlmSpec, known: _Architecture, layout: Layout, room: Room
) -> int:
    """Blocks that fit on all GPUs of a copy."""
    gpus = profile.tensor_parallel
    expert_bytes = (
        llm.layers * known.experts * _MATRICES * known.hidden * known.expert_width * _BF16
    )
    spread = max(gpus, layout.expert_parallel)
    weight_bytes = (llm.weight_bytes - expert_bytes) / gpus + expert_bytes / spread
    left_bytes = room.memory_bytes * room.utilization - OVERHEAD_BYTES - weight_bytes
    block_bytes = llm.replica_kv_bytes_per_token(gpus) * BLOCK_TOKENS / gpus
    if left_bytes < block_bytes:
        raise InfeasibleError(
            f"{llm.name} at tensor parallel {gpus} does not fit on GPUs of "
            f"{format_bytes(room.memory_bytes)}: {format_bytes(-left_bytes)} short on each",
            hint="take a higher tensor parallel degree or a larger GPU",
        )
    return int(left_bytes // block_bytes)
