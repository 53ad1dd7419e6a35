"""Laws of whole simulations: any executions through any fleet, with any router, order and faults.

All durations are sums of powers of two, exact in floating point, so that instants are compared
with ==.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Stage
from scepsy.policy.replicas import InFlight, ReplicaSet
from scepsy.policy.route import POLICIES, CallView, LeastLoaded, MakeRouter
from scepsy.profiles.workload import Segment
from scepsy.sim.arrivals import Arrival, ClosedLoop, OpenLoop
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished
from scepsy.sim.fleet import Fleet, ServedGroup
from scepsy.sim.records import as_recorded_execution
from scepsy.sim.run import ServedCall, Simulation
from scepsy.sim.script import Script
from tests.property.made_up_scenes import (
    TICK_S,
    WORKFLOW,
    Scene,
    scenes,
)

pytestmark = pytest.mark.no_cover


class WatchedFleet(Fleet):
    """Counts what is asked and what ends, and looks at instants that nobody asked for."""

    def __init__(
        self, groups: Iterable[ServedGroup], make_router: MakeRouter, looks_s: Iterable[float] = ()
    ) -> None:
        super().__init__(groups, make_router=make_router)
        self.ended: Counter[str] = Counter()
        self.now_s = 0.0
        self._looks_s = sorted(looks_s)

    def next_event_s(self) -> float:
        next_s = super().next_event_s()
        return min(next_s, self._looks_s[0]) if self._looks_s else next_s

    def advance(self, now_s: float) -> list[EngineEvent]:
        assert now_s >= self.now_s, "time ran back"
        while self._looks_s and self._looks_s[0] <= now_s:
            self._looks_s.pop(0)
        events = super().advance(now_s)
        assert all(self.now_s <= event.at_s <= now_s for event in events)
        self.now_s = now_s
        self.ended.update(event.call_id for event in events if isinstance(event, Finished))
        for _, engine in self.engines:
            got = engine.statistics()
            assert got.kv_used_blocks <= got.kv_blocks
        return events


class Remembering(LeastLoaded):
    """A router that keeps what it was shown."""

    def __init__(self, seen: list[CallView], among: list[ReplicaSet]) -> None:
        self._seen, self._among = seen, among

    def choose(
        self, call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        self._seen.append(call)
        self._among.append(replicas)
        return super().choose(call, replicas, without)


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_every_call_of_every_execution_is_served_once(scene: Scene) -> None:
    fleet = WatchedFleet(scene.groups, POLICIES[scene.route])
    served = scene.served(fleet)

    assert sorted(each.number for each in served) == list(range(len(scene.arrivals)))
    for execution in served:
        assert execution.script is scene.arrivals[execution.number].script
        assert execution.start_s == scene.arrivals[execution.number].at_s
        recorded = execution.script.segment.calls
        assert sorted(call.position for call in execution.calls) == list(range(len(recorded)))
        for call in execution.calls:
            assert call.output_tokens == recorded[call.position].output_tokens
            assert call.stage == execution.script.stages[call.position]
            assert 0 <= call.cached_tokens < call.prompt_tokens
            assert call.replica in {
                name
                for group in scene.groups
                if group.llm == call.stage.llm
                for name in group.replicas
            }
    assert fleet.ended == Counter(
        f"{execution.number}-{call.position}" for execution in served for call in execution.calls
    )


@given(scenes())
@settings(max_examples=100, deadline=None)
def test_nothing_is_held_when_all_is_over(scene: Scene) -> None:
    among: list[ReplicaSet] = []
    fleet = scene.fleet(lambda: Remembering([], among))
    scene.served(fleet)

    assert fleet.next_event_s() == float("inf")
    assert fleet.waiting_calls == 0
    for _, engine in fleet.engines:
        got = engine.statistics()
        assert (got.running, got.waiting, got.kv_used_blocks) == (0, 0, 0)
    assert all(
        replicas.inflight(name) == InFlight(0, 0) for replicas in among for name in replicas.names
    )


@given(scenes())
@settings(max_examples=100, deadline=None)
def test_a_call_starts_when_what_it_waits_for_and_its_gap_are_over_and_then_keeps_order(
    scene: Scene,
) -> None:
    """However often it began anew."""
    for execution in scene.served(scene.fleet()):
        by_position = {call.position: call for call in execution.calls}
        for call in execution.calls:
            recorded = execution.script.segment.calls[call.position]
            ended_s = [by_position[at].end_s for at in recorded.waits_for]
            assert call.start_s == max(ended_s, default=execution.start_s) + recorded.after_s
            assert call.start_s <= call.scheduled_s < call.end_s
            if recorded.output_tokens:
                assert call.scheduled_s < call.first_token_s <= call.end_s
            assert 0 < call.ttft_s <= call.e2e_s
        last_s = max(call.end_s for call in execution.calls)
        assert execution.end_s == last_s + execution.script.tail_s


@given(scenes(), st.lists(st.integers(0, 5000), max_size=20))
@settings(max_examples=100, deadline=None)
def test_equal_scenes_give_equal_records_however_often_one_looks(
    scene: Scene, looks: list[int]
) -> None:
    def record(looks_s: Iterable[float]) -> list[object]:
        served = scene.served(WatchedFleet(scene.groups, POLICIES[scene.route], looks_s))
        of_calls = [call for each in served for call in each.calls]
        return [*map(repr, of_calls), *map(as_recorded_execution, served)]

    assert record(()) == record(()) == record(tick * TICK_S for tick in looks)


@given(scenes(shares=False))
@settings(max_examples=100, deadline=None)
def test_no_call_is_faster_than_alone(scene: Scene) -> None:
    """Where no prefix is cached."""
    specs = {group.llm: group.spec for group in scene.groups}
    for execution in scene.served(scene.fleet()):
        for call in execution.calls:
            engine = Engine(replace(specs[call.stage.llm], kv_blocks=10**6))
            engine.submit(
                0.0,
                EngineCall(
                    id="alone", prompt_tokens=call.prompt_tokens, output_tokens=call.output_tokens
                ),
            )
            alone_s = engine.advance(1000.0)[-1].at_s
            assert call.e2e_s >= alone_s


@given(scenes(faulty=False, shares=False), st.integers(2, 8))
@settings(max_examples=100, deadline=None)
def test_no_execution_is_faster_when_all_arrive_closer_together(scene: Scene, times: int) -> None:
    """Of one call each, served one by one: each waits for what those before it left."""
    first = scene.groups[0]
    group = ServedGroup(first.llm, replace(first.spec, max_seqs=1), first.replicas[:1])

    def latencies_s(spread: int) -> list[float]:
        arrivals = []
        for arrival in scene.arrivals:
            call = replace(arrival.script.segment.calls[0], after_s=0.0)
            stage = Stage(WORKFLOW, first.llm)
            script = Script(Segment((call,)), (stage,), 0.0)
            arrivals.append(Arrival(arrival.at_s * spread, script))
        served = Simulation(OpenLoop(iter(arrivals)), Fleet([group])).run()
        return [each.execution_s for each in sorted(served, key=lambda each: each.number)]

    assert all(
        loaded_s >= light_s
        for loaded_s, light_s in zip(latencies_s(1), latencies_s(times), strict=True)
    )


@given(scenes(faulty=False))
@settings(max_examples=100, deadline=None)
def test_no_call_is_passed_over_by_one_that_the_order_puts_behind_it(scene: Scene) -> None:
    """Of those that one replica had when it took the other."""
    on_replica: dict[ReplicaName | None, list[tuple[tuple[float, float], ServedCall]]] = {}
    for execution in scene.served(scene.fleet()):
        for call in execution.calls:
            by_age = scene.order == "oldest-execution"
            rank = (execution.start_s if by_age else 0.0, call.start_s)
            on_replica.setdefault(call.replica, []).append((rank, call))
    for calls in on_replica.values():
        for rank, call in calls:
            for other_rank, other in calls:
                if rank < other_rank and call.start_s < other.scheduled_s:
                    assert call.scheduled_s <= other.scheduled_s


@given(scenes(faulty=False), st.integers(1, 32))
@settings(max_examples=50, deadline=None)
def test_a_router_sees_nothing_of_the_output_to_come(scene: Scene, output_tokens: int) -> None:
    """Other lengths of outputs change nothing of what a router is shown of calls that arrive."""

    def views(outputs: int | None) -> list[CallView]:
        arrivals = []
        for arrival in scene.arrivals:
            segment = arrival.script.segment
            calls = tuple(
                replace(
                    call,
                    waits_for=(),
                    output_tokens=call.output_tokens if outputs is None else outputs,
                    blocks=call.blocks[: call.prefix_blocks] if outputs else call.blocks,
                )
                for call in segment.calls
            )
            arrivals.append(Arrival(arrival.at_s, replace(arrival.script, segment=Segment(calls))))
        seen: list[CallView] = []
        changed = replace(scene, arrivals=tuple(arrivals))
        changed.served(changed.fleet(lambda: Remembering(seen, [])))
        return seen

    assert views(None) == views(output_tokens)
    assert not any("output" in name for name in CallView._fields)


@given(scenes(faulty=False))
@settings(max_examples=100, deadline=None)
def test_a_fleet_of_one_replica_is_its_engine(scene: Scene) -> None:
    group = replace(scene.groups[0], replicas=scene.groups[0].replicas[:1])
    fleet, engine = Fleet([group]), Engine(group.spec)
    of_fleet: list[EngineEvent] = []
    for number, arrival in enumerate(scene.arrivals):
        recorded = arrival.script.segment.calls[0]
        prefix, output = recorded.copy_blocks(number)
        call = EngineCall(
            id=str(number),
            prompt_tokens=1 + recorded.prompt_tokens,
            output_tokens=min(recorded.output_tokens, 31),
            prefix_blocks=prefix,
            output_blocks=output,
        )
        of_fleet += fleet.advance(arrival.at_s)
        view = CallView(
            execution=ExecutionId(call.id),
            workflow=WORKFLOW,
            role=Stage(WORKFLOW, group.llm).role,
            prompt_tokens=call.prompt_tokens,
            prefix_blocks=prefix,
        )
        fleet.submit(arrival.at_s, group.llm, view, call)
        engine.submit(arrival.at_s, call)
    while (next_s := fleet.next_event_s()) < float("inf"):
        of_fleet += fleet.advance(next_s)

    assert of_fleet == engine.advance(1000.0)


@given(scenes(faulty=False), st.sampled_from([1, 2, 4]), st.integers(0, 600))
@settings(max_examples=100, deadline=None)
def test_a_closed_loop_has_its_users_and_no_more(scene: Scene, users: int, think: int) -> None:
    think_s = think * TICK_S
    several = [arrival.script for arrival in scene.arrivals]
    simulation = Simulation(ClosedLoop(several, users=users, think_s=think_s), scene.fleet())
    served = list(islice(simulation.run(), 3 * users + 5))

    first_s = [think_s * user / users for user in range(users)]
    begun_s = sorted(first_s + [each.end_s + think_s for each in served])
    starts_s = sorted(each.start_s for each in served)
    assert set(starts_s) <= set(begun_s)
    for each in served:
        under_way = [e for e in served if e.start_s <= each.start_s < e.end_s]
        assert len(under_way) <= users
