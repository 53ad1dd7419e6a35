"""The clock of an emulated system runs faster than the machine's."""

import time

import pytest

from scepsy.clock import ScaledClock
from scepsy.errors import InputError


def test_a_scaled_clock_runs_faster_by_its_speedup() -> None:
    real, fast = ScaledClock(), ScaledClock(1000.0)
    real_start_s, fast_start_s = real.now_s(), fast.now_s()
    while real.now_s() - real_start_s < 0.002:
        pass
    fast_s, real_s = fast.now_s() - fast_start_s, real.now_s() - real_start_s
    assert 1.99 <= fast_s <= 1000 * real_s + 0.01


def test_two_clocks_of_one_speedup_agree() -> None:
    """So that instants of different processes can be compared."""
    one, other = ScaledClock(10.0), ScaledClock(10.0)
    assert one.now_s() == pytest.approx(other.now_s(), abs=0.5)
    assert ScaledClock().now_s() == pytest.approx(time.time(), abs=0.5)


def test_a_scaled_duration_takes_less_real_time() -> None:
    assert ScaledClock(20.0).real_s(5.0) == 0.25


@pytest.mark.parametrize("speedup", [0.0, -1.0, float("nan")])
def test_refuses_a_speedup_that_is_not_positive(speedup: float) -> None:
    with pytest.raises(InputError, match="must be > 0"):
        ScaledClock(speedup)
