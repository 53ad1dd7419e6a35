"""Laws of engines that take turns on the same GPUs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.errors import InputError
from scepsy.policy.dispatch_program import ByProgram
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import OpenLoop
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.run import FaultySimulation
from scepsy.sim.turns import LONGEST_TURN_S, SharedGpus, TurnTaker
from tests.property.made_up_scenes import Scene, scenes
from tests.property.made_up_times import DyadicTimes

END_S = 1e6
BLOCK = 4
CHUNK, MOST_TOKENS, MOST_CALLS = 64, 200, 12
STEP_S = 1 / 64
TICK_S = 1 / 8192
STEP_TICKS = 32  # many a step is shorter than a turn, many a one is longer
LONGEST_STEP_S = (STEP_TICKS + 8 * CHUNK + 2 * MOST_CALLS * (MOST_TOKENS + 60)) * TICK_S


class EqualTimes:
    """Every step takes as long: to count steps is to measure what was computed."""

    def step_s(self, **_work: int) -> float:
        return STEP_S

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return steps * STEP_S


@dataclass(frozen=True)
class Act:
    """Something that is done at an instant to one of the engines."""

    at_s: float
    member: int
    call: EngineCall | None
    """That comes; None withdraws one."""
    withdrawn: str = ""


@st.composite
def the_acts(
    draw: st.DrawFn, *, members: int, cancels: bool = True, wait_ticks: int = 6000
) -> tuple[Act, ...]:
    acts: list[Act] = []
    came: list[tuple[int, str]] = []
    at_s = 0.0
    for number in range(draw(st.integers(1, MOST_CALLS))):
        at_s += draw(st.sampled_from([0, 0, 1, 100, 300, 1000, wait_ticks])) * TICK_S
        if cancels and came and draw(st.integers(0, 3)) == 0:
            member, call_id = draw(st.sampled_from(came))
            acts.append(Act(at_s, member, None, call_id))
            continue
        member, call_id = draw(st.integers(0, members - 1)), f"c{number}"
        call = EngineCall(
            id=call_id,
            prompt_tokens=draw(st.integers(1, MOST_TOKENS)),
            output_tokens=draw(st.integers(0, 60)),
        )
        came.append((member, call_id))
        acts.append(Act(at_s, member, call))
    return tuple(acts)


def a_spec(times: object = None, kv_blocks: int = 70) -> EngineSpec:
    """With room for the longest call, and not for many."""
    return EngineSpec(
        times=times or DyadicTimes(STEP_TICKS, TICK_S),  # type: ignore[arg-type]
        kv_blocks=kv_blocks,
        block_tokens=BLOCK,
        chunk_tokens=CHUNK,
    )


def a_group(members: int, spec: EngineSpec, gpus: SharedGpus | None = None) -> list[TurnTaker]:
    shared = gpus or SharedGpus()
    return [shared.add(Engine(spec)) for _ in range(members)]


def do(act: Act, engine: Engine | TurnTaker) -> None:
    if act.call is None:
        engine.cancel(act.at_s, act.withdrawn)
    else:
        engine.submit(act.at_s, act.call)


def played(engines: Sequence[Engine | TurnTaker], acts: Sequence[Act]) -> list[list[EngineEvent]]:
    """What each says, if nobody looks until the end."""
    for act in acts:
        do(act, engines[act.member])
    return [engine.advance(END_S) for engine in engines]


groups = st.integers(2, 3)
laws = settings(max_examples=60, deadline=None)


@pytest.mark.no_cover
@laws
@given(st.data())
def test_an_engine_alone_on_shared_gpus_is_that_engine(data: st.DataObject) -> None:
    acts = data.draw(the_acts(members=1))
    looks = data.draw(st.lists(st.floats(0, 4), max_size=8))
    (shared,), alone = a_group(1, a_spec()), Engine(a_spec())
    alive: set[str] = set()
    todo = sorted([*((act.at_s, 0, act) for act in acts), *((at_s, 1, None) for at_s in looks)],
                  key=lambda entry: entry[:2])  # fmt: skip
    for at_s, _, act in [*todo, (END_S, 1, None)]:
        if act is not None:
            do(act, shared)
            do(act, alone)
            alive = alive | {act.call.id} if act.call else alive - {act.withdrawn}
            continue
        events = alone.advance(at_s)
        assert shared.advance(at_s) == events
        alive -= {event.call_id for event in events if isinstance(event, Finished)}
        assert shared.statistics() == alone.statistics()
        assert shared.next_token_s() == alone.next_token_s()
        assert shared.waiting_calls == alone.waiting_calls
        for call_id in alive:
            assert shared.generated_tokens(call_id) == alone.generated_tokens(call_id)
    assert not alive
    with pytest.raises(InputError, match="not in the engine"):
        shared.generated_tokens("c0")


@pytest.mark.no_cover
@laws
@given(st.data())
def test_looking_more_often_changes_nothing(data: st.DataObject) -> None:
    members = data.draw(groups)
    acts = data.draw(the_acts(members=members))
    looks = data.draw(st.lists(st.floats(0, 4), max_size=12))
    seldom = played(a_group(members, a_spec()), acts)
    engines = a_group(members, a_spec())
    often: list[list[EngineEvent]] = [[] for _ in engines]
    todo = sorted([*((act.at_s, 0, act) for act in acts), *((at_s, 1, None) for at_s in looks)],
                  key=lambda entry: entry[:2])  # fmt: skip

    def look(at_s: float) -> None:
        for number, engine in enumerate(engines):
            often[number] += engine.advance(at_s)
            engine.statistics()
            assert engine.next_token_s() > at_s

    for at_s, _, act in [*todo, (END_S, 1, None)]:
        while (next_s := min(engine.next_event_s() for engine in engines)) < at_s:
            look(next_s)
        do(act, engines[act.member]) if act else look(at_s)
    assert often == seldom


@pytest.mark.no_cover
@laws
@given(st.data())
def test_every_call_ends_once_or_is_withdrawn(data: st.DataObject) -> None:
    members = data.draw(groups)
    acts = data.draw(the_acts(members=members))
    engines = a_group(members, a_spec())
    for number, events in enumerate(played(engines, acts)):
        assert [event.at_s for event in events] == sorted(event.at_s for event in events)
        found: dict[str, list[EngineEvent]] = defaultdict(list)
        for event in events:
            found[event.call_id].append(event)
        withdrawn = {a.withdrawn: a.at_s for a in reversed(acts) if a.call is None}
        for act in acts:
            if act.member != number or act.call is None:
                continue
            told = [each for each in found[act.call.id] if isinstance(each, FirstToken | Finished)]
            ends = [each for each in told if isinstance(each, Finished)]
            until_s = withdrawn.get(act.call.id, END_S)
            if not ends:
                assert until_s < END_S
            for end in ends:
                assert [end] == ends
                assert told == [*(each for each in told if isinstance(each, FirstToken)), end]
                assert act.at_s <= end.scheduled_s < end.at_s
            assert all(act.at_s < each.at_s <= until_s for each in told)
    for engine in engines:
        left = engine.statistics()
        assert (left.running, left.waiting, left.kv_used_blocks) == (0, 0, 0)
        assert engine.prompt_tokens == 0
        assert engine.next_event_s() == float("inf")


@pytest.mark.no_cover
@laws
@given(st.data())
def test_gpus_compute_whenever_there_is_work_but_for_what_turns_cost(data: st.DataObject) -> None:
    members = data.draw(groups)
    acts = data.draw(the_acts(members=members, cancels=False))
    gpus = SharedGpus()
    engines = a_group(members, a_spec(EqualTimes()), gpus)
    ended = {
        event.call_id: event.at_s
        for events in played(engines, acts)
        for event in events
        if isinstance(event, Finished)
    }
    busy_s, until_s = 0.0, 0.0
    for act in acts:
        assert act.call is not None
        end_s = ended[act.call.id]
        busy_s += max(0.0, end_s - max(act.at_s, until_s))
        until_s = max(until_s, end_s)
    computed_s = sum(engine.statistics().steps for engine in engines) * STEP_S
    assert busy_s == pytest.approx(computed_s + gpus.switching_s, abs=1e-6)
    assert gpus.switching_s <= computed_s * TURN_COST_FRACTION / (1 - TURN_COST_FRACTION) + 1e-9


class WatchedGpus(SharedGpus):
    """Notes whose turn begins when, and who had work then."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[float, TurnTaker | None, list[TurnTaker]]] = []

    def _switch(self, at_s: float) -> None:
        super()._switch(at_s)
        self.turns.append((at_s, self._active, self.busy))


