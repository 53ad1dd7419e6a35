"""Parse and format quantities at the edge. Inside, there are only base units: s, bytes, tokens."""

import re

from scepsy.errors import InputError

GIB = 1024**3

_DURATION_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-z]*)\s*")


def parse_duration_s(text: str) -> float:
    """Seconds in ``30s``, ``250ms``, ``2m``, ``1h``; a bare number is seconds.

    Raises:
        InputError: not a number with a known unit.
    """
    match = _DURATION.fullmatch(text)
    unit = (match[2] or "s") if match else ""
    if match is None or unit not in _DURATION_S:
        raise InputError(f"`{text}` is not a duration", hint="write it like 30s, 250ms or 2m")
    return float(match[1]) * _DURATION_S[unit]


def format_duration(seconds: float) -> str:
    """Three significant digits in the unit a person would choose."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def format_bytes(count: float) -> str:
    """Three significant digits in KiB, MiB, GiB or TiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
