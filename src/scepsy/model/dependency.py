"""Which calls of an execution wait for which.

Traces do not record it, so it is inferred from times: a call waits for the calls that had ended
when it started and that no call before it stands for. That is right for programs that wait for
each answer and for those that fan out and join, however long each of the joined calls takes.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from scepsy.model.execution import Call


@dataclass(frozen=True, slots=True)
class Dependency:
    """What one call waits for."""

    waits_for: tuple[int, ...]
    """Positions of the calls that must have ended before this one starts; all are before it."""
    after_s: float
    """From the last of those ends, or from the first call's start where there are none, to this
    call's start: time in tools, in the program itself, or in calls that are left out."""


def dependencies(calls: Sequence[Call]) -> tuple[Dependency, ...]:
    """(calls,) what each call waits for; the calls are one execution's, or part of it, by start.

    A call of the last group that ended before it began stands for all the earlier ones: it began
    after they ended. So a burst whose members began together waits for the whole burst before.
    """
    call_ends = [max(call.end_s, math.nextafter(call.start_s, math.inf)) for call in calls]
    by_end = sorted(range(len(calls)), key=call_ends.__getitem__)
    ends = [call_ends[at] for at in by_end]  # after their own start, so none waits for itself
    latest_start = list(accumulate((calls[at].start_s for at in by_end), max))
    found: list[Dependency] = []
    for call in calls:
        ended = bisect_right(ends, call.start_s)
        direct = bisect_right(ends, latest_start[ended - 1], 0, ended) if ended else 0
        since_s = ends[ended - 1] if ended else calls[0].start_s
        found.append(Dependency(tuple(sorted(by_end[direct:ended])), call.start_s - since_s))
    return tuple(found)
