"""Without each mechanism, and each one alone: python -m benchmarks.programs.ablation

The mechanisms are the switches of ``scepsy.policy.dispatch_settings.Settings``, levels of work
at the door, and a bound on being passed over there. Shares are between tenants: where there is one,
they change nothing (``python -m benchmarks.programs.tenants`` has ten).

Needs SCEPSY_DATA. Results are JSON lines; what is there is not run again without ``--again``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from benchmarks.programs import tables
from benchmarks.programs.measure import Run
from benchmarks.programs.scenario import Scenario
from benchmarks.programs.side_runs import Wanted, parser, run_cells
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
    options = parser("benchmarks.programs.ablation", workloads="swe,coding,chat").parse_args()

    def wanted(scenario: Scenario) -> Iterator[Wanted]:
        for name, system in systems().items():
            yield name, name, system, scenario

    print(table(run_cells(options, "ablation.jsonl", wanted)))


if __name__ == "__main__":
    main()
