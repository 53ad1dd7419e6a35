import asyncio

import pytest

from scepsy.clock import ScaledClock
from scepsy.errors import InputError
from scepsy.gateway.door import Door, DoorLimits
from scepsy.gateway.openai import Refusal
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.route import CallView

CAPACITY = Capacity(kv_tokens=10, seqs=1, prompt_token_s=1.0)
DONE = CallResult(output_tokens=1)


class LastFirst:
    """Sends what came last, one call at a time, to the replica that is up."""

    def __init__(self):
        self.told = []
        self.waiting, self.busy, self.up = {}, None, None
        self.next_s = float("inf")

    def joined(self, now_s, replica, capacity):
        self.up = replica

    def lost(self, now_s, replica):
        self.told.append(("lost", replica))
        self.up = self.busy = None

    def arrived(self, now_s, call):
        self.waiting[call.id] = call

    def take(self, now_s):
        if self.busy or not self.up or not self.waiting:
            return []
        self.busy, call = self.waiting.popitem()
        return [Dispatch(call, self.up)]

    def first_token(self, now_s, call):
        self.told.append(("first", call.execution))

    def ended(self, now_s, call, result):
        self.told.append(("ended", call.execution))
        self.busy = None

    def dropped(self, now_s, call):
        self.told.append(("dropped", call.execution))
        if self.waiting.pop(call.id, None) is None:
            self.busy = None

    def over(self, now_s, execution):
        self.told.append(("over", execution))


def view(name):
    return CallView(execution=name, workflow="w", role="", prompt_tokens=1, id="same")


@pytest.fixture
def dispatcher():
    return LastFirst()


@pytest.fixture
def sent():
    return []


@pytest.fixture
async def door(dispatcher, sent):
    made = Door(
        dispatcher,
        ScaledClock(),
        DoorLimits(calls=3, wait_s=60.0),
        lambda _, passes: sent.append(passes),
    )
    made.joined("r", CAPACITY)
    yield made
    made.stop()


def entering(door, name):
    return asyncio.create_task(door.enter(view(name)))


async def until_waiting(door, calls):
    for _ in range(100):
        if door.waiting_calls == calls:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{door.waiting_calls} wait, not {calls}")


async def test_calls_go_when_the_dispatcher_says_so_and_who_is_passed_over_is_counted(
    door, dispatcher, sent
):
    first = await door.enter(view("a"))
    b, c = entering(door, "b"), entering(door, "c")
    await until_waiting(door, 2)
    door.first_token(first)
    door.leave(first, DONE)
    last = await c
    assert not b.done()
    door.leave(last, DONE)
    door.leave(await b, DONE)
    door.over("a")

    assert sent == [False, True, False]
    assert dispatcher.told == [
        ("first", "a"),
        ("ended", "a"),
        ("ended", "c"),
        ("ended", "b"),
        ("over", "a"),
    ]
    assert door.admitted_executions == door.waiting_calls == 0


async def test_a_call_that_is_sent_again_is_another_one_to_the_dispatcher(door):
    first = await door.enter(view("a"))
    door.leave(first, None)
    second = await door.enter(view("a"))

    assert first.view.id != second.view.id


async def test_who_waits_and_leaves_is_dropped_once(door, dispatcher):
    first = await door.enter(view("a"))
    waits = entering(door, "b")
    await until_waiting(door, 1)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    door.leave(first, None)
    door.leave(first, DONE)

    assert dispatcher.told == [("dropped", "b"), ("dropped", "a")]


async def test_who_is_sent_while_leaving_makes_room(door, dispatcher):
    first = await door.enter(view("a"))
    b, c = entering(door, "b"), entering(door, "c")
    await until_waiting(door, 2)
    c.cancel()
    door.leave(first, DONE)  # sends c, whose client has left in the same instant
    door.leave(await b, DONE)

    assert dispatcher.told == [("ended", "a"), ("dropped", "c"), ("ended", "b")]


async def test_calls_of_a_lost_replica_are_broken_off_unless_they_have_begun(door, dispatcher):
    seat = await door.enter(view("a"))

    async def held():
        async with asyncio.timeout(None) as seat.scope:
            door.lost("r")
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await held()
    assert seat.is_lost
    door.leave(seat, None)
    door.joined("r", CAPACITY)
    begun = await door.enter(view("b"))
    async with asyncio.timeout(None) as begun.scope:
        begun.begun()
        door.lost("r")
        await asyncio.sleep(0.01)
    door.first_token(begun)
    door.leave(begun, DONE)

    assert begun.is_lost
    assert dispatcher.told == [("lost", "r"), ("lost", "r")]  # of such calls no more is said
    assert door.admitted_executions == 0


async def test_a_call_that_begins_as_its_replica_is_lost_goes_on(door):
    seat = await door.enter(view("a"))
    async with asyncio.timeout(None) as seat.scope:
        door.lost("r")
        seat.begun()
        await asyncio.sleep(0.01)

    assert seat.is_lost


async def test_no_more_may_wait_than_fit(door):
    tasks = [entering(door, str(at)) for at in range(4)]
    await until_waiting(door, 3)
    with pytest.raises(Refusal) as caught:
        await door.enter(view("x"))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (caught.value.status, caught.value.retry_s) == (429, 1)


async def test_without_a_replica_calls_wait_for_as_long_as_they_may(dispatcher):
    door = Door(dispatcher, ScaledClock(100.0), DoorLimits(wait_s=1.0), lambda *_: None)

    with pytest.raises(Refusal, match="waited for 1 s; no replica is up") as caught:
        await door.enter(view("a"))
    door.stop()

    assert caught.value.status == 503
    assert dispatcher.told == [("dropped", "a")]


async def test_the_dispatcher_is_asked_again_when_it_said(dispatcher, door):
    dispatcher.busy = True
    dispatcher.next_s = ScaledClock().now_s() + 0.01
    waits = entering(door, "a")
    await until_waiting(door, 1)
    dispatcher.busy = None
    seat = await asyncio.wait_for(waits, 5.0)

    assert seat.replica == "r"


@pytest.mark.parametrize("limits", [{"calls": 0}, {"wait_s": 0.0}, {"wait_s": float("nan")}])
def test_limits_that_let_nobody_wait_are_input_errors(limits):
    with pytest.raises(InputError, match="at a door"):
        DoorLimits(**limits)
