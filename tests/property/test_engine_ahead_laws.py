"""Laws of the engine that plans a step ahead: runs of steps change nothing, nor does looking."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished, FirstToken, Preempted
from scepsy.sim.engine_ahead import EngineAhead
from tests.property.made_up_times import DyadicTimes

BLOCK = 4
END_S = 1000.0


class OneByOne(EngineAhead):
    """Takes no run of steps in one go."""

    def _set_end(self) -> None:
        super()._set_end()
        if self._run_steps > 1:
            self._run_steps, self._end_s = 1, self._start_s + self._run_s(1)


@st.composite
def histories(draw: st.DrawFn) -> tuple[EngineSpec, list[tuple[float, EngineCall]]]:
    """Calls in an engine that is often too small for them."""
    spec = EngineSpec(
        times=DyadicTimes(),
        kv_blocks=draw(st.integers(16, 40)),
        block_tokens=BLOCK,
        max_seqs=draw(st.integers(1, 6)),
        chunk_tokens=draw(st.integers(3, 40)),
    )
    arrivals: list[tuple[float, EngineCall]] = []
    at_s = 0.0
    for index in range(draw(st.integers(1, 10))):
        at_s += draw(st.integers(0, 600)) / 1024
        call = EngineCall(
            id=str(index),
            prompt_tokens=draw(st.integers(1, 32)),
            output_tokens=draw(st.integers(0, 32)),
        )
        arrivals.append((at_s, call))
    return spec, arrivals


def ran(
    engine: Engine, arrivals: list[tuple[float, EngineCall]], looks: list[float]
) -> list[EngineEvent]:
    found: list[EngineEvent] = []
    timeline = [(at_s, 0, None) for at_s in looks]
    timeline += [(at_s, 1, call) for at_s, call in arrivals]
    for at_s, _, call in sorted(timeline, key=lambda entry: entry[:2]):
        found += engine.advance(at_s)
        engine.next_event_s()
        if call is not None:
            engine.submit(at_s, call)
    return found + engine.advance(END_S)


@given(histories(), st.lists(st.floats(0, 10), max_size=30))
@settings(max_examples=150, deadline=None)
def test_neither_runs_of_steps_nor_looking_change_what_happens(
    history: tuple[EngineSpec, list[tuple[float, EngineCall]]], looks: list[float]
) -> None:
    spec, arrivals = history

    expected = ran(OneByOne(spec), arrivals, [])

    assert ran(EngineAhead(spec), arrivals, []) == expected
    assert ran(EngineAhead(spec), arrivals, looks) == expected


@given(histories())
@settings(max_examples=100, deadline=None)
def test_every_call_ends_once_and_every_block_comes_back(
    history: tuple[EngineSpec, list[tuple[float, EngineCall]]],
) -> None:
    spec, arrivals = history
    engine = EngineAhead(spec)

    events = ran(engine, arrivals, [])

    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    for at_s, call in arrivals:
        mine = [e for e in events if e.call_id == call.id and not isinstance(e, Preempted)]
        kinds = [type(event) for event in mine]
        assert kinds == ([FirstToken, Finished] if call.output_tokens else [Finished])
        assert mine[0].at_s > at_s
    got = engine.statistics()
    assert (got.running, got.waiting, got.kv_used_blocks) == (0, 0, 0)
    assert got.generated_tokens == sum(call.output_tokens for _, call in arrivals)


def first_token_s(engine: Engine, call_id: str) -> float:
    return next(e.at_s for e in engine.advance(END_S) if e.call_id == call_id)


def test_a_call_that_comes_during_a_step_joins_the_one_after_the_next() -> None:
    spec = EngineSpec(times=DyadicTimes(), kv_blocks=64, block_tokens=BLOCK)
    long, late = (EngineCall(id=name, prompt_tokens=1, output_tokens=20) for name in ("a", "b"))
    engines = Engine(spec), EngineAhead(spec)
    for engine in engines:
        engine.submit(0.0, long)
        engine.submit(1 / 1024, late)

    plain_s, ahead_s = (first_token_s(engine, "b") for engine in engines)

    # The prefill of the first call takes 72 ticks; one decode step of it, over 1 token, 69.
    assert plain_s * 1024 == 72 + (64 + 8 + 4 + 1)
    assert ahead_s * 1024 == 72 + 69 + (64 + 8 + 4 + 2)


def test_a_seat_is_free_one_step_after_its_call_ended() -> None:
    spec = EngineSpec(times=DyadicTimes(), kv_blocks=64, block_tokens=BLOCK, max_seqs=2)
    engine = EngineAhead(spec)
    for name, tokens in (("long", 20), ("short", 1), ("next", 1)):
        engine.submit(0.0, EngineCall(id=name, prompt_tokens=1, output_tokens=tokens))

    events = engine.advance(END_S)

    ended = next(e.at_s for e in events if isinstance(e, Finished) and e.call_id == "short")
    joined = next(e.scheduled_s for e in events if isinstance(e, Finished) and e.call_id == "next")
    assert (joined - ended) * 1024 == 64 + 4 + 1


def test_an_engine_that_has_nothing_else_to_compute_starts_a_call_at_once() -> None:
    spec = EngineSpec(times=DyadicTimes(), kv_blocks=64, block_tokens=BLOCK, max_seqs=1)
    engine = EngineAhead(spec)
    for name in ("first", "second"):
        engine.submit(0.0, EngineCall(id=name, prompt_tokens=1, output_tokens=1))

    ends = [event.at_s * 1024 for event in engine.advance(END_S) if isinstance(event, FirstToken)]

    assert ends == [72, 144]
