"""Laws of the dispatchers that ours are compared with, in whole simulations."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.policy.dispatch import Dispatcher
from scepsy.policy.retain import Lru, Retention
from scepsy.policy.yardsticks.affinity import SessionAffinity
from scepsy.policy.yardsticks.continuum import Continuum, KeptLru
from scepsy.policy.yardsticks.eager import Eager
from scepsy.policy.yardsticks.queued import Queued
from scepsy.policy.yardsticks.saga import Saga
from scepsy.policy.yardsticks.scoring import KvRouter, LlmD
from scepsy.policy.yardsticks.thunder_agent import ThunderAgent
from scepsy.policy.yardsticks.time_to_live import Times
from scepsy.sim.arrivals import OpenLoop
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.run import FaultySimulation, ServedExecution
from tests.property.made_up_scenes import Scene, scenes

pytestmark = pytest.mark.no_cover

MAKERS: list[Callable[[], Dispatcher]] = [
    SessionAffinity,
    KvRouter,
    LlmD,
    ThunderAgent,
    lambda: ThunderAgent(acting_decays=True),
    Continuum,
    Saga,
    lambda: Saga(load_is_kv=True),
]


def served(scene: Scene, make: Callable[[], Dispatcher]) -> tuple[list[ServedExecution], set[str]]:
    """The executions that ended, and what is left in the dispatchers."""
    made: list[Dispatcher] = []

    def remembered() -> Dispatcher:
        made.append(make())
        return made[-1]

    def retention() -> Retention:
        keeping = next((each for each in made if isinstance(each, Continuum)), None)
        return Lru() if keeping is None else KeptLru(keeping.is_kept)

    fleet = ProgramFleet(scene.groups, make_dispatcher=remembered, make_retention=retention)
    simulation = FaultySimulation(
        OpenLoop(iter(scene.arrivals)), fleet, scene.faults, on_over=fleet.over
    )
    ended = list(simulation.run())
    assert fleet.waiting_calls == 0
    return ended, {left for each in made for left in held(each)}


def held(dispatcher: Dispatcher) -> set[str]:
    workers = dispatcher.workers if isinstance(dispatcher, Eager | Queued) else {}
    if isinstance(dispatcher, ThunderAgent):
        workers = dispatcher._workers
    return {f"{name}: {worker}" for name, worker in workers.items() if worker.held_tokens}


@pytest.mark.parametrize("make", MAKERS)
@given(scene=scenes())
@settings(max_examples=40, deadline=None)
def test_every_call_ends_and_nothing_is_held_for_it(
    make: Callable[[], Dispatcher], scene: Scene
) -> None:
    ended, left = served(scene, make)

    assert len(ended) == len(scene.arrivals)
    assert all(len(each.calls) == len(each.script.stages) for each in ended)
    assert not left


@given(scenes(faulty=False))
@settings(max_examples=40, deadline=None)
def test_a_session_stays_on_one_replica_of_each_llm(scene: Scene) -> None:
    for execution in served(scene, SessionAffinity)[0]:
        homes = {(call.stage.llm, call.replica) for call in execution.calls}
        assert len(homes) == len({llm for llm, _ in homes})


@given(st.lists(st.integers(0, 50), min_size=1, max_size=150), st.floats(0.0, 100.0))
def test_no_other_time_to_live_pays_more(seen: list[int], benefit_s: float) -> None:
    times = Times()
    for took_s in seen:
        times.saw(float(took_s))

    def reward(ttl_s: float) -> float:
        return sum(took_s <= ttl_s for took_s in seen) / len(seen) * benefit_s - ttl_s

    best_s = times.best_s(benefit_s)

    assert reward(best_s) == pytest.approx(max(map(reward, [0.0, *map(float, seen)])))


@given(st.data())
def test_what_is_kept_goes_last(data: st.DataObject) -> None:
    kept: set[str] = set()
    policy = KeptLru(kept.__contains__)
    owner: dict[int, str] = {}
    inside: list[int] = []
    for number in range(data.draw(st.integers(1, 40))):
        what = data.draw(st.sampled_from(["end", "keep", "free", "evict", "wake"]))
        program = data.draw(st.sampled_from("abc"))
        if what == "end":
            blocks = [number * 10 + k for k in range(data.draw(st.integers(1, 4)))]
            policy.ended(0.0, program, "", blocks)
            policy.keep(blocks[::-1])
            owner.update(dict.fromkeys(blocks, program))
            inside += blocks[::-1]
        elif what == "keep":
            kept.add(program)
        elif what == "free":
            kept.discard(program)
        elif inside and what == "wake":
            block = inside.pop(data.draw(st.integers(0, len(inside) - 1)))
            policy.wake([block])
        elif inside:
            others = [block for block in inside if owner[block] not in kept]
            block = policy.evict(float(number))
            assert block in (others or inside)
            inside.remove(block)
        assert len(policy) == len(inside)
        assert all(block in policy for block in inside)
