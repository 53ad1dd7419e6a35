"""A continuous batching engine in virtual time: what it does when, without computing anything.

The rules are those of vLLM's scheduler. Calls wait by priority, then first come, first
served. Each step computes at most ``chunk_tokens``: one token for every call that decodes, then
prompt chunks of calls already in the batch, then of waiting calls for whose prompts KV blocks are
available. A call that comes during a step joins the next. When a decode needs a block and none is
left, the call that came last loses its blocks and waits again, at the head of the queue.

Between two steps that differ in what is in the batch lie runs of pure decode steps. They are taken
in one go: only their total duration is asked for, and a run is cut where a call comes or goes. The
result is that of stepping one by one, which the tests check.
"""

from scepsy.errors import InputError
from scepsy.policy.retain import Retention, below
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.chunks import Chunks
from scepsy.sim.decode_batch import DecodeBatch
from scepsy.sim.engine_call import (
    EngineCall,
    EngineEvent,
    EngineStatistics,
    Finished,
    FirstToken,
    Preempted,
)
from scepsy.sim.host_tier import HostTier
from scepsy.sim.kv_cache import KvCache
from scepsy.sim.loading import Loading
from scepsy.sim.run_steps import whole_steps
from scepsy.sim.sequence import Sequence
from scepsy.sim.waiting import WaitingQueue

__all__ = [
    "Engine",
    "EngineCall",
    "EngineEvent",
    "EngineStatistics",
    "Finished",
    "FirstToken",
    "Preempted",
]

_INF = float("inf")


