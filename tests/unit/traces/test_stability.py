import math
import random

import pytest

from scepsy.traces.stability import estimate, stability, t_quantile


def test_the_interval_of_a_mean_is_students():
    """2, 4, 6: mean 4, sd 2, t(2) = 4.303: 4 +- 4.97, cut at 0."""
    found = estimate([2.0, 4.0, 6.0])

    assert (found.mean, found.low) == (4.0, 0.0)
    assert found.high == pytest.approx(4 + 4.303 * 2 / math.sqrt(3))


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(5, 2.571), (15, 2.131), (30, 2.042), (120, 1.980)]
)
def test_quantiles_are_those_of_the_tables(degrees, quantile):
    assert t_quantile(degrees) == pytest.approx(quantile, rel=1e-3)


def test_one_execution_settles_nothing():
    found = stability([3.0], [1.0])

    assert found.busy_s.error_fraction == math.inf
    assert not found.is_settled


def test_as_many_executions_as_it_asks_for_settle_it():
    rng = random.Random(1)
    few = [rng.uniform(0, 10) for _ in range(30)]

    asked = stability(few, [0.5] * 30)
    enough = round(asked.executions_needed * 1.2)
    more = stability([rng.uniform(0, 10) for _ in range(enough)], [0.5] * enough)

    assert not asked.is_settled
    assert asked.executions_needed > 100
    assert more.is_settled


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = random.Random(2)
    kept = 0
    for _ in range(400):
        found = estimate([rng.gauss(10, 4) for _ in range(12)])
        kept += found.low <= 10 <= found.high
    assert 0.92 < kept / 400 < 0.98


def test_halves_that_disagree_are_seen_and_chance_is_not():
    rng = random.Random(3)
    steady = [rng.gauss(10, 1) for _ in range(40)]

    assert not stability(steady, [0.5] * 40).halves_differ
    drifted = stability(steady[:20] + [value * 1.3 for value in steady[20:]], [0.5] * 40)
    assert drifted.halves_differ
    assert not drifted.is_settled


def test_a_stage_that_never_takes_time_is_settled():
    found = stability([0.0] * 20, [0.0] * 20)

    assert found.busy_s.error_fraction == 0.0
    assert found.is_settled
