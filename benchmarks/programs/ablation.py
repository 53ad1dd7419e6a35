"""Without each mechanism, and each one alone: python -m benchmarks.programs.ablation

The mechanisms are the switches of ``scepsy.policy.dispatch_settings.Settings``, levels of work
at the door, and a bound on being passed over there. Shares are between tenants: where there is one,
they change nothing (``python -m benchmarks.programs.tenants`` has ten).

Needs SCEPSY_DATA. Results are JSON lines; what is there is not run again without ``--again``.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.programs import results, tables
from benchmarks.programs.measure import Run, measure
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.sessions import HALVES
from benchmarks.programs.systems import SYSTEMS, System
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings

OURS, NONE = "ours", "none"
NEVER_S = 1e9
"""A bound that is none."""


def mechanisms(settings: Settings) -> dict[str, Settings]:
    """Of each that is on, the settings without it."""
    switches = [each.name for each in fields(Settings) if each.type is bool]
    found = {
        name: replace(settings, **{name: False})  # type: ignore[arg-type]
        for name in switches
        if getattr(settings, name)
    }
    found["levels"] = replace(settings, level_ratio=1.0)
    found["bound"] = replace(settings, least_bound_s=NEVER_S)
    return found


def alone(settings: Settings) -> dict[str, Settings]:
    """Of each that is on, the settings with no other; and with none."""
    without = mechanisms(settings)
    off: dict[str, object] = {name: False for name in without if hasattr(settings, name)}
    off |= {"level_ratio": 1.0, "least_bound_s": NEVER_S}
    none = replace(settings, **off)  # type: ignore[arg-type]
    found = {NONE: none}
    for name in without:
        field = {"levels": "level_ratio", "bound": "least_bound_s"}.get(name, name)
        found[name] = replace(none, **{field: getattr(settings, field)})
    return found


def systems() -> dict[str, System]:
    """By name."""
    whole = SYSTEMS[OURS].dispatcher()
    assert isinstance(whole, ByProgram)
    without, only = mechanisms(whole.settings), alone(whole.settings)
    return (
        {OURS: SYSTEMS[OURS]}
        | {f"without {name}": _with(each) for name, each in without.items()}
        | {NONE: _with(only.pop(NONE))}
        | {f"{name} alone": _with(each) for name, each in only.items()}
    )


def _with(settings: Settings) -> System:
    ours = SYSTEMS[OURS]
    asks = {"retention": ours.retention} if settings.engines_ask else {}
    return System(dispatcher=lambda: ByProgram(settings), order=ours.order, **asks)


def table(cells: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """A line for each system: task time over that of all mechanisms, and tails."""
    kinds = " | ".join(f"{cell}, p99 TTFT" for cell in cells)
    lines = [f"| | {kinds} |", "|---|" + "---|" * len(cells)]
    for name in next(iter(cells.values())):
        shown = []
        for by_system in cells.values():
            over = tables.slower(by_system[name], by_system[OURS])
            _, ttft = tables.tails_over(by_system[name], by_system[OURS])
            spread = f" ± {over.half:.2f}" if over.half else ""
            shown.append(f"{over.value:.2f}{spread}, {ttft:.2f}")
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs.ablation")
    parser.add_argument("--workloads", default="swe,coding,chat")
    parser.add_argument("--pressures", default="1,4")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--half", choices=HALVES, default="tuning")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="run also what is there")
    parser.add_argument("--out", type=Path, default=Path("programs-out"))
    options = parser.parse_args()
    path = options.out / "ablation.jsonl"
    known = {} if options.again else results.read(path)
    cells: dict[str, dict[str, list[Run]]] = {}
    for seed in range(options.seeds):
        for workload in options.workloads.split(","):
            for pressure in map(float, options.pressures.split(",")):
                each = Scenario(
                    workload=workload,
                    replicas=options.replicas,
                    pressure=pressure,
                    half=options.half,
                )
                for name, system in systems().items():
                    run = known.get((options.half, each.name, name, seed))
                    if run is None:
                        run = measure(name, system, each, seed)
                        results.add(path, run)
                        line = f"{each.name} seed {seed} {name}: {run.task_s:.0f} s"
                        print(line, file=sys.stderr, flush=True)
                    cells.setdefault(each.name, {}).setdefault(name, []).append(run)
    print(table(cells))


if __name__ == "__main__":
    main()
