"""Run every benchmark, each in a process of its own: python -m benchmarks [name ...].

Their JSON lines go to stdout, names and times to stderr. One that fails does not stop the others.
Those that take hours run only when they are named.
"""

import subprocess
import sys
from pathlib import Path
from time import perf_counter

FOLDER = Path(__file__).parent
MACHINERY = {
    "__init__",
    "__main__",
    "host",
    "process",
    "retention_replay",
    "search_results",
    "vllm_cost",
    "vllm_replay",
}

HOURS = {"random_allocations", "vllm_eviction"}
"""Not among all: 10,000 random allocations in nine scenarios; and a vLLM of 2 GB to install."""


def names() -> list[str]:
    """All benchmarks, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in MACHINERY)


def run(name: str) -> bool:
    """Run one and say on stderr how it went."""
    start = perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    done = subprocess.run(command, check=False, cwd=FOLDER.parent)
    verdict = "ok" if done.returncode == 0 else f"FAILED ({done.returncode})"
    print(f"{name}: {verdict}, {perf_counter() - start:.1f} s", file=sys.stderr)
    return done.returncode == 0


def main(wanted: list[str]) -> int:
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    went_well = [run(name) for name in wanted or [each for each in known if each not in HOURS]]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
