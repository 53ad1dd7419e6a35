"""The generated parts of docs/reference/programs.md."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.programs import tables
from benchmarks.programs.measure import Run
from benchmarks.programs.scenario import WORKLOADS, Scenario, demand
from benchmarks.programs.sessions import HALVES, workload

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "programs.md"
_BEGIN = "<!-- {name}: written by `{command}` -->"
_END = "<!-- {name}: end -->"


def write(runs: Iterable[Run], systems: Sequence[str]) -> Path:
    """Put tables of all runs of some systems into the page."""
    return put(sections(runs, systems), "python -m benchmarks.programs --page")


def put(parts: Mapping[str, str], command: str) -> Path:
    """Replace the parts of the page that a command writes, each between its marks."""
    text = PAGE.read_text()
    for name, part in parts.items():
        begin, end = _BEGIN.format(name=name, command=command), _END.format(name=name)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text)
    return PAGE


def sections(runs: Iterable[Run], systems: Sequence[str]) -> Mapping[str, str]:
    """Of each marked part its text."""
    by_half: dict[str, list[Run]] = {}
    for run in runs:
        if run.system in systems:
            by_half.setdefault(run.half, []).append(run)
    results = [_results(half, by_half[half], systems) for half in HALVES if half in by_half]
    return {"workloads": _workloads(), "results": "\n\n".join(results)}


def _workloads() -> str:
    lines = [
        "| workload, half | executions | calls each | prompt tokens | answer | gap (s) "
        "| life on h100 (s) | needs KV tokens | users at pressure 1, 4 replicas |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in WORKLOADS:
        for half in HALVES:
            scripts = workload(name, half).scripts
            calls = [call for script in scripts for call in script.segment.calls]
            needs = demand(name, "h100", half)
            lines.append(
                f"| `{name}`, {half} | {len(scripts)} | {len(calls) / len(scripts):.1f} "
                f"| {fmean(call.prompt_tokens for call in calls):,.0f} "
                f"| {fmean(call.output_tokens for call in calls):.0f} "
                f"| {fmean(call.after_s for call in calls):.1f} "
                f"| {needs.life_s:.0f} | {needs.live_tokens:,.0f} "
                f"| {Scenario(workload=name, half=half).users} |"
            )
    return "\n".join(lines)


def _results(half: str, runs: Sequence[Run], systems: Sequence[str]) -> str:
    cells = tables.by_cell(runs)
    seeds = sorted({len({run.seed for run in each}) for c in cells.values() for each in c.values()})
    shown = [name for name in systems if any(name in cell for cell in cells.values())]
    parts = [
        f"### On the `{half}` half",
        f"{len(runs)} runs, {_span(seeds)} seeds a cell. Cells are named by workload, GPU type, "
        "replicas and pressure.",
        f"**Task time of `{tables.BASE}` over that of the system**, geometric mean over the "
        "workloads (how many) at each pressure; more is better:",
        tables.over_workloads(cells, shown),
    ]
    hosted = tables.with_host(cells)
    if hosted:
        parts += [
            f"**Task time of `{tables.BASE}` without host memory** over that of the system with "
            "it:",
            tables.over_bare(cells, shown),
        ]
    bare = {name: cell for name, cell in cells.items() if name not in hosted}
    for kind, some in (("without", bare), ("with", hosted)):
        if some:
            parts += [
                f"**Tails** over those of `{tables.FIRST_COME}`, the worst of all cells {kind} "
                "host memory; less is better:",
                tables.tails(some, shown),
            ]
    for name, cell in cells.items():
        ordered = {system: cell[system] for system in shown if system in cell}
        users = next(iter(ordered.values()))[0].users
        parts += [f"**{name}**, {users} users", tables.cell(ordered)]
    return "\n\n".join(parts)


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
