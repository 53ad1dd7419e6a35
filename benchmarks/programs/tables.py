"""Runs as tables in Markdown: means over seeds, with 95 % confidence intervals."""

import re
from collections.abc import Callable, Iterable, Sequence
from math import exp, log

from benchmarks.paper.statistics import Mean, mean_of
from benchmarks.programs.measure import Run, percentile

BASE, FIRST_COME = "vllm-affinity", "fcfs"
_WITH_HOST = f"{BASE}, with host memory"
_HOST = re.compile(r"-host[\d.]+")

Figure = Callable[[Run], float]


def by_cell(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Scenario, system, and its runs by seed."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        found.setdefault(run.scenario, {}).setdefault(run.system, []).append(run)
    return found


def pooled_p99_s(runs: Sequence[Run]) -> float:
    """Of the tasks of all seeds."""
    return percentile([task_s for run in runs for task_s in run.tasks_s], 0.99)


def cell(runs: dict[str, list[Run]]) -> str:
    """One scenario, a line for each system."""
    lines = [
        "| system | task time (s) | p99 task (s) | TTFT (s) | p99 TTFT (s) | executions/h "
        "| computed | recomputed GiB/call | recomputed s/call | computed over Belady's |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for system, own in runs.items():
        late = sum(run.unfinished for run in own)
        lines.append(
            f"| {system} | {_shown(_mean(own, lambda r: r.task_s))}{_late(late)} "
            f"| {pooled_p99_s(own):,.0f} "
            f"| {_mean(own, lambda r: r.ttft_s).value:.2f} "
            f"| {_mean(own, lambda r: r.ttft_p99_s).value:.1f} "
            f"| {_shown(_mean(own, lambda r: 3600 * r.executions_per_s))} "
            f"| {_mean(own, lambda r: r.computed_fraction).value:.1%} "
            f"| {_mean(own, lambda r: r.recomputed_gib_per_call).value:.2f} "
            f"| {_mean(own, lambda r: r.recomputed_s_per_call).value:.2f} "
            f"| {_over_belady(own)} |"
        )
    return "\n".join(lines)


def _over_belady(runs: Sequence[Run]) -> str:
    """Tokens and seconds, of the seeds for which it is known."""
    tokens = [run.misses_over_belady for run in runs if run.misses_over_belady is not None]
    seconds = [run.seconds_over_belady for run in runs if run.seconds_over_belady is not None]
    return f"{mean_of(tokens).value:.2f}, {mean_of(seconds).value:.2f}" if tokens else ""


def faster(runs: dict[str, list[Run]], system: str, base: str) -> Mean | None:
    """By what factor tasks take less than under another system, of the same seeds."""
    pairs = _pairs(runs, system, base)
    if not pairs:
        return None
    logs = mean_of([log(b.task_s / a.task_s) for a, b in pairs])
    value = exp(logs.value)
    return Mean(value, value * (exp(logs.half) - 1), logs.count)


def slower(runs: Sequence[Run], base: Sequence[Run]) -> Mean:
    """By what factor tasks take longer than in other runs, of the same seeds."""
    bases = {run.seed: run.task_s for run in base}
    logs = mean_of([log(run.task_s / bases[run.seed]) for run in runs if run.seed in bases])
    value = exp(logs.value)
    return Mean(value, value * (exp(logs.half) - 1), logs.count)


def tails_over(runs: Sequence[Run], base: Sequence[Run]) -> tuple[float, float]:
    """p99 of task time and TTFT over those of other runs."""
    return pooled_p99_s(runs) / pooled_p99_s(base), _p99_ttft_s(runs) / _p99_ttft_s(base)


def tail(
    runs: dict[str, list[Run]], system: str, base: str, figure: Callable[[Sequence[Run]], float]
) -> float | None:
    """A tail over that of another system, of the same seeds."""
    pairs = _pairs(runs, system, base)
    if not pairs:
        return None
    return figure([a for a, _ in pairs]) / figure([b for _, b in pairs])


def over_workloads(
    cells: dict[str, dict[str, list[Run]]], systems: Sequence[str], base: str = BASE
) -> str:
    """Geometric means over the workloads of cells that differ in the workload alone."""
    kinds: dict[str, list[dict[str, list[Run]]]] = {}
    for name, runs in cells.items():
        kinds.setdefault(name.partition("-")[2], []).append(runs)
    lines = ["| cells (workloads) | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    for kind, each in kinds.items():
        shown = []
        for system in systems:
            found = [ratio for runs in each if (ratio := faster(runs, system, base))]
            whole = len(found) == len(each)
            shown.append(f"{_geometric([r.value for r in found]):.2f}" if whole else "")
        lines.append(f"| {kind} ({len(each)}) | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def with_host(cells: dict[str, dict[str, list[Run]]]) -> dict[str, dict[str, list[Run]]]:
    """Those in which engines offload KV to host memory."""
    return {name: runs for name, runs in cells.items() if _HOST.search(name)}


def over_bare(cells: dict[str, dict[str, list[Run]]], systems: Sequence[str]) -> str:
    """As ``over_workloads``, over the base without host memory, of cells with it."""
    found = {}
    for name, runs in with_host(cells).items():
        bare = cells.get(_HOST.sub("", name), {})
        if BASE in bare:
            found[name] = {system: own for system, own in runs.items() if system != BASE}
            found[name] |= {_WITH_HOST: runs.get(BASE, []), BASE: bare[BASE]}
    return over_workloads(found, [_WITH_HOST if each == BASE else each for each in systems])


def tails(cells: dict[str, dict[str, list[Run]]], systems: Sequence[str]) -> str:
    """Worst p99 of task time and TTFT over first-come-first-served's, of all cells."""
    lines = ["| system | p99 task, worst | p99 TTFT, worst | cells |", "|---|---|---|---|"]
    for system in systems:
        task = [t for runs in cells.values() if (t := tail(runs, system, FIRST_COME, pooled_p99_s))]
        ttft = [t for runs in cells.values() if (t := tail(runs, system, FIRST_COME, _p99_ttft_s))]
        if task and ttft:
            lines.append(f"| {system} | {max(task):.2f} | {max(ttft):.2f} | {len(task)} |")
    return "\n".join(lines)


def _p99_ttft_s(runs: Sequence[Run]) -> float:
    return sum(run.ttft_p99_s for run in runs) / len(runs)


def _pairs(runs: dict[str, list[Run]], system: str, base: str) -> list[tuple[Run, Run]]:
    bases = {run.seed: run for run in runs.get(base, ())}
    return [(run, bases[run.seed]) for run in runs.get(system, ()) if run.seed in bases]


def _mean(runs: Sequence[Run], figure: Figure) -> Mean:
    return mean_of([figure(run) for run in runs])


def _geometric(values: Sequence[float]) -> float:
    return exp(sum(map(log, values)) / len(values))


def shown(runs: Sequence[Run], figure: Figure = lambda run: run.task_s, *, digits: int = 0) -> str:
    """A figure of theirs: task time (s), where no other is asked for."""
    return _shown(_mean(runs, figure), digits)


def _shown(mean: Mean, digits: int = 0) -> str:
    value = f"{mean.value:,.{digits}f}"
    return value if mean.count < 2 else f"{value} ± {mean.half:,.{digits}f}"


def _late(count: int) -> str:
    return f" ({count} unfinished)" if count else ""
