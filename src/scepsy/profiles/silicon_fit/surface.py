"""Keep predictions lawful: more calls or longer prompts never make a call faster.

A learned residual may bend times down somewhere. So times of one replica are taken on a lattice of
powers of two, made to rise, and read between its knots. Rising are TTFT and the time of all output
tokens, with concurrency and with input tokens; the second also with output tokens.
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import product

import numpy as np

from scepsy.profiles.silicon_fit.closed_loop import Array

CONCURRENCIES = tuple(2**k for k in range(14))
INPUT_TOKENS = tuple(2**k for k in range(7, 15))
OUTPUT_TOKENS = tuple(2**k for k in range(6, 14))
KNOTS = (CONCURRENCIES, INPUT_TOKENS, OUTPUT_TOKENS)
SHAPE = tuple(len(knots) for knots in KNOTS)
POINTS = tuple(product(*KNOTS))
"""All (concurrency, input tokens, output tokens) of the lattice."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Times of one replica over concurrency, input and output tokens, as logarithms."""

    ttft: Array
    """Log of TTFT (s), of SHAPE."""
    decode: Array
    """Log of the time from the first to the last output token (s), of SHAPE."""

    def times_s(
        self, concurrency: float, input_tokens: float, output_tokens: float
    ) -> tuple[float, float]:
        """TTFT, and time from the first to the last token (s); linear in logarithms."""
        cells = [
            _cell(knots, value)
            for knots, value in zip(KNOTS, (concurrency, input_tokens, output_tokens), strict=True)
        ]
        ttft = decode = 0.0
        for corner in product(*cells):
            weight = float(np.prod([share for _, share in corner]))
            where = tuple(index for index, _ in corner)
            ttft += weight * float(self.ttft[where])
            decode += weight * float(self.decode[where])
        return float(np.exp(ttft)), float(np.exp(decode))


def rising_surface(ttft: Array, decode: Array) -> Surface:
    """The surface of log times at POINTS, made to rise where it must."""
    return Surface(
        _rising(ttft.reshape(SHAPE), axes=(0, 1)), _rising(decode.reshape(SHAPE), axes=(0, 1, 2))
    )


def _rising(values: Array, axes: tuple[int, ...]) -> Array:
    """Midway between the least rising values above and the greatest below: both rise, and so it."""
    above, below = values, values
    for axis in axes:
        above = np.maximum.accumulate(above, axis=axis)
        below = np.flip(np.minimum.accumulate(np.flip(below, axis), axis=axis), axis)
    return (above + below) / 2


def _cell(knots: tuple[int, ...], value: float) -> tuple[tuple[int, float], tuple[int, float]]:
    """The two knots around a value, and the weight of each; the outermost cells continue."""
    low = min(max(bisect_right(knots, value) - 1, 0), len(knots) - 2)
    share = float(np.log2(value / knots[low]) / np.log2(knots[low + 1] / knots[low]))
    return (low, 1 - share), (low + 1, share)
