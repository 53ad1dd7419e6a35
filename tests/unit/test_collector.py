"""How often Python looks for cycles."""

import gc
from collections.abc import Iterator

import pytest

from scepsy.collector import YOUNG_OBJECTS, collect_rarely


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_cycles_are_looked_for_seldom_but_are() -> None:
    gc.set_threshold(700, 10, 10)
    collect_rarely()
    assert gc.get_threshold() == (YOUNG_OBJECTS, 10, 10)
    assert gc.isenabled()
