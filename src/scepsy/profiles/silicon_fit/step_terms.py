"""What a step is made of: times at the hardware's peak rates, which a fit then weighs (s)."""

from dataclasses import dataclass
from math import log2

from scepsy.profiles.silicon_fit.accelerator import Accelerator
from scepsy.profiles.silicon_fit.architecture import Architecture
from scepsy.profiles.silicon_fit.configuration import Precision

LAYER_S = 1e-5
"""Scale of the terms for each layer: launching its kernels. Only how much it counts is fitted."""
DECODE_TERMS, PREFILL_TERMS = 12, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """An LLM on so many GPUs. Every term of it rises with calls, tokens and context, or stays."""

    llm: Architecture
    gpu: Accelerator
    precision: Precision
    gpus: int
    attention_copies: int = 1

    @property
    def kv_shards(self) -> int:
        """GPUs over which the KV of one token is spread."""
        if self.llm.latent_attention:
            return self.attention_copies
        return min(self.gpus, 8 * self.attention_copies)

    def weight_bytes(self, tokens: int) -> float:
        """Weights that a step over so many tokens reads: of the experts, those that any is for."""
        llm, weight_bytes = self.llm, self.precision.weight_bytes
        hit_fraction = 1 - (1 - llm.routed_fraction) ** tokens
        return (
            llm.dense_parameters * (llm.linear_bytes or weight_bytes) * self.attention_copies
            + llm.routed_parameters * weight_bytes * hit_fraction
        )

    def decode_terms(self, calls: int, context_tokens: float) -> list[float]:
        """Of a step that gives each call a token, with so much context in sum."""
        llm, gpu = self.llm, self.gpu
        launch_s = llm.layers * LAYER_S
        weights_s = self.weight_bytes(max(calls, 1)) / (self.gpus * gpu.memory_bytes_per_s)
        packed = self.precision in (Precision.FP4, Precision.INT4)
        return [
            weights_s,
            context_tokens * llm.kv_values_per_token / (self.kv_shards * gpu.memory_bytes_per_s),
            2 * llm.active_parameters * calls / self._flops_per_s
            + context_tokens * llm.decode_flops_per_pair / self._attention_flops_per_s,
            launch_s,
            launch_s * log2(self.gpus / self.attention_copies),
            calls * self._token_link_s,
            launch_s * llm.mixture,
            launch_s * llm.latent_attention,
            launch_s * llm.sparse_attention,
            launch_s * llm.linear_attention,
            weights_s * packed,
            weights_s * llm.mixture,
        ]

    def prefill_terms(self, tokens: int, cached_tokens: float = 0.0) -> list[float]:
        """Of a prompt's tokens, on top of cached ones that they attend to."""
        llm, gpu = self.llm, self.gpu
        pairs = tokens * (cached_tokens + tokens / 2)
        return [
            2 * llm.active_parameters * tokens / self._flops_per_s
            + llm.prefill_flops_per_pair * pairs / self._attention_flops_per_s,
            tokens * self._token_link_s,
            tokens * llm.layers * llm.hidden * 8 / gpu.memory_bytes_per_s,
            self.weight_bytes(tokens) / (self.gpus * gpu.memory_bytes_per_s),
            llm.layers * LAYER_S,
        ]

    @property
    def _flops_per_s(self) -> float:
        return self.gpus * self.gpu.flops_per_s(self.precision)

    @property
    def _attention_flops_per_s(self) -> float:
        return self.gpus * self.gpu.bf16_flops_per_s

    @property
    def _token_link_s(self) -> float:
        llm = self.llm
        return llm.layers * llm.hidden * 4 * (self.gpus > 1) / self.gpu.nvlink_bytes_per_s
