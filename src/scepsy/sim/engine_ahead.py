"""The engine that plans each step while the one before it runs: vLLM's asynchronous scheduling.

What a step computes is decided when the step before it begins, so that the GPU need not wait for
the CPU. A call therefore joins the first step that begins after a step's start has seen it, and
what a call that ended held is free one step later. When nothing is left to compute, the engine
waits for no plan: the next call starts at once.
"""

from scepsy.policy.retain import Retention
from scepsy.profiles.step_time import BatchShape, BatchStepTimes, EngineSpec
from scepsy.sim.engine import Engine
from scepsy.sim.engine_call import Finished
from scepsy.sim.sequence import Sequence

_INF = float("inf")


class EngineAhead(Engine):
    """An engine whose steps are planned one ahead. See ``Engine``."""

    def __init__(self, spec: EngineSpec, retention: Retention | None = None) -> None:
        super().__init__(spec, retention)
        if isinstance(spec.times, BatchStepTimes):
            self._times = _SpreadTimes(self, spec.times)
        self._seats = self._max_seqs
        self._planned_s = -_INF
        """When the step under way, or the next to begin, was planned."""
        self._left: list[tuple[Sequence, int]] = []
        """Calls that ended, with their tokens in KV, which the plan of this step still held."""

    def batch(self) -> BatchShape:
        """What the step under way, or the first of the run of steps, computes."""
        return BatchShape(
            tuple((s.chunk_tokens, s.computed_tokens) for s in self._prefilling if s.chunk_tokens),
            self._batch.calls,
            self._batch.context_tokens,
            self._batch.longest_tokens,
        )

    def _complete(self) -> None:
        steps = self._run_steps
        self._planned_s = self._start_s + (self._run_s(steps - 1) if steps > 1 else 0.0)
        self._cache.now_s = self._end_s
        self._free_left()
        super()._complete()

    def _begin(self, at_s: float) -> None:
        if not self._run_steps:  # idle until now
            self._planned_s = at_s
        super()._begin(at_s)
        if not self._run_steps and (self._left or self._waiting):
            self._free_left()
            self._planned_s = at_s
            super()._begin(at_s)

    def _set_end(self) -> None:
        super()._set_end()
        is_late = self._waiting and self._waiting[0].arrived_s > self._planned_s
        if self._run_steps > 1 and (self._left or is_late):
            self._run_steps, self._end_s = 1, self._start_s + self._run_s(1)

    def _finish(self, sequence: Sequence, at_s: float) -> None:
        call = sequence.call
        self._left.append((sequence, self._take_out(sequence)))
        self._max_seqs = self._seats - len(self._left)
        del self._calls[call.id]
        cached = sequence.cached_tokens or 0
        self._events.append(
            Finished(at_s, call.id, call.output_tokens, cached, sequence.scheduled_s)
        )

    def _free_left(self) -> None:
        for sequence, tokens in self._left:
            self._free(sequence, tokens)
        self._left.clear()
        self._max_seqs = self._seats


class _SpreadTimes:
    """Step times of what an engine's batch is made of, asked for by its sums."""

    def __init__(self, engine: EngineAhead, times: BatchStepTimes) -> None:
        self._engine, self._times = engine, times
        self._asked: tuple[int, int] | None = None
        self._batch = BatchShape((), 0, 0, 0)

    def step_s(
        self,
        *,
        prefill_tokens: int,  # noqa: ARG002  (the batch has it)
        prefill_context_tokens: int,  # noqa: ARG002
        decodes: int,  # noqa: ARG002
        decode_context_tokens: int,  # noqa: ARG002
    ) -> float:
        return self._times.batch_step_s(self._engine.batch())

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        if self._asked != (decodes, decode_context_tokens):
            self._asked, self._batch = (decodes, decode_context_tokens), self._engine.batch()
        return self._times.batch_run_s(self._batch, steps)
