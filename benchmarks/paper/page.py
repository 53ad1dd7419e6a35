"""The page of the evaluation: tables between markers, figures beside it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.paper import tables
from benchmarks.paper.chain import Point
from benchmarks.paper.figures import PEAKS, pictures
from benchmarks.paper.measure import quantile
from benchmarks.paper.results import SLO_FACTORS, fields
from benchmarks.paper.settings import WORKLOADS, Part, Setting
from benchmarks.paper.systems import OURS
from benchmarks.paper.tables import Fields
from benchmarks.paper.workloads import PARTS, Files
from scepsy.model.execution import Execution
from scepsy.traces.store import SqliteTraceStore

DOCS = Path(__file__).parents[2] / "docs" / "reference"
PAGE, FIGURES = "evaluation.md", "evaluation"
_NOT_YET = "Not in these results."
_MARK = "<!-- {name}: written by `make paper` -->"
_END = "<!-- {name}: end -->"


def sections(setting: Setting, files: Files, points: Sequence[Point]) -> Mapping[str, str]:
    """Name and text of every generated part of the page."""
    main = fields(points, Part.MAIN)
    side = _side(points)
    compared, no_slower, surely_slower = tables.count_compared(main)
    found = {
        "setting": _setting(setting),
        "workloads": _workloads(files, dict.fromkeys(point.workload for point in points)),
        "peaks": tables.peaks(main),
        "loose-peaks": tables.peaks(main, SLO_FACTORS[1]),
        "latencies": tables.latencies(main),
        "published": tables.published(main),
        "beaten": (
            f"Of {compared} comparisons at rates that both keep up with, ours is no slower "
            f"(within 1 %) in {no_slower}; in {surely_slower} the interval says that it is.\n\n"
            f"{tables.beaten(main)}"
        ),
    }
    found["figures"] = _figures(main)
    found["ablation"] = tables.ablation(side) if side else _NOT_YET
    for name, part in (("sharing", Part.SHARING), ("wrong", Part.WRONG), ("drift", Part.DRIFT)):
        there = any(point.part == part for point in points)
        found[name] = tables.variants(points, part, main) if there else _NOT_YET
    large = fields(points, Part.LARGE)
    found["large"] = tables.latencies(large) if large else _NOT_YET
    found["chosen"] = _chosen(points)
    return found


def _figures(main: Fields) -> str:
    """The figures of latency against throughput."""
    names = [name for name in pictures(main) if name != PEAKS]
    return "\n".join(f"![{Path(name).stem}]({FIGURES}/{name})" for name in names)


def _side(points: Sequence[Point]) -> Fields:
    """Ours without a part, beside ours as in the main part, at the rates of the former."""
    without = [point for point in points if point.part == Part.ABLATION]
    at = {(point.workload, point.gpus, point.load) for point in without}
    whole = [
        point
        for point in points
        if point.part == Part.MAIN
        and point.system == OURS
        and (point.workload, point.gpus, point.load) in at
    ]
    return fields(
        [replace(point, part=Part.ABLATION) for point in (*whole, *without)], Part.ABLATION
    )


def _setting(setting: Setting) -> str:
    return (
        f"Setting `{setting.name}`: {len(setting.seeds)} seeds of arrivals "
        f"({', '.join(map(str, setting.seeds))}), tuned on seeds "
        f"{setting.tuning_seeds[0]} and {setting.tuning_seeds[1]}; loads "
        f"{', '.join(f'{load:.0%}' for load in setting.loads)}."
    )


def _workloads(files: Files, names: Iterable[str]) -> str:
    header = ["workload", "executions", "calls of one", "the most used LLM's", "LLMs"]
    header += ["unloaded, s"]
    rows = []
    workflows = dict.fromkeys(w for name in names for w in WORKLOADS[name].rates)
    for workflow in workflows:
        executions = [each for part in PARTS for each in _read(files.recording(workflow, part))]
        llms = sorted({call.llm for each in executions for call in each.calls})
        most = max(llms, key=lambda llm: sum(c.llm == llm for e in executions for c in e.calls))
        rows.append(
            [
                WORKLOADS[workflow].title,
                str(len(executions)),
                _range([float(len(each.calls)) for each in executions]),
                f"{_range([float(_calls(each, most)) for each in executions])} ({most})",
                ", ".join(llms),
                _range([each.execution_s for each in executions]),
            ]
        )
    return tables.table(header, rows)


def _read(path: Path) -> tuple[Execution, ...]:
    with SqliteTraceStore.open(path, create=False) as store:
        return tuple(store.executions(with_blocks=False))


def _calls(execution: Execution, llm: str) -> int:
    return sum(call.llm == llm for call in execution.calls)


def _range(values: Sequence[float]) -> str:
    """Least, median and largest."""
    ascending = sorted(values)
    found = (ascending[0], quantile(ascending, 0.5), ascending[-1])
    return " / ".join(f"{value:.3g}" for value in found)


def _chosen(points: Sequence[Point]) -> str:
    header = ["workload", "GPUs", "load", "system", "candidates", "chosen"]
    rows = [
        [
            WORKLOADS[point.workload].title,
            str(point.gpus),
            f"{point.load:.0%}",
            point.system,
            str(point.candidates),
            point.chosen or "none keeps up",
        ]
        for point in points
        if point.part == Part.MAIN and point.candidates
    ]
    return tables.table(header, rows)


def write(setting: Setting, files: Files, points: Sequence[Point], *, docs: bool) -> Path:
    """Write tables and figures: into the documentation, or beside the results; give the page."""
    made = dict(sections(setting, files, points))
    folder = files.folder
    (folder / "chosen.md").write_text(made.pop("chosen") + "\n", "utf-8")
    if docs:
        folder = DOCS
        page = folder / PAGE
        text = page.read_text("utf-8")
    else:
        page = folder / PAGE
        text = "".join(f"## {name}\n\n{_between(name, '')}\n\n" for name in made)
    for name, section in made.items():
        text = filled(text, name, section)
    page.write_text(text, "utf-8")
    (folder / FIGURES).mkdir(exist_ok=True)
    for name, svg in pictures(fields(points, Part.MAIN)).items():
        (folder / FIGURES / name).write_text(svg, "utf-8")
    return page


def filled(text: str, name: str, section: str) -> str:
    """A page with one part exchanged; unchanged where the page does not have that part."""
    begin, end = _MARK.format(name=name), _END.format(name=name)
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return between.sub(lambda _: _between(name, section), text)


def _between(name: str, section: str) -> str:
    return f"{_MARK.format(name=name)}\n{section}\n{_END.format(name=name)}"
