"""Time of one layer's attention over one prompt chunk beside decodes, between measured points.

Profiles measure attention at powers of two of four counts: tokens of the chunk, its tokens in KV,
decodes, and tokens in KV of each. In between the time bends: straight lines through the points are
some per cent too high. So each axis first gets a point halfway between its points, on a cubic that
goes through the points and never overshoots them (Fritsch and Carlson 1980), and straight lines
lead from there. Where times were measured to fall as work is added, they are halfway between the
most before and the least after.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scepsy.errors import InputError

AttentionTimes = dict[tuple[int, int], dict[int, dict[int, float]]]
"""Seconds by (chunk, decodes), then by the chunk's tokens in KV, then by each decode's."""
_FAR = 64
"""How far beyond its points an axis leads, as multiples of the last."""
Array = NDArray[np.float64]


class AttentionGrid:
    """Seconds of attention in one layer, by the four counts; beyond them on the last slopes."""

    def __init__(self, times: AttentionTimes) -> None:
        """Lay the measured points on a grid.

        Raises:
            InputError: it lacks prompts alone, decodes alone, or both at once, or one axis has
                fewer than two points.
        """
        chunks = sorted({chunk for chunk, _ in times})
        counts = sorted({decodes for _, decodes in times})
        if chunks[:1] != [0] or counts[:1] != [0] or min(len(chunks), len(counts)) < 3:
            raise InputError("needs rows with and without a chunk, and with and without decodes")
        self._chunk_context = _refined(sorted({kv for rows in times.values() for kv in rows}))
        self._context = _refined(
            sorted({kv for rows in times.values() for row in rows.values() for kv in row})
        )
        if min(len(self._chunk_context), len(self._context)) < 2:
            raise InputError("needs two or more counts of tokens in KV")
        self._chunks, self._decodes = _refined(chunks), _refined(counts)
        measured = np.stack([self._of_chunk(times, chunk, counts) for chunk in chunks])
        grid = _resampled(chunks[1:], measured[1:], self._chunks[1:])
        grid = np.concatenate([measured[:1], grid])
        grid = (_running(np.maximum, grid) + np.flip(_running(np.minimum, np.flip(grid)))) / 2
        axes = self._chunks, self._decodes, self._chunk_context, self._context
        for index, axis in enumerate(axes):
            grid = np.moveaxis(_led_on(axis, np.moveaxis(grid, index, 0)), 0, index)
            axis.append(axis[-1] * _FAR)
        grid = _running(np.maximum, grid)  # where its ends led on at different slopes
        self._grid: list[list[list[list[float]]]] = grid.tolist()

    def _of_chunk(self, times: AttentionTimes, chunk: int, counts: Sequence[int]) -> Array:
        """Of one chunk size, over decodes, the chunk's context, and the context of each decode."""
        known = [decodes for decodes in counts if (chunk, decodes) in times]
        some = [decodes for decodes in known if decodes]
        if len(some) < 2:
            raise InputError(f"chunk {chunk} has fewer than two counts of decodes")
        slices = [self._slice(times[chunk, decodes]) for decodes in some]
        rows = _resampled(some, np.stack(slices), self._decodes[1:])
        alone = (
            self._slice(times[chunk, 0])
            if (chunk, 0) in times
            else np.zeros((len(self._chunk_context), len(self._context)))
        )
        return np.concatenate([alone[None], rows])

    def _slice(self, rows: Mapping[int, Mapping[int, float]]) -> Array:
        """Over the chunk's context and the context of each decode."""
        contexts = sorted(rows)
        lines = [
            _resampled(sorted(row), np.array([row[kv] for kv in sorted(row)]), self._context)
            for row in (rows[context] for context in contexts)
        ]
        return _resampled(contexts, np.stack(lines), self._chunk_context)

    def at(self, chunk: float, chunk_context: float, decodes: int, context: float) -> float:
        """Seconds with a chunk of so many tokens beside so many decodes; 0 without either.

        Args:
            chunk: prompt tokens.
            chunk_context: tokens in KV that these attend to besides themselves.
            decodes: calls that get one token each.
            context: tokens in KV of each of those.
        """
        if chunk <= 0:
            chunk_context = 0.0
        rows = _between(self._chunks, chunk)
        columns = _between(self._decodes, decodes)
        layers = _between(self._chunk_context, chunk_context)
        points = _between(self._context, context if decodes > 0 else 0.0)
        total = 0.0
        for i, a in rows:
            for j, b in columns:
                for k, c in layers:
                    row, weight = self._grid[i][j][k], a * b * c
                    for m, d in points:
                        total += weight * d * row[m]
        return max(0.0, total)

    @property
    def contexts(self) -> Sequence[int]:
        """Tokens in KV of each decode between which times are straight lines."""
        return self._context


def _between(axis: Sequence[int], x: float) -> tuple[tuple[int, float], ...]:
    """The points to its left and right, each with its weight."""
    i = min(max(bisect_right(axis, x), 1), len(axis) - 1)
    low, high = axis[i - 1], axis[i]
    if x <= axis[0]:
        return ((0, 1.0),)
    across = (x - low) / (high - low)
    return ((i - 1, 1.0 - across), (i, across)) if across else ((i - 1, 1.0),)


def _refined(axis: Sequence[int]) -> list[int]:
    """The points, and one halfway between each two."""
    halves = {(low + high) // 2 for low, high in pairwise(axis) if low and high - low > 1}
    return sorted({*axis, *halves})


def _led_on(axis: Sequence[int], grid: Array) -> Array:
    """With values far beyond the last along the first axis, on the line through the last two."""
    steps = (axis[-1] * _FAR - axis[-1]) / (axis[-1] - axis[-2])
    return np.concatenate([grid, grid[-1:] + steps * (grid[-1:] - grid[-2:-1])])


def _running(extreme: np.ufunc, grid: Array) -> Array:
    """The extreme of all at no greater index, along each axis."""
    for axis in range(grid.ndim):
        grid = extreme.accumulate(grid, axis)
    return grid


def _resampled(xs: Sequence[int], ys: Array, at: Sequence[int]) -> Array:
    """Values, along the first axis, at other points: on a cubic; outside, on the last chord."""
    x, new = np.array(xs, dtype=np.float64), np.array(at, dtype=np.float64)
    if len(x) == 1:
        return np.repeat(ys, len(new), axis=0)
    wide = (-1,) + (1,) * (ys.ndim - 1)
    step = np.diff(x).reshape(wide)
    chord = np.diff(ys, axis=0) / step
    slope = np.concatenate([chord[:1], chord[:1].repeat(len(x) - 2, 0), chord[-1:]])
    if len(x) > 2:
        before, after = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (before + after) / (before / chord[:-1] + after / chord[1:])
        slope[1:-1] = np.where(chord[:-1] * chord[1:] > 0, mean, 0.0)
    i = np.clip(np.searchsorted(x, new, side="right") - 1, 0, len(x) - 2)
    width = step[i]
    t = ((new - x[i]) / np.diff(x)[i]).reshape(wide)
    inside = np.clip(t, 0, 1)
    u = 1 - inside
    cubic: Array = (
        ys[i] * (1 + 2 * inside) * u**2
        + ys[i + 1] * inside**2 * (3 - 2 * inside)
        + width * inside * u * (slope[i] * u - slope[i + 1] * inside)
    )
    below = ys[:1]  # what is less than the least measured takes no less time
    return np.where(t < 0, below, np.where(t > 1, cubic + (t - 1) * width * chord[i], cubic))
