"""Copies of one engine that step together."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from scepsy.errors import InputError
from scepsy.profiles.step_time import BatchShape, EngineSpec
from scepsy.sim.engine import EngineCall, Finished, FirstToken
from scepsy.sim.lockstep import LockstepGroup
from tests.property.test_engine_ahead_laws import DyadicTimes


@dataclass(frozen=True)
class GroupTimes(DyadicTimes):
    """A step takes a second for each token of the copy that has most."""

    def group_step_s(self, batches: Sequence[BatchShape]) -> float:
        return float(max(batch.tokens for batch in batches))


SPEC = EngineSpec(times=GroupTimes(), kv_blocks=1000, block_tokens=4)


def call(name: str, prompt: int, output: int) -> EngineCall:
    return EngineCall(id=name, prompt_tokens=prompt, output_tokens=output)


def test_a_copy_waits_for_the_step_of_the_other() -> None:
    group = LockstepGroup(SPEC, 2)
    group.submit(0.0, 0, call("long", 10, 3))
    group.submit(1.0, 1, call("short", 2, 1))

    assert group.next_event_s() == 10
    events = group.advance(100.0)

    # The second copy was idle: it begins at 10, when the first one's prefill ends.
    assert [(type(e), e.call_id, e.at_s) for e in events] == [
        (FirstToken, "long", 10),
        (FirstToken, "short", 12),
        (Finished, "short", 12),
        (Finished, "long", 13),
    ]
    assert group.next_event_s() == float("inf")


def test_calls_that_come_at_once_begin_together() -> None:
    group = LockstepGroup(SPEC, 2)
    group.submit(0.0, 0, call("a", 4, 1))
    group.submit(0.0, 1, call("b", 6, 1))

    events = group.advance(100.0)

    assert {(e.call_id, e.at_s) for e in events if isinstance(e, Finished)} == {("a", 6), ("b", 6)}


def test_every_call_ends_and_every_block_comes_back() -> None:
    group = LockstepGroup(SPEC, 3)
    for index in range(30):
        group.submit(index * 2.5, index % 3, call(str(index), 1 + index % 7, 1 + index % 5))

    ended = [event.call_id for event in group.advance(1e6) if isinstance(event, Finished)]

    assert sorted(ended, key=int) == [str(index) for index in range(30)]
    for one in group.statistics():
        assert (one.running, one.waiting, one.kv_used_blocks) == (0, 0, 0)


def test_step_times_must_be_those_of_a_group() -> None:
    with pytest.raises(InputError, match="group"):
        LockstepGroup(EngineSpec(times=DyadicTimes(), kv_blocks=9), 2)
