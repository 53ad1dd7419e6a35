"""Durations and sizes, read and written at the edge."""

import pytest

from scepsy.errors import InputError
from scepsy.units import format_bytes, format_duration, parse_bytes, parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        (" 250 ms ", 0.25),
        ("2m", 120.0),
        ("2min", 120.0),
        ("1.5h", 5400.0),
        ("5e2us", 5e-4),
        (".5s", 0.5),
    ],
)
def test_reads_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-5s", "5 days", "1.2.3s", "nan", "inf", "1e999s"])
def test_refuses_what_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration") as caught:
        parse_duration_s(text)
    assert caught.value.hint == "write it like 30s, 250ms or 2m"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (12.34e-6, "12.3 us"),
        (0.0009999, "1000 us"),
        (0.2504, "250 ms"),
        (0.9999, "1000 ms"),
        (30.04, "30 s"),
        (119.9, "120 s"),
        (600, "10 min"),
        (7200, "2 h"),
        (3600 * 54321, "54321 h"),
        (-1.5, "-1.5 s"),
        (float("inf"), "inf s"),
    ],
)
def test_writes_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1010, "1010 B"),
        (1536, "1.5 KiB"),
        (80 * 1024**3, "80 GiB"),
        (3 * 1024**4, "3 TiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_writes_sizes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("100", 100), ("100B", 100), (" 1.5 KiB ", 1536), ("32MiB", 32 * 1024**2), ("2GiB", 2**31)],
)
def test_reads_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "3 MB", "lots", f"{'9' * 400}B"])
def test_refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="is not a size") as caught:
        parse_bytes(text)
    assert caught.value.hint == "write it like 512KiB, 32MiB or 2GiB"
