"""The LLMs that were measured: what a token costs them in weights, KV and operations.

Every number is from the ``config.json`` of the LLM's published checkpoint (as shipped with
aiconfigurator-core 0.12.0, ai-dynamo/aiconfigurator); the counts of parameters follow from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What of an LLM decides its speed. Operations are multiply-adds counted as two."""

    name: str
    layers: int
    hidden: int
    dense_parameters: float
    """Weights that every token reads: attention, shared experts, dense layers, output head."""
    routed_parameters: float = 0.0
    """Weights of all routed experts together."""
    experts: int = 1
    experts_per_token: int = 1
    kv_values_per_token: float
    """Numbers kept in the KV cache for one token, over all layers."""
    decode_flops_per_pair: float
    """Attention's operations for one new token and one token of its context."""
    prefill_flops_per_pair: float
    latent_attention: bool = False
    """Keeps one compressed KV for all heads (MLA), which tensor parallelism copies, not shards."""
    sparse_attention: bool = False
    """Attends to a selected part of the context (DSA)."""
    linear_attention: bool = False
    """Most layers keep a state of fixed size in place of KV."""
    linear_bytes: float | None = None
    """Bytes of a weight outside the experts, where they are not quantized with them."""

    @property
    def mixture(self) -> bool:
        """Routes each token to some of many experts."""
        return self.experts > 1

    @property
    def active_parameters(self) -> float:
        """Weights that one token is multiplied with."""
        return self.dense_parameters + self.routed_parameters * self.routed_fraction

    @property
    def routed_fraction(self) -> float:
        """Part of the experts that one token reads, in (0, 1]."""
        return self.experts_per_token / self.experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The routed experts of a mixture, and those that every token goes to."""

    count: int
    per_token: int
    size: int
    shared_size: int = 0
    dense_layers: int = 0


DENSE = Experts(count=1, per_token=1, size=0)
"""No experts."""


def grouped(  # noqa: PLR0913
    name: str,
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocabulary: int,
    intermediate: int = 0,
    experts: Experts = DENSE,
    full_attention_fraction: float = 1.0,
    linear_layer_parameters: float = 0.0,
    linear_bytes: float | None = None,
) -> Architecture:
    """An LLM with grouped-query attention, in all or in some of its layers."""
    full = full_attention_fraction
    attention = 2 * hidden * head_dim * (heads + kv_heads) * full
    attention += linear_layer_parameters * (1 - full)
    pair = 4 * heads * head_dim * layers * full
    return Architecture(
        name=name,
        layers=layers,
        hidden=hidden,
        dense_parameters=_dense(layers, hidden, vocabulary, attention, intermediate, experts),
        routed_parameters=_routed(layers, hidden, experts),
        experts=experts.count,
        experts_per_token=experts.per_token,
        kv_values_per_token=2 * kv_heads * head_dim * layers * full,
        decode_flops_per_pair=pair,
        prefill_flops_per_pair=pair,
        linear_attention=full < 1,
        linear_bytes=linear_bytes,
    )


def _latent(  # noqa: PLR0913
    name: str,
    *,
    layers: int,
    hidden: int,
    heads: int,
    vocabulary: int,
    intermediate: int,
    experts: Experts,
    query_rank: int = 1536,
    key_dim: int = 128,
    value_dim: int = 128,
    sparse: bool = False,
) -> Architecture:
    """An LLM with multi-head latent attention: KV rank 512, and 64 rotary dimensions."""
    latent, rotary = 512, 64
    attention = hidden * query_rank + query_rank * heads * (key_dim + rotary)
    attention += hidden * (latent + rotary) + latent * heads * (key_dim + value_dim)
    attention += heads * value_dim * hidden
    return Architecture(
        name=name,
        layers=layers,
        hidden=hidden,
        dense_parameters=_dense(layers, hidden, vocabulary, attention, intermediate, experts),
        routed_parameters=_routed(layers, hidden, experts),
        experts=experts.count,
        experts_per_token=experts.per_token,
        kv_values_per_token=(latent + rotary) * layers,
        decode_flops_per_pair=2 * heads * (2 * latent + rotary) * layers,
        prefill_flops_per_pair=2 * heads * (key_dim + rotary + value_dim) * layers,
        latent_attention=True,
        sparse_attention=sparse,
    )


def _dense(
    layers: int,
    hidden: int,
    vocabulary: int,
    attention: float,
    intermediate: int,
    experts: Experts,
) -> float:
    mixed = layers - experts.dense_layers if experts.count > 1 else 0
    gated = 3 * hidden * (intermediate * (layers - mixed) + experts.shared_size * mixed)
    return attention * layers + gated + hidden * vocabulary


def _routed(layers: int, hidden: int, experts: Experts) -> float:
    return 3.0 * hidden * experts.size * experts.count * (layers - experts.dense_layers)


ARCHITECTURES: Mapping[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        grouped(
            "llama-3.1-8b",
            layers=32,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            vocabulary=128_256,
            intermediate=14_336,
        ),
        grouped(
            "llama-3.1-70b",
            layers=80,
            hidden=8192,
            heads=64,
            kv_heads=8,
            head_dim=128,
            vocabulary=128_256,
            intermediate=28_672,
        ),
        grouped(
            "qwen3-32b",
            layers=64,
            hidden=5120,
            heads=64,
            kv_heads=8,
            head_dim=128,
            vocabulary=151_936,
            intermediate=25_600,
        ),
        grouped(
            "qwen3-235b-a22b",
            layers=94,
            hidden=4096,
            heads=64,
            kv_heads=4,
            head_dim=128,
            vocabulary=151_936,
            experts=Experts(count=128, per_token=8, size=1536),
        ),
        grouped(
            "qwen3.5-397b-a17b",
            layers=60,
            hidden=4096,
            heads=32,
            kv_heads=2,
            head_dim=256,
            vocabulary=248_320,
            experts=Experts(count=512, per_token=10, size=1024, shared_size=1024),
            full_attention_fraction=0.25,
            linear_layer_parameters=4096 * (2 * 16 * 128 + 3 * 64 * 128),
        ),
        grouped(
            "minimax-m2.5",
            layers=62,
            hidden=3072,
            heads=48,
            kv_heads=8,
            head_dim=128,
            vocabulary=200_064,
            experts=Experts(count=256, per_token=8, size=1536),
        ),
        grouped(
            "gpt-oss-120b",
            layers=36,
            hidden=2880,
            heads=64,
            kv_heads=8,
            head_dim=64,
            vocabulary=201_088,
            experts=Experts(count=128, per_token=4, size=2880),
            linear_bytes=2.0,
        ),
        grouped(
            "qwen3-0.6b",
            layers=28,
            hidden=1024,
            heads=16,
            kv_heads=8,
            head_dim=128,
            vocabulary=151_936,
            intermediate=3_072,
        ),
        grouped(
            "qwen3-1.7b",
            layers=28,
            hidden=2048,
            heads=16,
            kv_heads=8,
            head_dim=128,
            vocabulary=151_936,
            intermediate=6_144,
        ),
        grouped(
            "qwen3-8b",
            layers=36,
            hidden=4096,
            heads=32,
            kv_heads=8,
            head_dim=128,
            vocabulary=151_936,
            intermediate=12_288,
        ),
        grouped(
            "qwen3-30b-a3b",
            layers=48,
            hidden=2048,
            heads=32,
            kv_heads=4,
            head_dim=128,
            vocabulary=151_936,
            experts=Experts(count=128, per_token=8, size=768),
        ),
        grouped(
            "gpt-oss-20b",
            layers=24,
            hidden=2880,
            heads=64,
            kv_heads=8,
            head_dim=64,
            vocabulary=201_088,
            experts=Experts(count=32, per_token=4, size=2880),
            linear_bytes=2.0,
        ),
        _latent(
            "deepseek-v3",
            layers=61,
            hidden=7168,
            heads=128,
            vocabulary=129_280,
            intermediate=18_432,
            experts=Experts(count=256, per_token=8, size=2048, shared_size=2048, dense_layers=3),
        ),
        _latent(
            "kimi-k2.5",
            layers=61,
            hidden=7168,
            heads=64,
            vocabulary=163_840,
            intermediate=18_432,
            experts=Experts(count=384, per_token=8, size=2048, shared_size=2048, dense_layers=1),
        ),
        _latent(
            "glm-5",
            layers=78,
            hidden=6144,
            heads=64,
            vocabulary=154_880,
            intermediate=12_288,
            experts=Experts(count=256, per_token=8, size=2048, shared_size=2048, dense_layers=3),
            query_rank=2048,
            key_dim=192,
            value_dim=256,
            sparse=True,
        ),
    )
}
"""By name. DeepSeek V3, R1 and V3.1 are one architecture, and so one name."""


def find_architecture(name: str) -> Architecture:
    """The architecture of a name.

    Raises:
        UnknownNameError: none is called that.
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]
