"""Copies of one engine that take every step together: data parallel attention, shared experts.

The copies schedule on their own, but each layer waits for all of them, so that their steps begin
and end together; one without calls computes a dummy token beside the others.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from scepsy.errors import InputError
from scepsy.profiles.step_time import BatchShape, EngineSpec, StepTimes
from scepsy.sim.engine_ahead import EngineAhead
from scepsy.sim.engine_call import EngineCall, EngineEvent, EngineStatistics

_INF = float("inf")


@runtime_checkable
class GroupStepTimes(StepTimes, Protocol):
    """Step times of copies that step together."""

    def group_step_s(self, batches: Sequence[BatchShape]) -> float:
        """Seconds of one step, given what each copy computes."""
        ...


class LockstepGroup:
    """Copies of one engine. Calls go to the one that the caller names; see ``Engine``."""

    def __init__(self, spec: EngineSpec, copies: int) -> None:
        """Start the copies.

        Raises:
            InputError: there is none, or the step times are not those of a group.
        """
        if copies < 1 or not isinstance(spec.times, GroupStepTimes):
            raise InputError("a group needs a copy or more, and step times of groups")
        self._times: GroupStepTimes = spec.times
        self._copies = [_Copy(spec) for _ in range(copies)]
        self._end_s = _INF

    def submit(self, now_s: float, copy: int, call: EngineCall) -> None:
        """Let a call arrive at one copy.

        Raises:
            InputError: as ``Engine.submit``.
        """
        self._run_to(now_s)
        one = self._copies[copy]
        one.is_new = False
        one.rouse(now_s)
        one.submit(now_s, call)
        if one.is_new:
            self._set_end(now_s)

    def next_event_s(self) -> float:
        """When the step under way ends (s); infinite when idle."""
        return self._end_s

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since last time, in time order."""
        self._run_to(now_s)
        events = [event for copy in self._copies for event in copy.advance(now_s)]
        return sorted(events, key=lambda event: event.at_s)

    def statistics(self) -> tuple[EngineStatistics, ...]:
        """State of each copy by the instant last advanced to."""
        return tuple(copy.statistics() for copy in self._copies)

    def _run_to(self, now_s: float) -> None:
        while self._end_s <= now_s:
            at_s = self._end_s
            for copy in self._copies:
                copy.end_step()
            self._set_end(at_s)

    def _set_end(self, at_s: float) -> None:
        """Find when the step that begins now ends, for all copies."""
        is_idle = not any(copy.has_work for copy in self._copies)
        batches = [copy.batch() for copy in self._copies]
        self._end_s = _INF if is_idle else at_s + self._times.group_step_s(batches)
        for copy in self._copies:
            copy.take_step(at_s, self._end_s)


class _Copy(EngineAhead):
    """An engine whose steps end when its group says so."""

    is_new = False
    """It has begun a step, or changed one that just began, since its group last looked."""

    @property
    def has_work(self) -> bool:
        return bool(self._batch.calls) or any(s.chunk_tokens for s in self._prefilling)

    def rouse(self, now_s: float) -> None:
        """Let a step without work that begins now be none, so that a call can begin it."""
        if self._start_s == now_s and not self.has_work:
            self.take_step(now_s, _INF)

    def end_step(self) -> None:
        self._complete()

    def take_step(self, start_s: float, end_s: float) -> None:
        self._start_s, self._end_s = start_s, end_s
        self._run_steps = int(end_s < _INF)  # beside others it steps even without work

    def advance(self, now_s: float) -> list[EngineEvent]:
        self._now_s = now_s  # the group has run it
        events, self._events = self._events, []
        return events

    def _run_to(self, now_s: float) -> None:
        self._now_s = now_s

    def _set_end(self) -> None:
        self.is_new = True
        self._is_silent = False
        self._run_steps = int(self.has_work)
        self._end_s = self._start_s if self.has_work else _INF