@pytest.mark.no_cover
@laws
@given(st.data())
def test_nobody_waits_longer_than_two_turns_of_each_other(data: st.DataObject) -> None:
    """That of its round, and in the next that of prompts, which go first."""
    members = data.draw(groups)
    gpus = WatchedGpus()
    engines = a_group(members, a_spec(kv_blocks=600), gpus)
    played(engines, data.draw(the_acts(members=members, wait_ticks=300)))
    longest_s = (LONGEST_TURN_S + LONGEST_STEP_S) / (1 - TURN_COST_FRACTION)
    for engine in engines:
        waits: list[tuple[float, TurnTaker | None]] = []
        for at_s, active, busy in gpus.turns:
            if active is engine or engine not in busy:
                waits.clear()
                continue
            waits.append((at_s, active))
            taken = [other for _, other in waits]
            assert max(map(taken.count, taken)) <= 2
            assert at_s - waits[0][0] <= (2 * members - 3) * longest_s


@given(scenes())
@settings(max_examples=40, deadline=None)
@pytest.mark.no_cover
def test_dispatchers_lose_no_call_of_llms_that_take_turns(scene: Scene) -> None:
    """Also where replicas die and come back; those that lack a partner are alone on their GPUs."""
    together = list(zip(*(group.replicas for group in scene.groups), strict=False))
    fleet = ProgramFleet(scene.groups, turns=together, make_dispatcher=ByProgram)
    source = OpenLoop(iter(scene.arrivals))
    found = list(FaultySimulation(source, fleet, scene.faults, on_over=fleet.over).run())

    assert sorted(each.number for each in found) == list(range(len(scene.arrivals)))
    for execution in found:
        calls = execution.script.segment.calls
        assert sorted(call.position for call in execution.calls) == list(range(len(calls)))
    assert fleet.waiting_calls == 0
