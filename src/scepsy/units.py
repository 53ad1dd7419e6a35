"""Parse and format quantities at the edge. Inside, there are only base units: s, bytes, tokens."""

import re
from math import isfinite

from scepsy.errors import InputError

GIB = 1024**3

_DURATION_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]*)\s*")
_UNIT_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": GIB, "TiB": 1024**4}
_BYTES = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def parse_duration_s(text: str) -> float:
    """Seconds in ``30s``, ``250ms``, ``2m``, ``1h``; a bare number is seconds.

    Raises:
        InputError: not a number with a known unit.
    """
    match = _DURATION.fullmatch(text)
    unit = (match[2] or "s") if match else ""
    if match is None or unit not in _DURATION_S or not isfinite(float(match[1])):
        raise InputError(f"`{text}` is not a duration", hint="write it like 30s, 250ms or 2m")
    return float(match[1]) * _DURATION_S[unit]


def format_duration(seconds: float) -> str:
    """Three significant digits in the unit a person would choose."""
    size = abs(seconds)
    if size == 0 or not isfinite(size):
        return f"{seconds:g} s"
    if size < 1e-3:
        return f"{_digits(seconds * 1e6)} us"
    if size < 1:
        return f"{_digits(seconds * 1e3)} ms"
    if size < 120:
        return f"{_digits(seconds)} s"
    if size < 7200:
        return f"{_digits(seconds / 60)} min"
    return f"{_digits(seconds / 3600)} h"


def parse_bytes(text: str) -> int:
    """Bytes in ``32MiB``, ``1.5GiB``, ``512KiB``; a bare number is bytes.

    Raises:
        InputError: not a number with a known unit.
    """
    match = _BYTES.fullmatch(text)
    unit = (match[2] or "B") if match else ""
    if match is None or unit not in _UNIT_BYTES or not isfinite(float(match[1])):
        raise InputError(f"`{text}` is not a size", hint="write it like 512KiB, 32MiB or 2GiB")
    return int(float(match[1]) * _UNIT_BYTES[unit])


def format_bytes(count: float) -> str:
    """Three significant digits in B, KiB, MiB, GiB or TiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{_digits(count)} {unit}"
        count /= 1024
    return f"{_digits(count)} TiB"


def _digits(number: float) -> str:
    """Three significant digits; whole numbers from 1000 on, never an exponent there."""
    return f"{number:.0f}" if abs(number) >= 999.5 else f"{number:.3g}"
