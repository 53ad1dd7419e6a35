"""Runs beside the comparison: cells by workload and pressure, in each of them named runs."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.programs import results, scenario
from benchmarks.programs.measure import Run, measure
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.sessions import HALVES
from benchmarks.programs.systems import System

Wanted = tuple[str, str, System, Scenario]
"""What a run is called in its cell, its system by name, and what is run."""


def parser(module: str, *, workloads: str) -> argparse.ArgumentParser:
    """Of the options that all of them have."""
    found = argparse.ArgumentParser(prog=f"python -m {module}")
    found.add_argument("--workloads", default=workloads)
    found.add_argument("--pressures", default="1,4")
    found.add_argument("--replicas", type=int, default=4)
    found.add_argument("--host-gib", default="0", help="offloaded KV, a replica")
    found.add_argument("--half", choices=HALVES, default="tuning")
    found.add_argument("--seeds", type=int, default=1)
    found.add_argument("--again", action="store_true", help="run also what is there")
    found.add_argument("--out", type=Path, default=Path("programs-out"))
    return found


def run_cells(
    options: argparse.Namespace, file: str, wanted: Callable[[Scenario], Iterable[Wanted]]
) -> dict[str, dict[str, list[Run]]]:
    """By cell and name, a run for each seed; what is in the file is not run again."""
    path = options.out / file
    known = {} if options.again else results.read(path)
    grid = scenario.grid(
        workloads=options.workloads.split(","),
        replicas=(options.replicas,),
        pressures=_numbers(options.pressures),
        half=options.half,
        host_gib=_numbers(options.host_gib),
    )
    cells: dict[str, dict[str, list[Run]]] = {cell: {} for cell in grid}
    for seed in range(options.seeds):
        for cell, clean in grid.items():
            for name, system_name, system, each in wanted(clean):
                run = known.get((options.half, each.name, system_name, seed))
                if run is None:
                    run = measure(system_name, system, each, seed)
                    results.add(path, run)
                    line = f"{each.name} seed {seed} {system_name}: {run.task_s:.0f} s"
                    print(line, file=sys.stderr, flush=True)
                cells[cell].setdefault(name, []).append(run)
    return cells


def _numbers(text: str) -> Sequence[float]:
    return [float(each) for each in text.split(",")]
