"""Serving systems on recorded agent sessions: python -m benchmarks.programs --systems fcfs,ours

Needs SCEPSY_DATA, the folder of the recorded sessions. Results are JSON lines; what is there
already is not run again, unless its system is named in --again. Tables go to stdout, or
with --page to docs/reference/programs.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.programs import page, results, tables
from benchmarks.programs.measure import measure
from benchmarks.programs.scenario import PRESSURES, WORKLOADS, Scenario, grid
from benchmarks.programs.sessions import HALVES
from benchmarks.programs.systems import SYSTEMS, find_system


def main() -> None:
    options = _options()
    path = options.out / "runs.jsonl"
    known = results.read(path)
    cells = grid(
        workloads=options.workloads,
        gpus=options.gpus,
        replicas=options.replicas,
        pressures=options.pressures,
        half=options.half,
        gap_cvs=options.gap_cvs,
        loses=options.loses,
        host_gib=options.host_gib,
    )
    systems = {name: find_system(name) for name in options.systems}
    wanted = []
    for seed in range(options.seeds):
        for scenario in cells.values():
            for name, system in systems.items():
                wanted.append((options.half, scenario.name, name, seed))
                if wanted[-1] in known and name not in options.again:
                    continue
                run = measure(name, system, scenario, seed, belady=options.belady)
                results.add(path, run)
                known[results.key(run)] = run
                _tell(scenario, name, seed, run.task_s, run.cpu_s)
    if options.page:
        own = [run for run in known.values() if run.half == options.half]
        print(f"wrote {page.write(own, options.systems)}", file=sys.stderr)
        return
    found = tables.by_cell(known[each] for each in wanted)
    for name, runs in found.items():
        print(f"\n{name}\n\n{tables.cell(runs)}")
    print(f"\ntask time of {tables.BASE} over that of the system\n")
    print(tables.over_workloads(found, options.systems))
    print(f"\ntails over those of {tables.FIRST_COME}\n")
    print(tables.tails(found, options.systems))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__)
    parser.add_argument("--workloads", type=_names, default=WORKLOADS)
    parser.add_argument("--gpus", type=_names, default=("h100",))
    parser.add_argument("--replicas", type=_counts, default=(4,))
    parser.add_argument("--pressures", type=_numbers, default=PRESSURES)
    parser.add_argument("--systems", type=_names, default=tuple(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("--gap-cvs", type=_numbers, default=(None,), help="draw gaps anew")
    parser.add_argument("--loses", action="store_true", help="a replica is lost for a time")
    parser.add_argument("--host-gib", type=_numbers, default=(0.0,), help="offloaded KV, a replica")
    parser.add_argument("--again", type=_names, default=(), help="systems to run anew")
    parser.add_argument("--belady", action="store_true", help="compare with Belady's optimum")
    parser.add_argument("--page", action="store_true", help="write all runs of the half to it")
    parser.add_argument("--out", type=Path, default=Path("programs-out"))
    return parser.parse_args()


def _names(text: str) -> Sequence[str]:
    return text.split(",")


def _counts(text: str) -> Sequence[int]:
    return [int(each) for each in text.split(",")]


def _numbers(text: str) -> Sequence[float]:
    return [float(each) for each in text.split(",")]


def _tell(scenario: Scenario, system: str, seed: int, task_s: float, cpu_s: float) -> None:
    line = f"{scenario.name:24} {system:24} seed {seed}  task {task_s:8.1f} s  cpu {cpu_s:5.1f} s"
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
