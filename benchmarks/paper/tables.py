"""The tables of the evaluation, as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite

from benchmarks.paper.chain import Point
from benchmarks.paper.results import SLO_FACTORS, Field, Peak
from benchmarks.paper.settings import WORKLOADS, Part
from benchmarks.paper.statistics import Mean, mean_of
from benchmarks.paper.systems import OURS

Fields = Mapping[tuple[str, int], Field]

PUBLISHED: Mapping[tuple[str, str, int], tuple[float, float | None]] = {
    ("multiplexed", "beam_search", 4): (7.3, 14.1),
    ("multiplexed", "beam_search", 8): (6.8, 12.9),
    ("multiplexed", "rag_rerank", 4): (2.5, 3.4),
    ("multiplexed", "rag_rerank", 8): (2.9, 4.5),
    ("user-given", "beam_search", 4): (3.2, None),
    ("user-given", "beam_search", 8): (8.2, None),
    ("user-given", "rag_rerank", 4): (2.1, None),
    ("user-given", "rag_rerank", 8): (2.4, None),
}
"""The publication's gains over a system of that kind: (throughput, latency) by workload, GPUs."""
_NOISE = 0.01
"""Ratios this near to 1 are no difference."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def peaks(fields: Fields, slo_factor: float = SLO_FACTORS[0]) -> str:
    """Peak rates at an SLO: ours in executions/s, then ours over each other system's."""
    others = _systems(fields)
    header = ["workload", "GPUs", "ours, executions/s", *(f"over {name}" for name in others)]
    rows = []
    for (workload, gpus), field in fields.items():
        own = field.peak(OURS, slo_factor)
        if own is None:
            continue
        cells = (gain(own, field.peak(name, slo_factor)) for name in others)
        rows.append([WORKLOADS[workload].title, str(gpus), peak_text(own), *cells])
    return table(header, rows)


def latencies(fields: Fields) -> str:
    """Mean latency of every system over ours at equal rates; the best of the others is bold."""
    others = _systems(fields)
    header = ["workload", "GPUs", "load", "ours, s", *others]
    rows = []
    for (workload, gpus), field in fields.items():
        for load in field.loads:
            if field.point(OURS, load) is None:
                continue
            runs = field.runs(OURS, load)
            own = mean_of([run.latencies[0].mean_s for run in runs]) if runs else None
            ratios = {name: field.slower(name, load) for name in others}
            known = [ratio.value for ratio in ratios.values() if ratio is not None]
            least = min(known, default=0.0)
            cells = [
                _ratio_cell(ratio, is_best=ratio is not None and ratio.value == least)
                for ratio in ratios.values()
            ]
            title = WORKLOADS[workload].title
            rows.append([title, str(gpus), f"{load:.0%}", seconds(own), *cells])
    return table(header, rows)


def published(fields: Fields) -> str:
    """Gains beside those that the publication reports."""
    header = ["against", "workload", "GPUs", "throughput at the SLO", "published"]
    header += ["latency, largest ratio at a rate both keep up with", "published"]
    rows = []
    for (system, workload, gpus), (rate_gain, latency_gain) in PUBLISHED.items():
        field = fields.get((workload, gpus))
        if field is None or system not in field.systems:
            continue
        ours, other = (field.peak(name, SLO_FACTORS[0]) for name in (OURS, system))
        largest = largest_ratio(field, system)
        rows.append(
            [
                system,
                WORKLOADS[workload].title,
                str(gpus),
                gain(ours, other),
                f"{rate_gain:g}x",
                f"{ratio_text(largest[0])} at {largest[1]:.0%}" if largest else "-",
                f"{latency_gain:g}x" if latency_gain else "not given",
            ]
        )
    return table(header, rows)


def largest_ratio(field: Field, system: str) -> tuple[Mean, float] | None:
    """The largest mean latency over ours, and its load; None where there is no common rate."""
    found = [(r, load) for load in field.loads if (r := field.slower(system, load)) is not None]
    return max(found, key=lambda one: one[0].value, default=None)


def beaten(fields: Fields) -> str:
    """Where another system's mean latency is below ours, beyond noise, or it alone keeps up."""
    rows = list(_beaten(fields))
    if not rows:
        return "Nowhere: at every rate that was looked at, ours is at least as fast as each other."
    header = ["workload", "GPUs", "load", "system", "its mean latency over ours"]
    return table(header, rows)


def _beaten(fields: Fields) -> Iterator[Sequence[str]]:
    for (workload, gpus), field in fields.items():
        where = [WORKLOADS[workload].title, str(gpus)]
        for load in field.loads:
            for name in field.systems:
                ratio = field.slower(name, load)
                if ratio is not None and ratio.value < 1 - _NOISE:
                    yield [*where, f"{load:.0%}", name, ratio_text(ratio)]
                elif field.runs(name, load) and field.lost(OURS, load):
                    yield [*where, f"{load:.0%}", name, "ours does not keep up"]


