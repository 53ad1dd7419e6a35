"""What the search benchmark found, and how it gets into the docs: tables and a picture."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.host import cpu_model
from benchmarks.process import Process

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PAGE, PICTURE = "planner-benchmarks.md", "search-growth.svg"
BEGIN = "<!-- search: written by `python -m benchmarks.search --docs` -->"
END = "<!-- search: end -->"
BUSY_LOAD = 0.5
"""Load average from which on the machine is not called quiet."""
_MIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one size must keep to."""

    llms: int
    gpus: int
    search_s: float
    peak_bytes: int | None = None
    """Of the whole process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Medians for one size."""

    llms: int
    gpus: int
    repeats: int
    search_s: float
    """Profiles to the best allocation, before placement."""
    search_cpu_s: float
    """CPU time of it: less where other work takes the machine's cores."""
    plan_s: float
    """Profiles to a plan: placement and prediction included."""
    plan_cpu_s: float
    above_bound: float
    """The plan's objective over the least that any allocation could have, less 1."""
    process: Process | None = None
    """A whole `scepsy plan`, files to file."""


def met(target: Target, got: Measured) -> bool:
    """Whether a size keeps to its target; the process, where it was measured, in memory too."""
    within = target.peak_bytes is None or (
        got.process is not None and got.process.peak_bytes <= target.peak_bytes
    )
    return got.search_s <= target.search_s and within


def write_page(
    sizes: Sequence[tuple[Target, Measured]],
    by_llms: Sequence[Measured],
    by_gpus: Sequence[Measured],
    load: float,
    folder: Path = REFERENCE,
) -> None:
    """Replace the page's part on the search, and the picture.

    Args:
        sizes: those with a target.
        by_llms: more and more LLMs on as many GPUs.
        by_gpus: as many LLMs on more and more GPUs.
        load: the machine's load average before the benchmark began.
        folder: where page and picture are.

    Raises:
        ValueError: the page has not the two marks.
    """
    page = folder / PAGE
    lines = [*_machine(load), *_targets(sizes), *_growth(by_llms, by_gpus)]
    part = "\n".join((BEGIN, *lines, END))
    marks = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    text, count = marks.subn(lambda _: part, page.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{page} must have `{BEGIN}` and `{END}` once")
    page.write_text(text, encoding="utf-8")
    (folder / PICTURE).write_text(_picture(by_llms, by_gpus), encoding="utf-8")


def _machine(load: float) -> Iterator[str]:
    at = datetime.now(UTC)
    state = "quiet" if load < BUSY_LOAD else "**busy with other work**"
    yield ""
    yield (
        f"Measured on {at.day} {at:%B %Y}: {cpu_model()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, numpy {version('numpy')}; the machine was {state} "
        f"(load average {load:.1f} before)."
    )


def _targets(sizes: Sequence[tuple[Target, Measured]]) -> Iterator[str]:
    yield f"Medians of {sizes[0][1].repeats}:"
    yield ""
    yield (
        "| LLMs / GPUs | target | search | | its CPU time | plan | its CPU time "
        "| process | its CPU time | its peak memory | plan above the bound |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for target, got in sizes:
        assert got.process is not None
        limit = _time(target.search_s)
        if target.peak_bytes is not None:
            limit += f", {target.peak_bytes / _MIB:,.0f} MiB"
        yield (
            f"| {_size(got)} | {limit} | {_time(got.search_s)} "
            f"| {'met' if met(target, got) else '**missed**'} | {_time(got.search_cpu_s)} "
            f"| {_time(got.plan_s)} | {_time(got.plan_cpu_s)} "
            f"| {_time(got.process.wall_s)} | {_time(got.process.cpu_s)} "
            f"| {got.process.peak_bytes / _MIB:,.0f} MiB | {100 * got.above_bound:.2g} % |"
        )


def _growth(by_llms: Sequence[Measured], by_gpus: Sequence[Measured]) -> Iterator[str]:
    yield ""
    yield f"Growth of the CPU time, medians of {by_llms[0].repeats}:"
    yield ""
    yield f"![CPU seconds by LLMs and by GPUs, both axes logarithmic]({PICTURE})"
    yield ""
    yield "| LLMs / GPUs | search | plan | plan above the bound |"
    yield "|---|---|---|---|"
    for got in (*by_llms, *by_gpus):
        yield (
            f"| {_size(got)} | {_time(got.search_cpu_s)} | {_time(got.plan_cpu_s)} "
            f"| {100 * got.above_bound:.2g} % |"
        )
    yield ""


def _size(got: Measured) -> str:
    return f"{got.llms} / {got.gpus:,}"


def _time(seconds: float) -> str:
    """Two digits: 19 ms, 0.43 s, 8.4 s, 31 s."""
    if seconds < 0.0995:
        return f"{1e3 * seconds:.2g} ms"
    return f"{seconds:.2f} s" if seconds < 0.995 else f"{float(f'{seconds:.2g}'):g} s"


def _picture(by_llms: Sequence[Measured], by_gpus: Sequence[Measured]) -> str:
    """An SVG, the same for the same figures."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, points, name, title in (
        (left, by_llms, "LLMs", f"on {by_llms[0].gpus:,} GPUs"),
        (right, by_gpus, "GPUs", f"for {by_gpus[0].llms} LLMs"),
    ):
        sizes = [getattr(point, name.lower()) for point in points]
        axes.loglog(sizes, [p.search_cpu_s for p in points], marker="o", label="search")
        axes.loglog(sizes, [p.plan_cpu_s for p in points], marker="s", label="plan")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set(xlabel=name, title=title)
        axes.grid(alpha=0.3)
    left.set_ylabel("CPU time (s)")
    left.legend(loc="upper left")
    text = StringIO()
    with mpl.rc_context({"svg.hashsalt": "scepsy", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
