"""What the names of policies stand for."""

import pytest

from scepsy.errors import UnknownNameError
from scepsy.policy.by_name import PROGRAMS, SERVED, find_dispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.program_table import Limits
from scepsy.policy.route import POLICIES


def test_programs_are_served_by_a_dispatcher_for_each_llm_of_engines_that_ask_nobody() -> None:
    make = find_dispatcher(PROGRAMS, limits=Limits(gap_s=7.0))
    assert make is not None
    first, second = make(), make()

    assert isinstance(first, ByProgram)
    assert first is not second
    assert first.settings == SERVED
    assert not first.settings.engines_ask
    assert first.programs.limits.gap_s == 7.0


def test_settings_are_those_that_are_given() -> None:
    make = find_dispatcher(PROGRAMS, Settings(patience=3.0))
    assert make is not None
    made = make()

    assert isinstance(made, ByProgram)
    assert made.settings.patience == 3.0


@pytest.mark.parametrize("name", POLICIES)
def test_routers_need_no_dispatcher(name: str) -> None:
    assert find_dispatcher(name) is None


def test_an_unknown_policy_is_told_with_those_that_come_close() -> None:
    with pytest.raises(UnknownNameError, match="unknown routing policy `program`") as caught:
        find_dispatcher("program")

    assert PROGRAMS in str(caught.value.hint)
