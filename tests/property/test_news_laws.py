"""A dispatcher that hears everything late serves everything all the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.policy.dispatch import AtOnce, Dispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.news import Informed, Late
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.records import as_recorded_execution
from tests.property.made_up_scenes import Scene, scenes
from tests.property.test_dispatch_laws import Watched, served

pytestmark = pytest.mark.no_cover


@given(scenes(), st.sampled_from([0.01, 1.0, 100.0]), st.sampled_from([ByProgram, AtOnce]))
@settings(max_examples=30, deadline=None)
def test_no_call_is_lost_or_sent_twice_on_old_news(
    scene: Scene, delay_s: float, make: type[ByProgram | AtOnce]
) -> None:
    made: list[Watched] = []

    def late() -> Dispatcher:
        made.append(Watched(Informed(make(), Late(delay_s))))  # type: ignore[arg-type]
        return made[-1]

    found = served(scene, ProgramFleet(scene.groups, make_dispatcher=late))

    assert sorted(each.number for each in found) == list(range(len(scene.arrivals)))
    for each in made:
        assert each.sent == each.arrivals
        assert not each.waiting


@given(scenes())
@settings(max_examples=20, deadline=None)
def test_news_that_comes_at_once_changes_nothing(scene: Scene) -> None:
    first, second = (
        [
            as_recorded_execution(each)
            for each in served(scene, ProgramFleet(scene.groups, make_dispatcher=make))
        ]
        for make in (ByProgram, lambda: Informed(ByProgram(), Late(0.0)))
    )
    assert first == second
