"""Real seconds until `scepsy --help` has ended: what every use of the command line costs."""

import subprocess
import sys
from time import perf_counter

from benchmarks.host import best_s, report

REPEATS = 5


def once() -> float:
    start = perf_counter()
    subprocess.run([sys.executable, "-m", "scepsy", "--help"], check=True, capture_output=True)
    return perf_counter() - start


if __name__ == "__main__":
    report("command_start", repeats=REPEATS, help_s=round(best_s(once, REPEATS), 3))
