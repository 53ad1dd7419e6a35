"""How alike two configurations are: what one's residual tells of another's.

The distance of two configurations is a weighted sum over what they differ in: names that are not
the same (engine, LLM, GPU type, ...) count as they are, quantities by the square of the doublings
between them. The covariance of their residuals falls with the distance, at several scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from scepsy.errors import InputError
from scepsy.profiles.silicon_fit.accelerator import find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.closed_loop import Array, ClosedLoop, Work
from scepsy.profiles.silicon_fit.configuration import Configuration

NAMES = (
    "engine",
    "engine_version",
    "gpu_type",
    "gpu_generation",
    "precision",
    "llm",
    "llm_family",
    "expert_parallel",
    "attention_copies",
    "group",
)
"""What is the same or not."""
QUANTITIES = (
    "concurrency",
    "input_tokens",
    "output_tokens",
    "gpus",
    "physics",
    "prefill_load",
    "kv_pressure",
    "weights_time",
    "kv_time",
    "prefill_time",
    "links",
)
"""What differs by so many doublings; times are those of the closed loop's physics."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where some configurations lie."""

    names: NDArray[np.int64]
    """(configurations, NAMES), hashed."""
    quantities: Array
    """(configurations, QUANTITIES), as logarithms to base 2."""

    def __len__(self) -> int:
        return len(self.quantities)

    def take(self, rows: NDArray[np.intp]) -> "Places":
        """Some of them."""
        return Places(self.names[rows], self.quantities[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What was learned of likeness: see ``tools/fit_silicon_kernel.py``."""

    names: tuple[float, ...]
    """Distance that each difference in NAMES adds."""
    quantities: tuple[float, ...]
    """Distance that one doubling in each of QUANTITIES adds."""
    amplitudes: tuple[float, ...]
    """Variance of the residual's parts."""
    rates: tuple[float, ...]
    """How fast each part's covariance falls with distance."""
    common: float
    """Variance of what all residuals share."""
    noise: float
    """Variance of a measurement repeated."""

    def __post_init__(self) -> None:
        if len(self.names) != len(NAMES) or len(self.quantities) != len(QUANTITIES):
            raise InputError("a kernel needs one weight for each name and quantity")
        if len(self.amplitudes) != len(self.rates):
            raise InputError("a kernel needs one rate for each amplitude")

    def distance(self, left: Places, right: Places) -> Array:
        """(left, right), >= 0."""
        total = squared_distance(left.quantities, right.quantities, np.array(self.quantities))
        names, rows = np.unique(left.names, axis=0, return_inverse=True)  # many are alike
        differing = np.zeros((len(names), len(right)))
        for column, weight in enumerate(self.names):
            differing += weight * (names[:, column, None] != right.names[None, :, column])
        total += differing[rows]
        return total

    def covariance(self, left: Places, right: Places) -> Array:
        """Of residuals, without noise: (left, right)."""
        distance = self.distance(left, right)
        total = np.full_like(distance, self.common)
        for amplitude, rate in zip(self.amplitudes, self.rates, strict=True):
            total += amplitude * np.exp(-rate * distance)
        return total

    @property
    def variance(self) -> float:
        """Of a residual of which nothing is known."""
        return self.common + sum(self.amplitudes)


def squared_distance(left: Array, right: Array, weights: Array) -> Array:
    """Weighted squared distances of all pairs of rows: (left, right)."""
    a, b = left * np.sqrt(weights), right * np.sqrt(weights)
    total: Array = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    np.maximum(total, 0.0, out=total)
    return total


def places_of(configurations: Sequence[Configuration], work: Work, loop: ClosedLoop) -> Places:
    """Where configurations lie, given the physics of them."""
    names = [[crc32(name.encode()) for name in _names(c)] for c in configurations]
    sizes = np.array(
        [[c.concurrency, c.input_tokens, c.output_tokens, c.gpus] for c in configurations],
        dtype=np.float64,
    )
    quantities = np.column_stack(
        [
            sizes,
            loop.tpot_s(work),
            loop.prefill_load(work) + 0.05,
            np.maximum(work.kv_pressure, 0.05),
            work.decode[:, 0],
            work.decode[:, 1],
            work.prefill[:, 0],
            work.decode[:, 4] * 1e5 + 10,
        ]
    )
    return Places(np.array(names, dtype=np.int64), np.log2(quantities))


def _names(c: Configuration) -> tuple[str, ...]:
    llm = find_architecture(c.llm)
    return (
        c.engine,
        f"{c.engine} {c.engine_version}",
        c.gpu_type,
        find_accelerator(c.gpu_type).generation,
        c.precision,
        c.llm,
        f"{llm.mixture} {llm.latent_attention}",
        str(c.expert_parallel > 1),
        str(c.attention_copies > 1),
        str(c.group),
    )
