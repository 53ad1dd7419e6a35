"""Piecewise linear functions, and sums over them."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise


class Line:
    """A piecewise linear function, and its integral; the outermost pieces continue."""

    __slots__ = ("_areas", "_slopes", "_values", "_xs")

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        pairs = list(pairwise(points))
        self._xs = [x for x, _ in points[1:-1]]
        """Where one piece ends and the next begins."""
        self._values = [(x, y) for x, y in points]
        self._slopes = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairs]
        self._areas = [0.0]
        for (x0, y0), (x1, y1) in pairs:
            self._areas.append(self._areas[-1] + (x1 - x0) * (y0 + y1) / 2)

    def at(self, x: float) -> float:
        """Value at x."""
        i = bisect_right(self._xs, x)
        x0, y0 = self._values[i]
        return y0 + (x - x0) * self._slopes[i]

    def integral(self, x: float) -> float:
        """Area from the first point to x."""
        i = bisect_right(self._xs, x)
        x0, y0 = self._values[i]
        return self._areas[i] + (x - x0) * (y0 + (x - x0) * self._slopes[i] / 2)


class LineAtCounts(dict[int, float]):
    """A line's values at the whole numbers that were asked for: ``values[x]``."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line

    def __missing__(self, x: int) -> float:
        found = self[x] = self._line.at(x)
        return found
