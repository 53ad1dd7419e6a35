"""Surfaces rise where the law says so, and leave alone what rises already."""

import numpy as np
import pytest

from scepsy.profiles.silicon_fit.surface import (
    CONCURRENCIES,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    POINTS,
    SHAPE,
    rising_surface,
)


def test_what_rises_already_is_unchanged_and_read_exactly_at_knots_and_between() -> None:
    calls, tokens, given = np.log(np.array(POINTS, dtype=np.float64)).T
    surface = rising_surface(0.5 * calls + tokens - given, calls + 0.1 * tokens + given)

    ttft_s, decode_s = surface.times_s(CONCURRENCIES[3], INPUT_TOKENS[2], OUTPUT_TOKENS[4])
    assert ttft_s == pytest.approx(8**0.5 * INPUT_TOKENS[2] / OUTPUT_TOKENS[4])
    ttft_s, decode_s = surface.times_s(12, 1500, 700)
    assert ttft_s == pytest.approx(12**0.5 * 1500 / 700)
    assert decode_s == pytest.approx(12 * 1500**0.1 * 700)


def test_beyond_the_lattice_the_outermost_cells_continue() -> None:
    calls, tokens, given = np.log(np.array(POINTS, dtype=np.float64)).T
    surface = rising_surface(tokens, calls + given)

    ttft_s, decode_s = surface.times_s(20_000, 100_000, 20)
    assert ttft_s == pytest.approx(100_000)
    assert decode_s == pytest.approx(20_000 * 20)


def test_a_dip_is_levelled_midway() -> None:
    values = np.zeros(SHAPE)
    values[2] = -1.0
    surface = rising_surface(values.ravel(), values.ravel())

    assert surface.ttft[:, 0, 0].tolist() == [-0.5, -0.5, -0.5] + [0.0] * (SHAPE[0] - 3)


def test_only_the_time_of_output_tokens_must_rise_with_them() -> None:
    falling = -np.log(np.array(POINTS, dtype=np.float64))[:, 2]
    surface = rising_surface(falling, falling)

    assert surface.ttft[0, 0, 0] > surface.ttft[0, 0, -1]
    assert surface.decode[0, 0, 0] == pytest.approx(surface.decode[0, 0, -1])
