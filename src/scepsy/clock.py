"""Where time comes from. The pure rings are given instants; only the edges own a clock.

Emulated engines can run faster than the silicon they stand for. Everything around them (gateway,
load, recorder) then reads the same scaled clock, so that every stored second is a second of the
emulated system, never of the machine that emulates it.
"""

import time
from dataclasses import dataclass, field
from typing import Protocol

from scepsy.errors import InputError


class Clock(Protocol):
    """Seconds that never run back. The origin is arbitrary but fixed for the process."""

    def now_s(self) -> float:
        """Give the current instant (s)."""
        ...


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """A clock that runs ``speedup`` times faster than the machine's.

    Its origin is the Unix epoch scaled, so instants from different processes of one machine with
    the same ``speedup`` can be compared.
    """

    speedup: float = 1.0
    _offset_s: float = field(default_factory=lambda: time.time() - time.monotonic(), repr=False)

    def __post_init__(self) -> None:
        if not self.speedup > 0:
            raise InputError(f"speedup {self.speedup} must be > 0")

    def now_s(self) -> float:
        """Give the current instant (s of the scaled system)."""
        return (time.monotonic() + self._offset_s) * self.speedup

    def real_s(self, scaled_s: float) -> float:
        """Real seconds that a scaled duration takes: what to sleep."""
        return scaled_s / self.speedup
