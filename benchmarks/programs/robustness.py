"""A system in trouble, over itself when all is well: python -m benchmarks.programs.robustness

In trouble: clients say nothing (``unhinted``), all that is known ahead (``hinted``), or what holds
for others (``misled``); news is 1 s late (``late``); the gateway restarts (``restart``); a replica
is lost for 300 s (``loss``). Gaps drawn with other coefficients of variation (``cv0.5`` and so on)
are another load, so they are told over an unspread one (``cv1``) too. See ``trouble.py``.

Needs SCEPSY_DATA. Results are JSON lines; what is there is not run again without ``--again``.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.programs import results, tables
from benchmarks.programs.measure import Run, measure
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.sessions import HALVES
from benchmarks.programs.systems import find_system
from benchmarks.programs.trouble import TROUBLES

CLEAN, PLAIN_GAPS = "clean", "cv1"
GAP_CVS = (0.5, 1.0, 3.0)
ALLOWED = 1.10
"""Task time in trouble over that without."""


def variants(clean: Scenario) -> dict[str, Scenario]:
    """By name; the first is without trouble."""
    found = {CLEAN: clean}
    found |= {name: replace(clean, trouble=name) for name in TROUBLES}
    found["loss"] = replace(clean, loses=True)
    return found | {f"cv{cv:g}": replace(clean, gap_cv=cv) for cv in GAP_CVS}


def table(found: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """Of each cell its variants: task time and tail over those without trouble."""
    lines = [
        "| cell | variant | task time (s) | over clean | over gaps of cv 1 | p99 task over clean "
        "| p99 TTFT over clean | unfinished | within 10 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, by_variant in found.items():
        for name, runs in by_variant.items():
            is_other_load = name.startswith("cv")
            over = tables.slower(runs, by_variant[CLEAN])
            over_plain = tables.slower(runs, by_variant[PLAIN_GAPS]) if is_other_load else None
            judged = over_plain or over
            task, ttft = tables.tails_over(runs, by_variant[CLEAN])
            lines.append(
                f"| {cell} | {name} | {tables.shown(runs)} | {_ratio(over.value, over.half)} "
                f"| {'' if over_plain is None else _ratio(over_plain.value, over_plain.half)} "
                f"| {task:.2f} | {ttft:.2f} | {sum(run.unfinished for run in runs)} "
                f"| {'yes' if judged.value <= ALLOWED else '**no**'} |"
            )
    return "\n".join(lines)


def _ratio(value: float, half: float) -> str:
    return f"{value:.3f} ± {half:.3f}" if half else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs.robustness")
    parser.add_argument("--system", default="ours")
    parser.add_argument("--workloads", default="swe,coding")
    parser.add_argument("--pressures", default="1,4")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run also what is there")
    parser.add_argument("--out", type=Path, default=Path("programs-out"))
    options = parser.parse_args()
    path = options.out / "robustness.jsonl"
    known = {} if options.again else results.read(path)
    found: dict[str, dict[str, list[Run]]] = {}
    for seed in range(options.seeds):
        for workload in options.workloads.split(","):
            for pressure in map(float, options.pressures.split(",")):
                clean = Scenario(
                    workload=workload,
                    replicas=options.replicas,
                    pressure=pressure,
                    half=options.half,
                )
                cell = found.setdefault(clean.name, {})
                for name, scenario in variants(clean).items():
                    run = known.get((options.half, scenario.name, options.system, seed))
                    if run is None:
                        run = measure(options.system, find_system(options.system), scenario, seed)
                        results.add(path, run)
                        line = f"{scenario.name} seed {seed}: {run.task_s:.0f} s"
                        print(line, file=sys.stderr, flush=True)
                    cell.setdefault(name, []).append(run)
    print(table(found))


if __name__ == "__main__":
    main()
