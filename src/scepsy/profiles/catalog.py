"""The LLMs and GPU types that are known by name, and what of them decides memory.

Parameters are counted from the architecture of each published checkpoint; gpt-oss is given by the
size of its checkpoint, whose experts are in MXFP4. KV is in bfloat16 for all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.cluster import GpuType, GpuTypeName
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName
from scepsy.profiles.config_file import read_config
from scepsy.profiles.silicon_fit.architecture import Architecture
from scepsy.profiles.silicon_fit.configuration import Precision
from scepsy.units import GIB


class LlmKind(StrEnum):
    """What an LLM answers with."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlmSpec:
    """What is known of an LLM before it runs anywhere."""

    name: LlmName
    hf_name: str
    """Repository on the Hugging Face hub."""
    weight_bytes: int
    layers: int
    kv_heads: int
    head_dim: int
    kv_dtype_bytes: int = 2
    kind: LlmKind = LlmKind.GENERATE
    table: str
    """The ``hf_name`` whose step table it uses: its own, or that of an equal architecture."""
    aliases: tuple[str, ...] = ()
    precision: Precision = Precision.BF16
    """What most of the weights are stored in."""
    architecture: Architecture | None = None
    """None where a published one has its name."""

    def __post_init__(self) -> None:
        sizes = (self.weight_bytes, self.layers, self.kv_heads, self.head_dim, self.kv_dtype_bytes)
        if min(sizes) < 1:
            raise InputError(f"{self.name}: weights, layers, heads and sizes must be >= 1")

    @property
    def kv_bytes_per_token(self) -> int:
        """KV of one token over all layers: a key and a value for each KV head."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_dtype_bytes

    @property
    def provenance(self) -> Provenance:
        """Assumed where the step table is another LLM's."""
        return Provenance.SIMULATED if self.table == self.hf_name else Provenance.ASSUMED

    def replica_kv_bytes_per_token(self, tensor_parallel: int) -> int:
        """KV of one token over all GPUs of a replica: each GPU holds at least one KV head."""
        return self.kv_bytes_per_token * max(self.kv_heads, tensor_parallel) // self.kv_heads


def _llm(  # noqa: PLR0913  (a row of the table below)
    name: str,
    hf_name: str,
    weight_bytes: int,
    *,
    layers: int,
    kv_heads: int = 8,
    head_dim: int = 128,
    kind: LlmKind = LlmKind.GENERATE,
    table: str | None = None,
    aliases: tuple[str, ...] = (),
    precision: Precision = Precision.BF16,
) -> LlmSpec:
    return LlmSpec(
        name=LlmName(name),
        hf_name=hf_name,
        weight_bytes=weight_bytes,
        layers=layers,
        kv_heads=kv_heads,
        head_dim=head_dim,
        kind=kind,
        table=table or hf_name,
        aliases=aliases,
        precision=precision,
    )


_BF16 = 2
_QWEN3_SMALL = "Qwen/Qwen3-0.6B"
_LLAMA_8B = "meta-llama/Meta-Llama-3.1-8B"
_LLAMA_70B = "meta-llama/Meta-Llama-3.1-70B"

LLMS: tuple[LlmSpec, ...] = (
    _llm("qwen3-0.6b", _QWEN3_SMALL, 596_049_920 * _BF16, layers=28),
    _llm("qwen3-1.7b", "Qwen/Qwen3-1.7B", 1_720_574_976 * _BF16, layers=28),
    _llm("qwen3-8b", "Qwen/Qwen3-8B", 8_190_735_360 * _BF16, layers=36),
    _llm("qwen3-32b", "Qwen/Qwen3-32B", 32_762_123_264 * _BF16, layers=64),
    _llm(
        "qwen3-30b-a3b",
        "Qwen/Qwen3-30B-A3B",
        30_532_122_624 * _BF16,
        layers=48,
        kv_heads=4,
        aliases=("Qwen/Qwen3-30B-A3B-Instruct-2507",),
    ),
    _llm(
        "qwen3-embedding-0.6b",
        "Qwen/Qwen3-Embedding-0.6B",
        596_049_920 * _BF16,
        layers=28,
        kind=LlmKind.EMBED,
        table=_QWEN3_SMALL,
    ),
    _llm(
        "qwen3-reranker-0.6b",
        "Qwen/Qwen3-Reranker-0.6B",
        596_049_920 * _BF16,
        layers=28,
        kind=LlmKind.RERANK,
        table=_QWEN3_SMALL,
    ),
    _llm(
        "llama-3.1-8b",
        _LLAMA_8B,
        8_030_261_248 * _BF16,
        layers=32,
        aliases=(
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
        ),
    ),
    _llm(
        "llama-3.1-70b",
        _LLAMA_70B,
        70_553_706_496 * _BF16,
        layers=80,
        aliases=(
            "meta-llama/Llama-3.1-70B",
            "meta-llama/Llama-3.1-70B-Instruct",
            "meta-llama/Meta-Llama-3.1-70B-Instruct",
        ),
    ),
    _llm(
        "gpt-oss-20b",
        "openai/gpt-oss-20b",
        round(12.8 * GIB),
        layers=24,
        head_dim=64,
        precision=Precision.FP4,
    ),
    _llm(
        "gpt-oss-120b",
        "openai/gpt-oss-120b",
        round(60.8 * GIB),
        layers=36,
        head_dim=64,
        precision=Precision.FP4,
    ),
)
"""All LLMs known by name. Their generated text and vocabulary play no part."""

