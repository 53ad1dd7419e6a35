"""Laws of dispatchers in whole simulations."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.programs.shares import Shares
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import AtOnce, CallResult, Capacity, Dispatch, Dispatcher
from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_call import work_s
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program import Hints, TenantName, ToolName
from scepsy.policy.route import POLICIES, CallView
from scepsy.sim.arrivals import OpenLoop
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.records import as_recorded_execution
from scepsy.sim.run import FaultySimulation, ServedExecution
from tests.property.made_up_scenes import Scene, scenes

pytestmark = pytest.mark.no_cover

SWITCHES = ("routes", "admits", "holds", "shares", "engines_ask")
_INF = float("inf")


@st.composite
def the_settings(draw: st.DrawFn) -> Settings:
    """Any mechanism on or off."""
    return Settings(
        **{name: draw(st.booleans()) for name in SWITCHES},
        patience=draw(st.sampled_from([0.0, 1.0, 100.0])),
        least_bound_s=draw(st.sampled_from([0.0, 0.25, 4.0])),
        price=draw(st.sampled_from([0.0, 1.0, 100.0])),
        level_ratio=draw(st.sampled_from([1.0, 2.0])),
        least_level_s=0.1,
        fill_fraction=draw(st.sampled_from([0.5, 1.0])),
    )


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


def held(replica: Replica) -> tuple[int, ...]:
    """Tokens of all that is believed to be there."""
    return (
        replica.running_tokens,
        replica.idle_tokens,
        replica.claimed_tokens,
        replica.host_tokens,
    )


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


CAPACITY = Capacity(kv_tokens=1000, seqs=4, prompt_token_s=0.01, decode_s=0.01, block_tokens=10)


MOST_S = 10.0


class MadeUp(NamedTuple):
    at_s: float
    view: CallView
    took_s: float
    result: CallResult


@st.composite
def the_calls(draw: st.DrawFn) -> list[MadeUp]:
    """Calls of several tenants and executions, with hints that need not be true."""
    found: list[MadeUp] = []
    at_s = 0.0
    for number in range(draw(st.integers(1, 40))):
        at_s += draw(st.integers(0, 64)) / 16
        execution = draw(st.integers(0, 12))
        prompt = draw(st.integers(1, 900))
        hints = Hints(
            gap_s=draw(st.sampled_from([None, 0.01, 1e4])),
            output_tokens=draw(st.sampled_from([None, 1.0, 1e5])),
            priority=draw(st.integers(-2, 2)),
        )
        view = CallView(
            id=str(number),
            execution=ExecutionId(str(execution)),
            workflow="w",
            role="r",
            prompt_tokens=prompt,
            prefix_blocks=tuple(1000 * execution + at for at in range(prompt // 10)),
            tenant=TenantName(draw(st.sampled_from("ab"))),
            hints=hints,
        )
        result = CallResult(
            output_tokens=draw(st.integers(0, 50)),
            cached_tokens=draw(st.sampled_from([None, 0, prompt - 1])),
            tool=ToolName(draw(st.sampled_from("xy"))),
        )
        took_s = draw(st.integers(1, int(16 * MOST_S))) / 16
        found.append(MadeUp(at_s, view, took_s, result))
    return found


class Harness:
    """Calls that take what they are made up to take, on replicas that refuse none."""

    def __init__(
        self, calls: Sequence[MadeUp], chosen: Settings, replicas: int, host_tokens: int = 0
    ) -> None:
        self.dispatcher = ByProgram(chosen)
        self.calls = calls
        self.names = [ReplicaName(f"r{number}") for number in range(replicas)]
        for name in self.names:
            self.dispatcher.joined(0.0, name, replace(CAPACITY, host_tokens=host_tokens))
        self.waiting: dict[int, float] = {}
        self.running: dict[int, ReplicaName] = {}
        self.sent_s: dict[int, float] = {}
        self.begun: set[ExecutionId] = set()
        """Executions of which a call has ended."""
        self.may_stay: set[int] = set()
        """Calls that may wait for their context: of an execution that had begun."""

    def run(self) -> Iterator[float]:
        """Instants after each of which all that goes has gone."""
        todo = [(call.at_s, 0, number) for number, call in enumerate(self.calls)]
        heapify(todo)
        while todo or self.waiting:
            now_s = min(self.dispatcher.next_s, todo[0][0] if todo else _INF)
            assert now_s < _INF, "calls wait for nothing"
            while todo and todo[0][0] <= now_s:
                _, kind, number = heappop(todo)
                self._happens(now_s, number, is_end=kind == 1)
            for view, name, *_ in self.dispatcher.take(now_s):
                number = int(view.id)
                del self.waiting[number]
                self.sent_s[number], self.running[number] = now_s, name
                heappush(todo, (now_s + self.calls[number].took_s, 1, number))
            assert self.dispatcher.next_s > now_s
            yield now_s

    def _happens(self, now_s: float, number: int, *, is_end: bool) -> None:
        call = self.calls[number]
        if is_end:
            del self.running[number]
            self.begun.add(call.view.execution)
            self.dispatcher.ended(now_s, call.view, call.result)
        else:
            self.waiting[number] = now_s
            if call.view.execution in self.begun:
                self.may_stay.add(number)
            self.dispatcher.arrived(now_s, call.view)


@given(the_calls(), the_settings(), st.integers(1, 3), st.sampled_from([0, 0, 2000]))
@settings(max_examples=60, deadline=None)
def test_no_call_is_passed_over_beyond_the_bound(
    calls: list[MadeUp], chosen: Settings, replicas: int, host_tokens: int
) -> None:
    """Who has waited for the bound, and longest of all, goes within the time of one call."""
    chosen = replace(chosen, patience=0.0, shares=False)
    harness = Harness(calls, chosen, replicas, host_tokens)
    for _ in harness.run():
        pass

    free_s = 0.0
    for number, call in enumerate(calls):  # by arrival
        due_s = max(free_s, call.at_s + chosen.revoke_ratio * chosen.least_bound_s)
        assert harness.sent_s[number] <= due_s + MOST_S + 1e-9
        free_s = max(free_s, harness.sent_s[number])


@given(the_calls(), the_settings(), st.integers(1, 3), st.sampled_from([0, 0, 2000]))
@settings(max_examples=60, deadline=None)
def test_of_the_tenant_that_was_served_least_nobody_is_passed_over_beyond_the_bound(
    calls: list[MadeUp], chosen: Settings, replicas: int, host_tokens: int
) -> None:
    """Who has waited for the bound, and longest of its tenant, goes within the time of one call, or
    of two where a replica was being emptied for another's: if no tenant of whom calls wait was
    served less in the meantime."""
    chosen = replace(chosen, patience=0.0, shares=True)
    harness = Harness(calls, chosen, replicas, host_tokens)
    since: dict[int, float] = {}
    for now_s in harness.run():
        for number, since_s in since.items():
            assert harness.sent_s.get(number, now_s) <= since_s + 2 * MOST_S + 1e-9
        waited = [at for at, sent_s in harness.sent_s.items() if sent_s == now_s]
        waited += harness.waiting
        door = harness.dispatcher._door
        served = {
            tenant: door.served(tenant) for tenant in {calls[at].view.tenant for at in waited}
        }
        first = {calls[at].view.tenant: at for at in sorted(harness.waiting, reverse=True)}
        since = {
            at: since.get(at, now_s)
            for tenant, at in first.items()
            if now_s >= calls[at].at_s + chosen.revoke_ratio * chosen.least_bound_s
            and all(served[tenant] < had for other, had in served.items() if other != tenant)
        }


@st.composite
def the_floods(draw: st.DrawFn) -> list[MadeUp]:
    """Of three tenants, one has by far the most calls; all come about at once, none goes on."""
    found: list[MadeUp] = []
    for tenant, most in (("a", 40), ("b", 10), ("c", 10)):
        for _ in range(draw(st.integers(most // 2, most))):
            view = CallView(
                id="",
                execution=ExecutionId(""),
                workflow="w",
                role="r",
                prompt_tokens=draw(st.integers(100, 900)),
                tenant=TenantName(tenant),
            )
            at_s, took_s = draw(st.integers(0, 80)) / 16, draw(st.integers(1, 64)) / 16
            found.append(
                MadeUp(at_s, view, took_s, CallResult(output_tokens=draw(st.integers(0, 50))))
            )
    found.sort(key=lambda call: call.at_s)
    return [
        call._replace(view=call.view._replace(id=str(at), execution=ExecutionId(str(at))))
        for at, call in enumerate(found)
    ]


def shares_of(calls: Sequence[MadeUp], sent_s: Mapping[int, float], chosen: Settings) -> Shares:
    """What tenants got for their weights, and while they waited side by side."""
    shares, arrive, end, go = Shares(), 0, 1, 2
    events = [(call.at_s, arrive, at) for at, call in enumerate(calls)]
    events += [(sent_s[at] + call.took_s, end, at) for at, call in enumerate(calls)]
    events += [(sent_s[at], go, at) for at in sent_s]
    for now_s, what, at in sorted(events):
        view = calls[at].view
        if what == arrive:
            shares.waits(view.tenant)
        elif what == go:
            shares.goes(view.tenant)
        else:
            worked_s = work_s(CAPACITY, view, calls[at].result)
            for_weight_s = worked_s / chosen.weights.get(view.tenant, 1.0)
            shares.served(view.tenant, sent_s[at], now_s, for_weight_s)
    return shares


@given(
    the_floods(),
    st.sampled_from([1.0, 1e9]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.5, 2.0])),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_in_overload_tenants_that_wait_get_their_shares_but_for_what_is_under_way(
    calls: list[MadeUp], revoke_ratio: float, weights: dict[TenantName, float], replicas: int
) -> None:
    """All calls wait for longer than their bound, at once or for good."""
    chosen = Settings(patience=0.0, least_bound_s=1e-6, revoke_ratio=revoke_ratio, weights=weights)
    harness = Harness(calls, chosen, replicas)
    for _ in harness.run():
        pass

    shares = shares_of(calls, harness.sent_s, chosen)
    call_s = max(
        work_s(CAPACITY, each.view, each.result) / weights.get(each.view.tenant, 1.0)
        for each in calls
    )
    assert shares.largest_s <= 2 * (shares.in_flight_s + call_s) + 1e-6


@given(st.integers(2, 4), st.sampled_from([1.25, 1.5, 3.0]))
def test_a_stream_of_calls_to_their_contexts_does_not_keep_a_large_one_out(
    agents: int, took_s: float
) -> None:
    """Without a bound it would wait until the stream ends, as the replica is never empty."""
    calls = [
        MadeUp(
            float(at),
            CallView(
                id=str(at),
                execution=ExecutionId(str(at % agents)),
                workflow="w",
                role="r",
                prompt_tokens=200,
                prefix_blocks=tuple(1000 * (at % agents) + block for block in range(20)),
            ),
            took_s,
            CallResult(output_tokens=1, cached_tokens=190),
        )
        for at in range(60)
    ]
    large = CallView(
        id="60", execution=ExecutionId("large"), workflow="w", role="r", prompt_tokens=900
    )
    calls.append(MadeUp(10.0, large, 1.0, CallResult(output_tokens=1)))
    chosen = Settings(patience=0.0, least_bound_s=4.0)
    harness = Harness(calls, chosen, 1)
    for _ in harness.run():
        pass

    before_s = max(harness.sent_s[at] for at in range(11))  # those may have had to wait too
    assert harness.sent_s[60] <= max(before_s, 10.0 + chosen.revoke_ratio * 4.0) + took_s


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
