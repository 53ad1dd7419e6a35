"""Runs beside the comparison: cells by workload and pressure, in each of them named runs."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.programs import results
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
    cells: dict[str, dict[str, list[Run]]] = {}
    for seed in range(options.seeds):
        for workload in options.workloads.split(","):
            for pressure in map(float, options.pressures.split(",")):
                clean = Scenario(
                    workload=workload,
                    replicas=options.replicas,
                    pressure=pressure,
                    half=options.half,
                )
                cell = cells.setdefault(clean.name, {})
                for name, system_name, system, scenario in wanted(clean):
                    run = known.get((options.half, scenario.name, system_name, seed))
                    if run is None:
                        run = measure(system_name, system, scenario, seed)
                        results.add(path, run)
                        line = f"{scenario.name} seed {seed} {system_name}: {run.task_s:.0f} s"
                        print(line, file=sys.stderr, flush=True)
                    cell.setdefault(name, []).append(run)
    return cells
