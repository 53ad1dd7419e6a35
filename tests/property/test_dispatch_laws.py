"""Laws of dispatchers in whole simulations."""

import pytest
from hypothesis import given, settings

from scepsy.policy.dispatch import AtOnce
from scepsy.policy.route import POLICIES
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.records import as_recorded_execution
from tests.property.made_up_scenes import Scene, scenes

pytestmark = pytest.mark.no_cover


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_a_dispatcher_that_sends_at_once_is_the_router_it_asks(scene: Scene) -> None:
    make = POLICIES[scene.route]
    late = ProgramFleet(scene.groups, make_dispatcher=lambda: AtOnce(make()))

    now, then = scene.served(scene.fleet()), scene.served(late)

    assert [as_recorded_execution(each) for each in now] == [
        as_recorded_execution(each) for each in then
    ]
    assert late.waiting_calls == 0
