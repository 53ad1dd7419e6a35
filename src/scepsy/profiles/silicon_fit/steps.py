"""Step times by the fitted physics, for an LLM or GPU type without published step times.

The physics was fitted to whole calls in a closed loop, where what a prefill costs is what it adds
to the decode steps of others. So a step is the sum

    step = pass and decodes (at least one call's pass over the weights) + prefill

Weights and KV are read, and prompts computed, at most at the GPU's peak. There is no residual: that
knows closed loops, not steps. The error bar is that of the physics alone.
"""

from collections.abc import Sequence

from scepsy.profiles.gpu_fraction import decode_slowdown, prefill_slowdown
from scepsy.profiles.silicon_fit.step_terms import Replica
from scepsy.profiles.silicon_fit.step_weights import DECODE_WEIGHTS, PREFILL_WEIGHTS


class FittedStepTimes:
    """Step times of a replica on a share of each GPU. See ``StepTimes``."""

    def __init__(
        self,
        replica: Replica,
        *,
        gpu_fraction: float = 1.0,
        decode_weights: Sequence[float] = DECODE_WEIGHTS,
        prefill_weights: Sequence[float] = PREFILL_WEIGHTS,
    ) -> None:
        self._replica = replica
        self._fraction = gpu_fraction
        self._prefill_slower = prefill_slowdown(gpu_fraction, tensor_parallel=replica.gpus)
        self._decode_weights, self._prefill_weights = decode_weights, prefill_weights

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        """Seconds of one step."""
        if prefill_tokens <= 0 and decodes <= 0:
            return 0.0
        context_tokens = decode_context_tokens if decodes > 0 else 0
        step_s = self._decode_s(max(decodes, 0), context_tokens)
        if prefill_tokens > 0:
            terms = self._replica.prefill_terms(prefill_tokens, prefill_context_tokens)
            step_s += self._prefill_slower * _weighed(terms, self._prefill_weights)
        return step_s

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        """Seconds of ``steps`` pure decode steps in a row; exact, as they grow linearly."""
        if decodes <= 0 or steps <= 0:
            return 0.0
        return steps * self._decode_s(decodes, decode_context_tokens + decodes * (steps - 1) / 2)

    def _decode_s(self, calls: int, context_tokens: float) -> float:
        slower = decode_slowdown(
            self._fraction, tensor_parallel=self._replica.gpus, decodes=max(calls, 1)
        )
        terms = self._replica.decode_terms(calls, context_tokens)
        return slower * _weighed(terms, self._decode_weights)


def _weighed(terms: Sequence[float], weights: Sequence[float]) -> float:
    return sum(term * weight for term, weight in zip(terms, weights, strict=True))
