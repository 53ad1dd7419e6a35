"""The learned residual: what it says near, far, and of groups that it is asked to forget."""

import numpy as np
import pytest

from scepsy.errors import InputError
from scepsy.profiles.silicon_fit.closed_loop import Array
from scepsy.profiles.silicon_fit.kernel import NAMES, QUANTITIES, Kernel, Places
from scepsy.profiles.silicon_fit.residual import fit_residual

KERNEL = Kernel(
    names=(1.0,) * len(NAMES),
    quantities=(0.1,) * len(QUANTITIES),
    amplitudes=(0.2, 0.05),
    rates=(0.3, 2.0),
    common=0.04,
    noise=0.002,
)


def places(names: list[int], quantities: list[float]) -> Places:
    return Places(
        np.array([[name] * len(NAMES) for name in names], dtype=np.int64),
        np.array([[quantity] * len(QUANTITIES) for quantity in quantities]),
    )


def some(count: int, seed: int = 0) -> tuple[Places, Array]:
    rng = np.random.default_rng(seed)
    where = places(rng.integers(0, 3, count).tolist(), rng.normal(0, 1, count).tolist())
    return where, rng.normal(0, 0.3, count)


def test_a_measured_place_is_known_but_for_noise_and_a_far_one_is_not() -> None:
    where = places([0, 0, 0], [0.0, 1.0, 2.0])
    fitted = fit_residual(KERNEL, where, np.array([0.3, 0.4, 0.5]), rounds=0)

    assert fitted.mean(where) == pytest.approx([0.3, 0.4, 0.5], abs=0.03)
    near, far = fitted.deviation(places([0, 9], [1.0, 60.0]))
    assert near < 0.07
    assert far > 0.9 * np.sqrt(KERNEL.variance)


def test_forgetting_a_group_is_fitting_without_it() -> None:
    where, values = some(30)
    groups = np.arange(30) // 7
    means, deviations = fit_residual(KERNEL, where, values, rounds=0).without(groups.tolist())

    for group in range(5):
        rows = np.flatnonzero(groups == group)
        others = np.flatnonzero(groups != group)
        refitted = fit_residual(KERNEL, where.take(others), values[others], rounds=0)
        assert refitted.mean(where.take(rows)) == pytest.approx(means[rows])
        assert refitted.deviation(where.take(rows)) == pytest.approx(deviations[rows])


def test_an_outlier_is_believed_less_than_its_neighbours() -> None:
    where = places([0] * 9, [x / 10 for x in range(9)])
    values = np.zeros(9)
    values[4] = 2.0

    trusting = fit_residual(KERNEL, where, values, rounds=0).mean(where)[4]
    doubting = fit_residual(KERNEL, where, values, rounds=3)

    assert doubting.mean(where)[4] < trusting / 3
    assert doubting.noise[4] > 100 * KERNEL.noise
    assert doubting.noise[0] == pytest.approx(KERNEL.noise)


def test_distance_adds_what_differs() -> None:
    here, there = places([0], [0.0]), places([1], [2.0])

    expected = len(NAMES) + 0.1 * 4 * len(QUANTITIES)
    assert KERNEL.distance(here, there)[0, 0] == pytest.approx(expected)
    assert KERNEL.distance(here, here)[0, 0] == pytest.approx(0)


def test_a_kernel_needs_a_weight_for_each_difference() -> None:
    with pytest.raises(InputError, match="weight"):
        Kernel(
            names=(1.0,),
            quantities=KERNEL.quantities,
            amplitudes=(1.0,),
            rates=(1.0,),
            common=0.1,
            noise=0.1,
        )
    with pytest.raises(InputError, match="rate"):
        Kernel(
            names=KERNEL.names,
            quantities=KERNEL.quantities,
            amplitudes=(1.0,),
            rates=(1.0, 2.0),
            common=0.1,
            noise=0.1,
        )
