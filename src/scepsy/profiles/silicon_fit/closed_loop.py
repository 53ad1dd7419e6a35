"""What the physics says: times of a step, and how calls in a closed loop delay each other.

A closed loop keeps ``concurrency`` calls in flight. In the time of one call, each other call
prefills once; so a call's decoding is held up by the others' prefills, spread over its output
tokens, and its first token waits for some of them:

    TPOT = decode step + (concurrency - 1) / output tokens x prefill
    TTFT = constant + prefill + (concurrency - 1) x part of a prefill + part of a decode step

Decode step and prefill are sums of terms (s): weights and KV through memory, operations, bytes
over NVLink, and a fixed time for each layer. How much each counts is fitted, never below 0, so
times never fall as concurrency or input tokens rise, whatever is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scepsy.profiles.silicon_fit.accelerator import find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.configuration import Configuration, Measured
from scepsy.profiles.silicon_fit.step_terms import Replica

Array = NDArray[np.float64]

CONSTANT_S = 1e-2
"""Scale of the part of TTFT that depends on nothing: HTTP, tokenizer, scheduler."""
ENGINE_MEMORY_FRACTION = 0.85
"""Part of a GPU's memory that weights and KV may take."""
_ROUNDS, _SWEEPS = 6, 600


@dataclass(frozen=True, slots=True)
class Work:
    """Terms of the physics for some configurations, a row each (s)."""

    decode: Array
    """(configurations, decode terms)."""
    prefill: Array
    """(configurations, prefill terms), of one call alone."""
    kv_pressure: Array
    """(configurations,): KV of all calls in flight over the KV that fits."""
    others: Array
    """(configurations,): calls in flight beside one's own."""
    output_tokens: Array
    """(configurations,)."""

    @property
    def tpot(self) -> Array:
        """Terms of TPOT: (configurations, decode + prefill terms)."""
        return np.hstack([self.decode, self.prefill * (self.others / self.output_tokens)[:, None]])


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """How much each term counts."""

    tpot_weights: Array
    ttft_weights: Array

    def decode_step_s(self, work: Work) -> Array:
        """A decode step without prefills in it: (configurations,)."""
        decode_s: Array = work.decode @ self.tpot_weights[: work.decode.shape[1]]
        return decode_s

    def tpot_s(self, work: Work) -> Array:
        """Mean time between output tokens: (configurations,)."""
        times_s: Array = work.tpot @ self.tpot_weights
        return times_s

    def ttft_s(self, work: Work) -> Array:
        """Mean time to the first token: (configurations,)."""
        times_s: Array = _ttft_terms(work, self.decode_step_s(work)) @ self.ttft_weights
        return times_s

    def prefill_load(self, work: Work) -> Array:
        """Time that others' prefills take over the time of the decode steps: (configurations,)."""
        decode_s = self.decode_step_s(work)
        return (self.tpot_s(work) - decode_s) / decode_s


def fit_closed_loop(measured: Sequence[Measured], work: Work) -> ClosedLoop:
    """The weights that make the relative errors small, outliers counting less."""
    tpot = fit_weights(work.tpot, np.array([m.tpot_s for m in measured]))
    decode_s = work.decode @ tpot[: work.decode.shape[1]]
    ttft = fit_weights(_ttft_terms(work, decode_s), np.array([m.ttft_s for m in measured]))
    return ClosedLoop(tpot, ttft)


def work_of(configurations: Sequence[Configuration]) -> Work:
    """The terms of some configurations.

    Raises:
        UnknownNameError: an LLM or GPU type that is not known.
    """
    rows = [_row(configuration) for configuration in configurations]
    return Work(
        decode=np.array([row[0] for row in rows]),
        prefill=np.array([row[1] for row in rows]),
        kv_pressure=np.array([row[2] for row in rows]),
        others=np.array([c.concurrency - 1.0 for c in configurations]),
        output_tokens=np.array([float(c.output_tokens) for c in configurations]),
    )


def _row(c: Configuration) -> tuple[list[float], list[float], float]:
    replica = Replica(
        llm=find_architecture(c.llm),
        gpu=find_accelerator(c.gpu_type),
        precision=c.precision,
        gpus=c.gpus,
        attention_copies=c.attention_copies,
    )
    calls, context_tokens = c.concurrency, c.concurrency * (c.input_tokens + c.output_tokens / 2)
    decode = replica.decode_terms(calls, context_tokens)
    prefill = replica.prefill_terms(c.input_tokens)
    kv_bytes = calls * (c.input_tokens + c.output_tokens) * replica.llm.kv_values_per_token
    room_bytes = ENGINE_MEMORY_FRACTION * c.gpus * replica.gpu.memory_bytes
    room_bytes -= replica.weight_bytes(calls)
    room_bytes = max(room_bytes, 4e9 * c.gpus) * replica.kv_shards / c.gpus
    return decode, prefill, kv_bytes / room_bytes


def _ttft_terms(work: Work, decode_s: Array) -> Array:
    constant = np.full((len(decode_s), 1), CONSTANT_S)
    waits = work.prefill * work.others[:, None]
    return np.hstack([constant, work.prefill, waits, decode_s[:, None]])


def fit_weights(terms: Array, times_s: Array, least: Array | None = None) -> Array:
    """Weights that minimize relative errors, reweighted so that large ones count less.

    Args:
        terms: (times, terms).
        times_s: what was measured.
        least: of each weight, >= 0; 0 where None.
    """
    floor = np.zeros(terms.shape[1]) if least is None else least
    scaled = terms / times_s[:, None]
    left = 1 - scaled @ floor
    counts = np.ones(len(times_s))
    weights = floor
    for _ in range(_ROUNDS):
        weights = floor + _nonnegative_least_squares(scaled, left, counts)
        errors = np.log(np.maximum(terms @ weights, 1e-9) / times_s)
        counts = 1 / np.sqrt(np.maximum(np.abs(errors), 0.1))
    return weights


def _nonnegative_least_squares(terms: Array, wanted: Array, counts: Array) -> Array:
    """Weights >= 0 that bring each row's weighted sum of terms nearest to it, by coordinates."""
    weighted = terms * counts[:, None]
    gram = weighted.T @ weighted
    target = weighted.T @ (wanted * counts)
    diagonal = np.maximum(np.diag(gram), 1e-12)
    weights = np.maximum(target / diagonal / terms.shape[1], 0.0)
    for _ in range(_SWEEPS):
        for j in range(len(weights)):
            weights[j] = max(0.0, weights[j] + (target[j] - gram[j] @ weights) / diagonal[j])
    return np.asarray(weights, dtype=np.float64)
