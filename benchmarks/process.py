"""Run a command, print its seconds, CPU seconds and peak memory: python -m benchmarks.process ...

In a process of its own, and a small one: Linux counts what a parent holds as its child's peak.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float
    """Of all its threads, in user and kernel mode."""
    peak_bytes: int
    """Most memory that it held at once."""


def measured(command: Sequence[str]) -> Process:
    """Run a command to its end.

    Raises:
        CalledProcessError: it failed.
    """
    here = [sys.executable, "-m", "benchmarks.process", *command]
    root = Path(__file__).parent.parent
    done = subprocess.run(here, check=True, stdout=subprocess.PIPE, cwd=root)
    return Process(**json.loads(done.stdout))


def main(command: Sequence[str]) -> int:
    start = perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    wall_s = perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024
    took = Process(
        wall_s=wall_s, cpu_s=used.ru_utime + used.ru_stime, peak_bytes=used.ru_maxrss * unit
    )
    print(json.dumps(asdict(took)))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
