"""How a benchmark reports: one JSON line that says what it ran on."""

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from scepsy import __version__

PACKAGES = ("aiohttp", "numpy", "orjson")
"""Those whose version moves the figures."""


def cpu_model() -> str:
    """The processor's name, as far as the system tells."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.machine())


def best_s(once: Callable[[], float], repeats: int) -> float:
    """The least of some runs (s): noise on a machine only ever adds time."""
    return min(once() for _ in range(repeats))


def report(bench: str, *, repeats: int, seed: int | None = None, **figures: object) -> None:
    """Print the benchmark's line."""
    host = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "scepsy": __version__,
    }
    packages = {name: version(name) for name in PACKAGES}
    line = {"bench": bench, **figures, "repeats": repeats, "seed": seed, **host, **packages}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
