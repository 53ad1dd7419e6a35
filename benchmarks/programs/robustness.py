"""A system in trouble, over itself when all is well: python -m benchmarks.programs.robustness

In trouble: clients say nothing (``unhinted``), all that is known ahead (``hinted``), or what holds
for others (``misled``); news is 1 s late (``late``); the gateway restarts (``restart``); a replica
is lost for 300 s (``loss``). Gaps drawn with other coefficients of variation (``cv0.5`` and so on)
are another load, so they are told over an unspread one (``cv1``) too. See ``trouble.py``.

Needs SCEPSY_DATA. Results are JSON lines; what is there is not run again without ``--again``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks.programs import tables
from benchmarks.programs.measure import Run
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.side_runs import Wanted, parser, run_cells
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
    asked = parser("benchmarks.programs.robustness", workloads="swe,coding")
    asked.add_argument("--system", default="ours")
    options = asked.parse_args()

    def wanted(clean: Scenario) -> Iterator[Wanted]:
        for name, scenario in variants(clean).items():
            yield name, options.system, find_system(options.system), scenario

    print(table(run_cells(options, "robustness.jsonl", wanted)))


if __name__ == "__main__":
    main()
