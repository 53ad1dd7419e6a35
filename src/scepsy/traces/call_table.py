"""A workflow's recorded calls as arrays, ordered so that all executions are re-timed at once.

A call's *level* is the length of the longest chain of calls that it waits for. Calls are sorted by
level, so re-timing goes level by level, over all executions in one array operation each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scepsy.model.dependency import dependencies
from scepsy.model.execution import Call
from scepsy.model.workflow import LlmName, Stage

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CallTable:
    """The calls that count, of all executions of one workflow. Sorted by level."""

    execution: Ints
    """(calls,) which execution, in the order of the workflow's demand."""
    stage: Ints
    """(calls,) which stage, in the order of the workflow's demand."""
    recorded_s: Floats
    """(calls,) latency when recorded."""
    fresh_tokens: Floats
    """(calls,) prompt tokens that are not in KV already, as far as the recording tells."""
    output_tokens: Floats
    """(calls,)"""
    after_s: Floats
    """(calls,) from the last end that it waits for (or the execution's start) to its start."""
    levels: Ints
    """(levels + 1,) where each level begins."""
    waiter: Ints
    """(edges,) call that waits, sorted."""
    awaited: Ints
    """(edges,) call that it waits for."""
    tail_s: Floats
    """(executions,) from the last end of a call that counts to the execution's end."""

    @property
    def executions(self) -> int:
        """How many executions."""
        return len(self.tail_s)

    def ends_s(self, call_s: Floats) -> Floats:
        """(calls, ...) end of each call after its execution's start, were calls so long.

        Args:
            call_s: (calls, ...) latency of each call; further axes are variants.
        """
        ends_s = np.empty_like(call_s)
        extra = (1,) * (call_s.ndim - 1)
        after_s = self.after_s.reshape(-1, *extra)
        edges = np.searchsorted(self.waiter, self.levels)
        first = np.searchsorted(self.waiter, np.arange(len(self.stage)))
        for level in range(len(self.levels) - 1):
            low, high = self.levels[level], self.levels[level + 1]
            starts_s = after_s[low:high]
            if level:
                before_s = ends_s[self.awaited[edges[level] : edges[level + 1]]]
                groups = first[low:high] - edges[level]
                starts_s = starts_s + np.maximum.reduceat(before_s, groups, axis=0)
            ends_s[low:high] = starts_s + call_s[low:high]
        return ends_s

    def executions_s(self, call_s: Floats) -> Floats:
        """(executions, ...) latency of each execution, were calls so long."""
        return self._last_s(self.ends_s(call_s)) + self.tail_s.reshape(
            -1, *(1,) * (call_s.ndim - 1)
        )

    def critical_calls(self, call_s: Floats) -> npt.NDArray[np.bool_]:
        """(calls,) whether each call is on its execution's critical path, were calls so long.

        Args:
            call_s: (calls,) latency of each call.
        """
        ends_s = self.ends_s(call_s)
        order = np.argsort(ends_s, kind="stable")
        last = np.zeros(self.executions, dtype=np.int64)
        last[self.execution[order]] = order  # of equal indices the last assignment stays
        decisive = np.full(len(self.stage), -1)
        by_end = np.argsort(ends_s[self.awaited], kind="stable")
        decisive[self.waiter[by_end]] = self.awaited[by_end]
        critical = np.zeros(len(self.stage), dtype=np.bool_)
        while len(last):
            critical[last] = True
            last = decisive[last]
            last = last[last >= 0]
        return critical

    def stage_sums(self, values: Floats, stages: int) -> Floats:
        """(executions, stages) sum of a value over each execution's calls of each stage."""
        sums = np.zeros((self.executions, stages))
        np.add.at(sums, (self.execution, self.stage), values)
        return sums

    def _last_s(self, ends_s: Floats) -> Floats:
        order = np.argsort(self.execution, kind="stable")
        begins = np.searchsorted(self.execution[order], np.arange(self.executions))
        last_s: Floats = np.maximum.reduceat(ends_s[order], begins, axis=0)
        return last_s


class CallTableBuilder:
    """Gathers executions one by one, and a few numbers of each of their calls."""

    def __init__(self) -> None:
        self._stages: dict[Stage, int] = {}
        self._rows: list[tuple[int, int, int, float, float, float, float]] = []
        self._edges: list[tuple[int, int]] = []
        self._tails_s: list[float] = []
        self._seen: dict[LlmName, set[int]] = {}

    def add(self, calls: Sequence[Call], end_s: float) -> None:
        """Add an execution: its calls that count, by start, at least one, and its end."""
        base = len(self._rows)
        levels: list[int] = []
        for call, waits in zip(calls, dependencies(calls), strict=True):
            level = max((levels[at] + 1 for at in waits.waits_for), default=0)
            levels.append(level)
            self._edges += [(len(self._rows), base + at) for at in waits.waits_for]
            stage = self._stages.setdefault(call.stage, len(self._stages))
            fresh = self._fresh_tokens(call)
            self._rows.append(
                (
                    level,
                    len(self._tails_s),
                    stage,
                    call.e2e_s,
                    fresh,
                    call.output_tokens,
                    waits.after_s,
                )
            )
        self._tails_s.append(max(0.0, end_s - max(call.end_s for call in calls)))

    def build(self, stages: Sequence[Stage]) -> CallTable:
        """The table of all that was added; stages are numbered as they are given."""
        rows = np.array(self._rows, dtype=np.float64)
        level, execution, stage = rows[:, :3].T.astype(np.int64)
        order = np.argsort(level, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        edges = place[np.array(self._edges, dtype=np.int64).reshape(-1, 2)]
        edges = edges[np.argsort(edges[:, 0], kind="stable")]
        numbers = np.array([stages.index(known) for known in self._stages], dtype=np.int64)
        recorded_s, fresh, output, after_s = rows[order, 3:].T.copy()
        return CallTable(
            execution=execution[order],
            stage=numbers[stage[order]],
            recorded_s=recorded_s,
            fresh_tokens=fresh,
            output_tokens=output,
            after_s=after_s,
            levels=np.searchsorted(level[order], np.arange(level.max() + 2)),
            waiter=edges[:, 0].copy(),
            awaited=edges[:, 1].copy(),
            tail_s=np.array(self._tails_s),
        )

    def _fresh_tokens(self, call: Call) -> int:
        """What the engine said; else by blocks, which an ideal cache would still hold; else all.

        A block's id stands for the whole prefix up to it, so those that are known come first. Each
        LLM has its own KV: what another has seen does not count.
        """
        blocks, seen = call.prefix_blocks, self._seen.setdefault(call.llm, set())
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in seen:
                low = middle + 1
            else:
                high = middle
        seen.update(blocks[low:], call.output_blocks)
        cached = low * call.block_tokens if call.cached_tokens is None else call.cached_tokens
        return max(0, call.prompt_tokens - cached)


def mean_by_stage(table: CallTable, values: Floats, stages: int) -> Floats:
    """(stages,) mean of a value over the calls of each stage."""
    counts = np.bincount(table.stage, minlength=stages)
    sums = np.bincount(table.stage, weights=values, minlength=stages)
    means: Floats = sums / np.maximum(counts, 1)
    return means