def count_compared(fields: Fields) -> tuple[int, int, int]:
    """Comparisons of another system with ours at a rate both keep up with.

    Then those in which ours is no slower, and those in which its interval says that it is.
    """
    ratios = [
        ratio
        for field in fields.values()
        for load in field.loads
        for name in field.systems
        if name != OURS and (ratio := field.slower(name, load)) is not None
    ]
    slower = [ratio for ratio in ratios if ratio.value < 1 - _NOISE]
    return len(ratios), len(ratios) - len(slower), sum(ratio.high < 1 for ratio in slower)


def ablation(fields: Fields) -> str:
    """Mean latency without one part over that with all."""
    loads = sorted({load for field in fields.values() for load in field.loads})
    header = ["workload", "GPUs", "without", *(f"at {load:.0%}" for load in loads)]
    rows = [
        [
            WORKLOADS[workload].title,
            str(gpus),
            name.removeprefix("no "),
            *(_kept_up(field, name, load) for load in loads),
        ]
        for (workload, gpus), field in fields.items()
        for name in field.systems
        if name != OURS
    ]
    return table(header, rows)


def _kept_up(field: Field, name: str, load: float) -> str:
    ratio = field.slower(name, load)
    if ratio is not None:
        return ratio_text(ratio)
    return "does not keep up" if field.lost(name, load) else "-"


def variants(points: Sequence[Point], part: Part, baseline: Mapping[tuple[str, int], Field]) -> str:
    """Mean latency under each variant over ours planned with what is right, at equal rates."""
    chosen = [point for point in points if point.part == part]
    loads = sorted({point.load for point in chosen})
    header = ["workload", "GPUs", "what differs", "system", *(f"at {load:.0%}" for load in loads)]
    groups: dict[tuple[str, int, str, str], dict[float, Point]] = {}
    for point in chosen:
        if point.variant:
            key = (point.workload, point.gpus, point.variant, point.system)
            groups.setdefault(key, {})[point.load] = point
    rows = []
    for (workload, gpus, variant, system), by_load in groups.items():
        field = baseline.get((workload, gpus))
        cells = [_variant_cell(by_load.get(load), field, load) for load in loads]
        rows.append([WORKLOADS[workload].title, str(gpus), variant, system, *cells])
    return table(header, rows)


def _variant_cell(point: Point | None, field: Field | None, load: float) -> str:
    if point is None:
        return "-"
    if not point.keeps_up:
        return "does not keep up"
    own = mean_of([run.latencies[0].mean_s for run in point.runs])
    right = field.runs(OURS, load) if field is not None else ()
    if not right:
        return seconds(own)
    ratio = own.value / mean_of([run.latencies[0].mean_s for run in right]).value
    return f"{seconds(own)} ({ratio:.2f}x)"


def peak_text(peak: Peak | None) -> str:
    """A peak rate with its interval."""
    if peak is None:
        return "-"
    if peak.is_bound:
        return f"< {peak.rate_per_s.value:.3g}"
    mark = ">= " if peak.is_reached else ""
    return f"{mark}{peak.rate_per_s.value:.3g} ± {peak.rate_per_s.half:.2g}"


def gain(ours: Peak | None, other: Peak | None) -> str:
    """Our peak over another's; a bound where one of them lies outside the rates looked at."""
    if ours is None or other is None or ours.is_bound:
        return "-"
    if ours.is_reached and other.is_reached:
        return "both above"
    ratio = ours.rate_per_s.value / other.rate_per_s.value
    mark = "> " if ours.is_reached or other.is_bound else "< " if other.is_reached else ""
    return f"{mark}{ratio:.2f}x"


def seconds(mean: Mean | None) -> str:
    """A latency with its interval."""
    if mean is None or not isfinite(mean.value):
        return "does not keep up"
    return f"{mean.value:.3g} ± {mean.half:.2g}"


def ratio_text(ratio: Mean) -> str:
    """A ratio with its interval."""
    return f"{ratio.value:.2f} ± {ratio.half:.2f}"


def _ratio_cell(ratio: Mean | None, *, is_best: bool) -> str:
    if ratio is None:
        return "-"
    return f"**{ratio.value:.2f}**" if is_best else f"{ratio.value:.2f}"


def _systems(fields: Fields) -> list[str]:
    found = dict.fromkeys(name for field in fields.values() for name in field.systems)
    return [name for name in found if name != OURS]
