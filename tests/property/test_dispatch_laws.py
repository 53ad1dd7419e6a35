"""Laws of dispatchers in whole simulations."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import AtOnce, CallResult, Capacity, Dispatch, Dispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.route import POLICIES, CallView
from scepsy.sim.arrivals import OpenLoop
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.records import as_recorded_execution
from scepsy.sim.run import FaultySimulation, ServedExecution
from tests.property.made_up_calls import CAPACITY, Harness, MadeUp, held, the_calls, the_settings
from tests.property.made_up_scenes import Scene, scenes

pytestmark = pytest.mark.no_cover


class Watched:
    """A dispatcher, with an eye on what it is told and what it sends."""

    def __init__(self, inner: ByProgram) -> None:
        self.inner = inner
        self.up: dict[ReplicaName, int] = {}
        self.waiting: dict[str, CallView] = {}
        self.arrived_s: dict[str, float] = {}
        self.where: dict[str, ReplicaName] = {}
        self.sent: Counter[str] = Counter()
        self.arrivals: Counter[str] = Counter()

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        self.up[replica] = 0
        self.inner.joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        del self.up[replica]
        self.where = {call: name for call, name in self.where.items() if name != replica}
        self.inner.lost(now_s, replica)

    def arrived(self, now_s: float, call: CallView) -> None:
        assert call.id not in self.waiting
        self.waiting[call.id] = call
        self.arrived_s[call.id] = now_s
        self.arrivals[call.id] += 1
        self.inner.arrived(now_s, call)

    def take(self, now_s: float) -> list[Dispatch]:
        found = self.inner.take(now_s)
        for call, replica, *_ in found:
            assert self.waiting.pop(call.id) is call
            self.sent[call.id] += 1
            self.where[call.id] = replica
            self.up[replica] += 1
        assert self.inner.next_s > now_s
        return found

    def first_token(self, now_s: float, call: CallView) -> None:
        self.inner.first_token(now_s, call)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        self.up[self.where.pop(call.id)] -= 1
        self.inner.ended(now_s, call, result)

    def dropped(self, now_s: float, call: CallView) -> None:
        raise AssertionError("no client leaves here")

    def over(self, now_s: float, execution: ExecutionId) -> None:
        self.inner.over(now_s, execution)

    @property
    def next_s(self) -> float:
        return self.inner.next_s


def served(scene: Scene, fleet: ProgramFleet) -> list[ServedExecution]:
    source = OpenLoop(iter(scene.arrivals))
    simulation = FaultySimulation(source, fleet, scene.faults, on_over=fleet.over)
    return list(simulation.run())


@given(scenes())
@settings(max_examples=40, deadline=None)
def test_a_dispatcher_that_sends_at_once_is_the_router_it_asks(scene: Scene) -> None:
    make = POLICIES[scene.route]
    late = ProgramFleet(scene.groups, make_dispatcher=lambda: AtOnce(make()))

    now, then = scene.served(scene.fleet()), scene.served(late)

    assert [as_recorded_execution(each) for each in now] == [
        as_recorded_execution(each) for each in then
    ]
    assert late.waiting_calls == 0


@given(scenes(), the_settings())
@settings(max_examples=60, deadline=None)
def test_no_call_is_lost_or_sent_twice_and_nothing_is_kept_of_what_is_over(
    scene: Scene, chosen: Settings
) -> None:
    made: list[Watched] = []

    def make() -> Dispatcher:
        made.append(Watched(ByProgram(chosen)))
        return made[-1]

    fleet = ProgramFleet(scene.groups, make_dispatcher=make)
    found = served(scene, fleet)

    assert sorted(each.number for each in found) == list(range(len(scene.arrivals)))
    for execution in found:
        recorded = execution.script.segment.calls
        assert sorted(call.position for call in execution.calls) == list(range(len(recorded)))
    for each in made:
        assert each.sent == each.arrivals  # as often as it was lost with a replica, and once
        assert not each.waiting
        assert each.inner.live_executions == 0
        assert [held(replica) for replica in each.inner.replicas] == [(0, 0, 0, 0)] * len(each.up)
    assert fleet.waiting_calls == 0


@given(scenes(), the_settings())
@settings(max_examples=60, deadline=None)
def test_equal_calls_are_served_equally(scene: Scene, chosen: Settings) -> None:
    first, second = (
        [
            as_recorded_execution(each)
            for each in served(
                scene, ProgramFleet(scene.groups, make_dispatcher=lambda: ByProgram(chosen))
            )
        ]
        for _ in range(2)
    )
    assert first == second


@given(the_calls(), the_settings(), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_no_replica_is_idle_while_a_call_waits_that_has_no_context_elsewhere(
    calls: list[MadeUp], chosen: Settings, replicas: int
) -> None:
    harness = Harness(calls, chosen, replicas)
    for _ in harness.run():
        if len(set(harness.running.values())) < replicas:
            assert harness.waiting.keys() <= harness.may_stay
            assert chosen.routes or not harness.waiting


@given(the_calls(), st.integers(0, 2))
@settings(deadline=None)
def test_a_client_that_leaves_leaves_nothing(calls: list[MadeUp], every: int) -> None:
    dispatcher = ByProgram()
    dispatcher.joined(0.0, ReplicaName("r"), CAPACITY)
    for at_s, view, _, _ in calls:
        dispatcher.arrived(at_s, view)
        dispatcher.take(at_s)
    at_s = calls[-1][0]
    for number, (_, view, _, _) in enumerate(calls):
        dispatcher.dropped(at_s, view)
        if number % 3 == every:
            dispatcher.take(at_s)
    for _, view, _, _ in calls:
        dispatcher.over(at_s, view.execution)
    assert dispatcher.take(at_s) == []
    assert dispatcher.live_executions == 0
    assert [held(replica) for replica in dispatcher.replicas] == [(0, 0, 0, 0)]
