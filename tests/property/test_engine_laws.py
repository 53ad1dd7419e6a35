"""Laws of the engine model, and that taking runs of steps in one go changes nothing."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import (
    Engine,
    EngineCall,
    EngineEvent,
    Finished,
    FirstToken,
    Preempted,
)
from tests.property.made_up_times import DyadicTimes

BLOCK = 4


@dataclass
class Slow:
    """A call in the reference."""

    call: EngineCall
    generated: int = 0
    computed: int = 0
    target: int = 0
    chunk: int = 0
    offered: int = 0
    cached: int | None = None
    scheduled_s: float = 0.0
    named: list[int] = field(default_factory=list)
    private: int = 0
    cancelled: bool = False

    @property
    def chain(self) -> tuple[int, ...]:
        return self.call.prefix_blocks + self.call.output_blocks

    @property
    def is_decoding(self) -> bool:
        return self.computed >= self.target


class Reference:
    """The engine's rules, one step at a time, with nothing kept that can be counted anew."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.running: list[Slow] = []
        self.waiting: list[Slow] = []
        self.idle: list[int] = []  # cached ids that nobody holds, first to be evicted first
        self.start_s, self.end_s = -1.0, float("inf")
        self.preempted = False
        self.events: list[EngineEvent] = []
        self.preemptions = self.generated = self.hits = self.steps = 0

    # ---- Blocks

    def holders(self, block: int) -> int:
        return sum(slow.named.count(block) for slow in self.running)

    def used(self) -> int:
        named = {block for slow in self.running for block in slow.named}
        return len(named) + sum(slow.private for slow in self.running)

    def take(self, slow: Slow, blocks: int) -> None:
        slow.private += blocks
        assert self.used() <= self.spec.kv_blocks
        while self.used() + len(self.idle) > self.spec.kv_blocks:
            self.idle.pop(0)

    def offer(self, slow: Slow) -> None:
        while slow.offered < min(len(slow.chain), (slow.computed + slow.chunk) // BLOCK):
            block = slow.chain[slow.offered]
            slow.offered += 1
            if not self.holders(block) and block not in self.idle:
                slow.named.append(block)
                slow.private -= 1

    def release(self, slow: Slow) -> None:
        self.running.remove(slow)
        for block in reversed(slow.chain[slow.offered : slow.computed // BLOCK]):
            if not self.holders(block) and block not in self.idle and block not in slow.named:
                self.idle.append(block)
        for block in reversed(slow.named):
            if not self.holders(block):
                self.idle.append(block)
        slow.named, slow.private, slow.offered, slow.computed = [], 0, 0, 0

    def lacks_block(self, slow: Slow) -> bool:
        have = len(slow.named) + slow.private
        return slow.is_decoding and have * BLOCK < slow.computed + 1

    # ---- Calls

    def submit(self, now_s: float, call: EngineCall) -> None:
        self.run_to(now_s)
        self.waiting.append(Slow(call, target=call.prompt_tokens))
        if self.end_s == float("inf"):
            self.begin(now_s)
        elif self.start_s == now_s:
            self.admit()
            self.set_end()

    def cancel(self, now_s: float, call_id: str) -> None:
        self.run_to(now_s)
        self.waiting = [slow for slow in self.waiting if slow.call.id != call_id]
        for slow in self.running:
            slow.cancelled |= slow.call.id == call_id

    def run_to(self, now_s: float) -> None:
        while self.end_s <= now_s:
            self.complete(self.end_s)
            self.begin(self.end_s)

    def complete(self, at_s: float) -> None:
        self.steps += 1
        ended: list[Slow] = []
        for slow in sorted(self.running, key=lambda slow: not slow.is_decoding):
            decoded = slow.is_decoding
            slow.computed += 1 if decoded else slow.chunk
            slow.chunk = 0
            if not slow.is_decoding:
                continue
            if slow.call.output_tokens:
                slow.generated += 1
                self.generated += 1
                slow.target = slow.computed
            if slow.generated == 1 and not decoded and not slow.cancelled:
                self.events.append(FirstToken(at_s, slow.call.id, slow.cached or 0))
            if slow.generated == slow.call.output_tokens:
                ended.append(slow)
        for slow in [slow for slow in self.running if slow.cancelled]:
            self.release(slow)
        for slow in ended:
            if not slow.cancelled:
                self.release(slow)
                call = slow.call
                self.events.append(
                    Finished(at_s, call.id, call.output_tokens, slow.cached or 0, slow.scheduled_s)
                )

    def begin(self, at_s: float) -> None:
        self.start_s = at_s
        self.preempted = False
        while sum(map(self.lacks_block, self.running)) > self.spec.kv_blocks - self.used():
            slow = self.running[-1]
            self.release(slow)
            slow.target = slow.call.prompt_tokens + slow.generated
            self.waiting.insert(0, slow)
            self.preempted = True
            self.preemptions += 1
            self.events.append(Preempted(at_s, slow.call.id))
        for slow in self.running:
            self.take(slow, int(self.lacks_block(slow)))
        for slow in self.running:
            self.schedule(slow)
        self.admit()
        self.set_end()

    def budget(self) -> int:
        decodes = sum(slow.is_decoding for slow in self.running)
        return self.spec.chunk_tokens - decodes - sum(slow.chunk for slow in self.running)

    def schedule(self, slow: Slow) -> None:
        if not slow.is_decoding:
            slow.chunk = min(slow.target - slow.computed, self.budget())
            self.offer(slow)

    def admit(self) -> None:
        room = min(self.spec.max_seqs, self.spec.chunk_tokens)
        while self.waiting and not self.preempted and self.budget() and len(self.running) < room:
            slow = self.waiting[0]
            hits: list[int] = []
            for block in slow.chain[: (slow.target - 1) // BLOCK]:
                if not self.holders(block) and block not in self.idle:
                    break
                hits.append(block)
            total = -(-slow.target // BLOCK)
            fresh = total - sum(self.holders(block) > 0 for block in hits)
            if fresh > self.spec.kv_blocks - self.used():
                return
            self.running.append(self.waiting.pop(0))
            slow.named, slow.offered = hits, len(hits)
            self.idle = [block for block in self.idle if block not in hits]
            slow.computed = len(hits) * BLOCK
            if slow.cached is None:
                slow.cached = slow.computed
                slow.scheduled_s = self.start_s
                self.hits += slow.computed
            self.take(slow, total - len(hits))
            self.schedule(slow)

    def set_end(self) -> None:
        decoding = [slow for slow in self.running if slow.is_decoding]
        prefilling = [slow for slow in self.running if slow.chunk]
        if not decoding and not prefilling:
            self.end_s = float("inf")
            return
        self.end_s = self.start_s + self.spec.times.step_s(
            prefill_tokens=sum(slow.chunk for slow in prefilling),
            prefill_context_tokens=sum(slow.computed for slow in prefilling),
            decodes=len(decoding),
            decode_context_tokens=sum(slow.computed for slow in decoding),
        )


@dataclass(frozen=True)
class Arrival:
    at_s: float
    call: EngineCall
    cancel_s: float | None


@st.composite
def histories(draw: st.DrawFn) -> tuple[EngineSpec, list[Arrival]]:
    """Calls that share prefixes, in an engine that is often too small for them."""
    spec = EngineSpec(
        times=DyadicTimes(),
        kv_blocks=draw(st.integers(16, 40)),
        block_tokens=BLOCK,
        max_seqs=draw(st.integers(1, 6)),
        chunk_tokens=draw(st.integers(3, 40)),
    )
    arrivals: list[Arrival] = []
    at_s = 0.0
    for index in range(draw(st.integers(1, 10))):
        at_s += draw(st.integers(0, 600)) / 1024
        prompt, output = draw(st.integers(1, 32)), draw(st.integers(0, 32))
        family, shared = draw(st.integers(0, 2)), draw(st.integers(0, 8))
        ids = [family * 100 + k if k < shared else 1000 + index * 100 + k for k in range(16)]
        has_ids = draw(st.booleans())
        call = EngineCall(
            id=str(index),
            prompt_tokens=prompt,
            output_tokens=output,
            prefix_blocks=tuple(ids[: prompt // BLOCK]) if has_ids else (),
            output_blocks=tuple(ids[prompt // BLOCK : (prompt + output) // BLOCK])
            if has_ids
            else (),
        )
        cancel = draw(st.none() | st.integers(0, 2000))
        arrivals.append(Arrival(at_s, call, None if cancel is None else at_s + cancel / 1024))
    return spec, arrivals


def operations(arrivals: list[Arrival]) -> list[tuple[float, EngineCall | str]]:
    """Arrivals and cancellations (by id) in time order."""
    found: list[tuple[float, EngineCall | str]] = []
    for arrival in arrivals:
        found.append((arrival.at_s, arrival.call))
        if arrival.cancel_s is not None:
            found.append((arrival.cancel_s, arrival.call.id))
    return sorted(found, key=lambda operation: operation[0])


def drive(engine: Engine | Reference, now_s: float, operation: EngineCall | str) -> None:
    if isinstance(operation, EngineCall):
        engine.submit(now_s, operation)
    else:
        engine.cancel(now_s, operation)


END_S = 1000.0
"""Past the end of every history."""


@given(histories())
@settings(max_examples=300, deadline=None)
def test_runs_of_steps_equal_single_steps(history: tuple[EngineSpec, list[Arrival]]) -> None:
    spec, arrivals = history
    engine, reference = Engine(spec), Reference(spec)
    events: list[EngineEvent] = []

    for at_s, operation in [*operations(arrivals), (END_S, "nobody")]:
        drive(engine, at_s, operation)
        drive(reference, at_s, operation)
        events += engine.advance(at_s)
        got = engine.statistics()
        assert events == reference.events
        assert got.running == len(reference.running)
        assert got.waiting == len(reference.waiting)
        assert got.kv_used_blocks == reference.used()
        assert got.generated_tokens == reference.generated
        assert got.steps == reference.steps
        assert got.cached_tokens == reference.hits
        assert got.preemptions == reference.preemptions
        assert engine.next_token_s() == reference.end_s
        for slow in reference.running + reference.waiting:
            if not slow.cancelled:
                assert engine.generated_tokens(slow.call.id) == slow.generated


@given(histories(), st.lists(st.floats(0, 10), max_size=30))
@settings(max_examples=100, deadline=None)
def test_looking_more_often_changes_nothing(
    history: tuple[EngineSpec, list[Arrival]], looks: list[float]
) -> None:
    spec, arrivals = history
    plain, watched = Engine(spec), Engine(spec)
    for at_s, operation in operations(arrivals):
        drive(plain, at_s, operation)
    seen: list[EngineEvent] = []
    timeline = [(at_s, 0, None) for at_s in looks]
    timeline += [(at_s, 1, operation) for at_s, operation in operations(arrivals)]
    for at_s, _, operation in sorted(timeline, key=lambda entry: entry[:2]):
        seen += watched.advance(at_s)
        watched.next_event_s()
        watched.statistics()
        if operation is not None:
            drive(watched, at_s, operation)

    assert seen + watched.advance(END_S) == plain.advance(END_S)


@given(histories())
@settings(max_examples=100, deadline=None)
def test_every_call_ends_once_in_order_and_every_block_comes_back(
    history: tuple[EngineSpec, list[Arrival]],
) -> None:
    spec, arrivals = history
    engine = Engine(spec)
    for arrival in arrivals:
        engine.submit(arrival.at_s, arrival.call)
        assert engine.statistics().kv_used_blocks <= spec.kv_blocks
    events: list[EngineEvent] = []
    while (next_s := engine.next_event_s()) < float("inf"):
        found = engine.advance(next_s)
        assert all(event.at_s <= next_s for event in found)
        assert engine.next_event_s() > next_s
        events += found

    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    for arrival in arrivals:
        mine = [e for e in events if e.call_id == arrival.call.id and not isinstance(e, Preempted)]
        kinds = [type(event) for event in mine]
        assert kinds == ([FirstToken, Finished] if arrival.call.output_tokens else [Finished])
        assert mine[0].at_s > arrival.at_s
        assert all(event.cached_tokens < arrival.call.prompt_tokens for event in mine)
    got = engine.statistics()
    assert (got.running, got.waiting, got.kv_used_blocks) == (0, 0, 0)
    assert got.generated_tokens == sum(arrival.call.output_tokens for arrival in arrivals)


@given(histories())
@settings(max_examples=100, deadline=None)
def test_no_call_waits_while_the_engine_is_idle(
    history: tuple[EngineSpec, list[Arrival]],
) -> None:
    """Work conserving; and next_event_s never skips what happens."""
    spec, arrivals = history
    engine = Engine(spec)
    for at_s, operation in operations(arrivals):
        while (next_s := engine.next_event_s()) <= at_s:
            assert not engine.advance(next_s - 1e-4)
            engine.advance(next_s)
        drive(engine, at_s, operation)
        got = engine.statistics()
        assert got.running or not got.waiting