GPU_TYPES: Mapping[GpuTypeName, GpuType] = {
    GpuTypeName(name): GpuType(name=GpuTypeName(name), memory_bytes=memory_bytes)
    for name, memory_bytes in (
        ("a100", 80 * GIB),
        ("b200", 180 * GIB),
        ("h100", 80 * GIB),
        ("h200", 141 * GIB),
        ("l40s", 46_068 * 1024**2),
    )
}
"""GPU types by name: all SXM but the L40S, which is a PCIe card."""

_PCIE_BYTES_PER_S: Mapping[GpuTypeName, float] = {
    GpuTypeName("a100"): 32e9,
    GpuTypeName("l40s"): 32e9,
    GpuTypeName("h100"): 64e9,
    GpuTypeName("h200"): 64e9,
    GpuTypeName("b200"): 64e9,
}
"""Of each GPU, in each direction: 16 lanes of PCIe 4.0 or 5.0."""
_PCIE_EFFICIENCY = 0.85
"""Of a copy of large blocks of pinned memory. Assumed."""
_OTHER_PCIE_BYTES_PER_S = 32e9
_OTHER_MEMORY_BYTES = 80 * GIB

_LLM_BY_NAME = {
    known.casefold(): llm for llm in LLMS for known in (llm.name, llm.hf_name, *llm.aliases)
}


def find_llm(name: str) -> LlmSpec:
    """The LLM of a short name or of a name on the Hugging Face hub, in any case.

    A name that ends in ``.json`` is the path of an LLM's ``config.json``.

    Raises:
        UnknownNameError: none of the known LLMs is called that.
        MissingError: no such file.
        InputError: the file does not describe a decoder whose step times can be told.
    """
    if name.endswith(".json"):
        described = read_config(Path(name))
        return LlmSpec(
            name=LlmName(described.architecture.name),
            hf_name=name,
            weight_bytes=described.weight_bytes,
            layers=described.architecture.layers,
            kv_heads=described.kv_heads,
            head_dim=described.head_dim,
            table=name,
            architecture=described.architecture,
        )
    llm = _LLM_BY_NAME.get(name.casefold())
    if llm is None:
        raise UnknownNameError("LLM", name, (llm.name for llm in LLMS))
    return llm


def find_gpu_type(name: str) -> GpuType:
    """The GPU type of a name such as ``h100``, ``H100-SXM`` or ``h100_sxm``.

    Raises:
        UnknownNameError: none of the known GPU types is called that.
    """
    plain = name.casefold().replace("_", "-").removesuffix("-sxm")
    gpu_type = GPU_TYPES.get(GpuTypeName(plain))
    if gpu_type is None:
        raise UnknownNameError("GPU type", name, GPU_TYPES)
    return gpu_type


def host_bytes_per_s(gpu_type: GpuTypeName) -> float:
    """Between a GPU and host memory in each direction; an assumed speed for unknown types."""
    return _PCIE_EFFICIENCY * _PCIE_BYTES_PER_S.get(gpu_type, _OTHER_PCIE_BYTES_PER_S)


def memory_move_s(gpu_type: GpuTypeName) -> float:
    """Seconds in which as much as a GPU's memory goes to host memory or comes back."""
    known = GPU_TYPES.get(gpu_type)
    memory_bytes = known.memory_bytes if known else _OTHER_MEMORY_BYTES
    return memory_bytes / host_bytes_per_s(gpu_type)