class Engine:
    """One replica. Calls go in with their instants, events come out with theirs.

    Instants are seconds on the caller's clock and must not run back. What a call did by the
    instant last advanced to does not depend on how often the engine was advanced before.
    """

    _planned_s = _INF  # calls that come later can't join yet: see EngineAhead

    def __init__(self, spec: EngineSpec, retention: Retention | None = None) -> None:
        self.spec = spec
        self._times = spec.times
        self._block_tokens, self._chunk_tokens = spec.block_tokens, spec.chunk_tokens
        self._max_seqs = min(spec.max_seqs, spec.chunk_tokens)  # every decode must fit in a step
        host = HostTier(spec.host_blocks, spec.host_block_s, below(retention))
        self._cache = KvCache(spec.kv_blocks, host.put if spec.host_blocks else None, retention)
        self._loading = Loading(self._cache, host)
        self._chunks = Chunks(self._cache, spec.block_tokens)
        self._calls: dict[str, Sequence] = {}
        self._waiting = WaitingQueue(self._cache.retention)
        self._running: dict[str, Sequence] = {}  # by arrival, as admission is in order
        self._prefilling: list[Sequence] = []
        self._cancelled: list[Sequence] = []
        self._events: list[EngineEvent] = []
        self._batch = DecodeBatch(spec.block_tokens)
        # The step, or run of decode steps, under way
        self._now_s = -_INF
        self._start_s = -_INF
        self._end_s = _INF  # infinite: idle
        self._run_steps = 0
        self._is_silent = False  # cut by a call: nothing is to be seen at its end
        self._whole_asked = (0.0, 0.0, 0)
        self._whole_found = 0
        self._admitting = True
        # Totals
        self._arrivals = 0
        self._prompt_tokens = self._hit_tokens = 0
        self._generated_tokens = 0
        self._preemptions = 0

    def submit(self, now_s: float, call: EngineCall) -> None:
        """Let a call arrive.

        Raises:
            InputError: its id is in use, it can never fit the KV cache, or time ran back.
        """
        if call.id in self._calls:
            raise InputError(f"call {call.id} is in the engine already")
        needed = self._blocks(call.prompt_tokens + max(0, call.output_tokens - 1))
        if needed > self._cache.blocks:
            raise InputError(
                f"call {call.id} needs {needed} KV blocks of {self._block_tokens} tokens, "
                f"the engine has {self._cache.blocks}",
                hint="shorten the prompt or the answer, or give the engine more GPU memory",
            )
        self._run_to(now_s)
        chain = call.prefix_blocks + call.output_blocks
        sequence = Sequence(call, self._arrivals, now_s, chain, call.prompt_tokens)
        self._arrivals += 1
        self._calls[call.id] = sequence
        self._waiting.add(sequence)
        if not self._run_steps:  # idle, or waiting for blocks alone
            self._begin(now_s)
        elif self._start_s == now_s:  # a step has just begun: the call is in time for it
            self._admit()
            self._set_end()
        elif self._waiting[0] is sequence and len(self._running) < self._max_seqs:
            self._cut()
            self._is_silent = self._is_silent and not self._cancelled
        # Else a call before it cut the run, or can't join before another ends.

    def cancel(self, now_s: float, call_id: str) -> None:
        """Withdraw a call: no more events, and it leaves the batch when the step under way ends.

        Too late is not an error: nothing happens when the call is not in the engine.
        """
        self._run_to(now_s)
        sequence = self._calls.pop(call_id, None)
        if sequence is None:
            return
        self._cut()
        if call_id in self._running:
            sequence.cancelled = True
            self._cancelled.append(sequence)
        else:
            self._waiting.withdraw(now_s, sequence)
        self._cut()  # again, in case the first cut began a new run at this very instant
        self._is_silent = False  # a smaller batch may take less time

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when idle.

        Usually the next first token or end of a call. Where it only ends a step, nothing comes of
        advancing to it, and the next answer is later. While events wait to be collected it is the
        instant last advanced to.
        """
        if self._events:
            return self._now_s
        # After a run that was cut comes one step more, no shorter than one of that run.
        return self._start_s + self._run_s(self._run_steps + 1) if self._is_silent else self._end_s

    def next_token_s(self) -> float:
        """When the step under way ends (s), after the instant last advanced to; else infinite."""
        if self._run_steps <= 1:
            return self._end_s
        return self._start_s + self._run_s(self._whole_steps() + 1)

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since last time, in time order."""
        self._run_to(now_s)
        events, self._events = self._events, []
        return events

    def generated_tokens(self, call_id: str) -> int:
        """Output tokens that a call in the engine has by the instant last advanced to.

        Raises:
            InputError: there is no such call, or it has ended.
        """
        sequence = self._calls.get(call_id)
        if sequence is None:
            raise InputError(f"call {call_id} is not in the engine")
        done = self._generated(sequence)
        return done if sequence.decode is None else done + self._whole_steps()

    @property
    def waiting_calls(self) -> int:
        """Calls in the queue at the instant last advanced to."""
        return len(self._waiting)

    def statistics(self) -> EngineStatistics:
        """State by the instant last advanced to."""
        done = 0 if self._end_s == _INF else self._whole_steps()
        begun = min(done + 1, self._run_steps)
        return EngineStatistics(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_used_blocks=self._cache.used_blocks + self._batch.blocks_due(1, begun),
            kv_blocks=self._cache.blocks,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._hit_tokens,
            generated_tokens=self._generated_tokens + self._batch.calls * done,
            preemptions=self._preemptions,
            steps=self._batch.steps + done,
        )

    def _run_to(self, now_s: float) -> None:
        if now_s < self._now_s:
            raise InputError(f"time ran back from {self._now_s} s to {now_s} s")
        self._now_s = now_s
        while self._end_s <= now_s:
            self._complete()

    def _complete(self) -> None:
        """End the run under way, and begin the next step at that instant."""
        at_s = self._cache.now_s = self._end_s
        steps, batch = self._run_steps, self._batch
        if steps > 1:
            self._cache.take(batch.blocks_due(1, steps))
        self._generated_tokens += batch.calls * steps
        ended = [self._running[decode.call_id] for decode in batch.step(steps)]
        if self._chunks.tokens:
            ended += self._finish_prefills(at_s)
        for sequence in self._cancelled:
            self._release(sequence)
        self._cancelled.clear()
        for sequence in ended:
            if not sequence.cancelled:
                self._finish(sequence, at_s)
        self._begin(at_s)

    def _begin(self, at_s: float) -> None:
        """Decide what the next step computes."""
        self._start_s = self._cache.now_s = at_s
        self._admitting = self._batch.next_blocks <= self._cache.available_blocks
        if not self._admitting:  # as vLLM: not in a step that preempted
            self._make_room(at_s)
        self._cache.take(self._batch.next_blocks)
        self._chunks.begin(self._chunk_tokens - self._batch.calls)
        if self._loading.next_s <= at_s:
            self._prefilling += self._loading.ready(at_s)
        for sequence in self._prefilling:
            self._chunks.take(sequence)
        if self._waiting:
            self._admit()
        self._set_end()

    def _set_end(self) -> None:
        """Find when the step ends, or the run of steps in which the batch stays as it is."""
        self._run_steps, self._is_silent = 1, False
        chunks, batch = self._chunks, self._batch
        if chunks.tokens:
            self._end_s = self._start_s + self._times.step_s(
                prefill_tokens=chunks.tokens,
                prefill_context_tokens=chunks.context_tokens,
                decodes=batch.calls,
                decode_context_tokens=batch.context_tokens,
            )
        elif batch.calls:
            if self._admitting or not self._waiting:
                self._run_steps = batch.steps_with_room(
                    batch.steps_left, self._cache.available_blocks
                )
            self._end_s = self._start_s + self._run_s(self._run_steps)
            if self._loading.next_s < self._end_s:
                self._cut_at(self._loading.next_s)
        else:
            self._run_steps = 0
            self._end_s = self._loading.next_s

    def _run_s(self, steps: int) -> float:
        return self._times.decode_run_s(
            decodes=self._batch.calls,
            decode_context_tokens=self._batch.context_tokens,
            steps=steps,
        )

    def _whole_steps(self) -> int:
        """Steps of the run under way that have ended by now."""
        if self._run_steps <= 1:
            return 0
        asked = (self._now_s, self._start_s, self._run_steps)
        if asked != self._whole_asked:
            self._whole_asked = asked
            self._whole_found = whole_steps(
                self._run_s, self._start_s, self._run_steps, self._end_s, self._now_s
            )
        return self._whole_found

    def _cut(self) -> None:
        """Let the run under way end with the step under way, so that the batch can change."""
        if self._run_steps <= 1:
            return
        done = self._whole_steps()
        end_s = self._start_s + self._run_s(done)
        if done and end_s == self._now_s:
            self._run_steps, self._end_s = done, end_s
            self._complete()
        elif done + 1 < self._run_steps:
            self._run_steps, self._end_s = done + 1, self._start_s + self._run_s(done + 1)
            self._is_silent = True

    def _cut_at(self, at_s: float) -> None:
        """Let the run about to begin end with the step that is under way at an instant."""
        steps = whole_steps(self._run_s, self._start_s, self._run_steps, self._end_s, at_s)
        if steps == 0 or self._start_s + self._run_s(steps) < at_s:
            steps += 1
        self._run_steps, self._end_s = steps, self._start_s + self._run_s(steps)

    def _admit(self) -> None:
        if not self._admitting:
            return
        waiting, chunks, running = self._waiting, self._chunks, self._running
        while waiting and chunks.left_tokens and len(running) < self._max_seqs:
            sequence = waiting[0]
            if sequence.arrived_s > self._planned_s:
                return
            target = sequence.target_tokens
            reusable = sequence.chain[: (target - 1) // self._block_tokens]
            hits = self._cache.hold(reusable, self._blocks(target), sequence.call.program)
            if hits is None:
                return
            waiting.popleft()
            sequence.held = list(reusable[:hits])
            sequence.registered = hits
            must_wait = self._loading.begin(self._start_s, sequence, reusable)
            sequence.computed_tokens = sequence.registered * self._block_tokens
            if sequence.cached_tokens is None:
                sequence.cached_tokens = sequence.computed_tokens
                sequence.scheduled_s = self._start_s
                self._prompt_tokens += sequence.call.prompt_tokens
                self._hit_tokens += sequence.cached_tokens
            running[sequence.call.id] = sequence
            if not must_wait:
                self._prefilling.append(sequence)
                chunks.take(sequence)

    def _finish_prefills(self, at_s: float) -> list[Sequence]:
        """Count the chunks of the step that ends; give the calls that end with their prefill."""
        ended: list[Sequence] = []
        unfinished: list[Sequence] = []
        for sequence in self._prefilling:
            computed = sequence.computed_tokens = sequence.computed_tokens + sequence.chunk_tokens
            if computed < sequence.target_tokens:
                unfinished.append(sequence)
                continue
            call = sequence.call
            if call.output_tokens == 0:
                ended.append(sequence)
                continue
            self._generated_tokens += 1
            generated = sequence.generated_tokens = sequence.generated_tokens + 1
            if generated == 1 and not sequence.cancelled:
                self._events.append(FirstToken(at_s, call.id, sequence.cached_tokens or 0))
            if generated == call.output_tokens:
                ended.append(sequence)
            else:
                left = call.output_tokens - generated
                sequence.decode = self._batch.join(call.id, sequence.order, computed, left)
        self._prefilling = unfinished
        return ended

    def _finish(self, sequence: Sequence, at_s: float) -> None:
        self._release(sequence)
        call, cached = sequence.call, sequence.cached_tokens or 0
        del self._calls[call.id]
        self._events.append(
            Finished(at_s, call.id, call.output_tokens, cached, sequence.scheduled_s)
        )

    def _make_room(self, at_s: float) -> None:
        """Preempt until there is a block for each decode that needs one."""
        while self._batch.next_blocks > self._cache.available_blocks:
            sequence = self._running[next(reversed(self._running))]
            self._release(sequence)
            sequence.target_tokens = sequence.call.prompt_tokens + sequence.generated_tokens
            sequence.computed_tokens = sequence.registered = 0
            self._waiting.put_back(at_s, sequence)
            self._preemptions += 1
            self._events.append(Preempted(at_s, sequence.call.id))

    def _release(self, sequence: Sequence) -> None:
        self._free(sequence, self._take_out(sequence))

    def _take_out(self, sequence: Sequence) -> int:
        """Take a call out of the batch; give how many of its tokens are in KV."""
        tokens = sequence.computed_tokens
        if sequence.decode is not None:
            sequence.generated_tokens = self._generated(sequence)
            tokens = sequence.call.prompt_tokens + sequence.generated_tokens - 1
            self._batch.leave(sequence.decode)
            sequence.decode = None
        elif sequence in self._prefilling:
            self._prefilling.remove(sequence)
        else:
            self._loading.remove(sequence)
        del self._running[sequence.call.id]
        return tokens

    def _free(self, sequence: Sequence, tokens: int) -> None:  # what it computed stays cached
        blocks = self._blocks(max(tokens, sequence.target_tokens))
        cacheable = sequence.chain[sequence.registered : tokens // self._block_tokens]
        self._cache.release(sequence.held, blocks - len(sequence.held), cacheable, sequence.call)
        sequence.held = []

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._block_tokens)

    def _generated(self, sequence: Sequence) -> int:
        """Output tokens by the end of the last step that was counted."""
        if sequence.decode is None:
            return sequence.generated_tokens
        return sequence.generated_tokens + self._batch.steps - sequence.decode.joined_step
