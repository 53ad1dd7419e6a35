"""SLOs as a person writes them."""

import pytest

from scepsy.errors import InputError
from scepsy.model.slo import Slo, Statistic, parse_slo


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("p95 <= 30s", Slo(Statistic.P95, 30.0)),
        ("  execution mean<=250ms ", Slo(Statistic.MEAN, 0.25)),
        ("p50 <= 2m", Slo(Statistic.P50, 120.0)),
        ("p99 <= 7", Slo(Statistic.P99, 7.0)),
    ],
)
def test_reads_slos(text: str, slo: Slo) -> None:
    assert parse_slo(text) == slo
    assert parse_slo(str(slo)) == slo


@pytest.mark.parametrize(
    "text", ["", "p95 < 30s", "p90 <= 30s", "p95 <= soon", "30s", "p95 <= -1s"]
)
def test_refuses_other_forms(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_slo(text)
    assert caught.value.hint


def test_refuses_a_bound_of_zero() -> None:
    with pytest.raises(InputError, match="bound must be > 0"):
        parse_slo("p95 <= 0s")
