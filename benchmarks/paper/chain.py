"""One system on one workload and cluster, from low rates to high ones; a file of results for each.

At each rate the system's configurations are simulated on the training executions, on a seed kept
for tuning; the best of them again on a second one, those of ours behind other policies as well, and
the best of these on two more; the best there is evaluated, on executions and seeds that it was not
chosen on. From the first rate on at which none keeps up, none is simulated.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, sqrt
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper.measure import Ceiling, Latency, Run, Window, measure
from benchmarks.paper.settings import Part, Setting
from benchmarks.paper.systems import Candidate, Reference, candidates, reference
from benchmarks.paper.variants import Variant, find_variant
from benchmarks.paper.workloads import Workload, streams
from scepsy.model.plan import Allocation
from scepsy.model.workflow import WorkflowName
from scepsy.sim.arrivals import Stream

_KEPT = 3
"""Configurations that get to the next round of tuning."""
_FEW = 2
"""That are simulated on the last seeds, beside the best behind each allocation."""
_SLACK = 1.25
"""Times as slow as the best few may be what gets to the last seeds."""
_TUNED = (0.3, 0.6, 1.0, 1.0)
"""Executions of the rounds of tuning, as parts of those of evaluation."""
_WARM_UP = 0.5
"""Executions that come before those that count, as a part of them."""
_TIMES = 2.0
"""Executions that count arrive over at least so many times the expected mean latency."""
_PATIENCE = 4.0
"""Times the expected 95th percentile: after them a system does not keep up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What is evaluated in one go."""

    part: Part
    workload: str
    gpus: int
    system: str
    variant: str = ""
    """What differs between planning and evaluation; see ``variants``."""
    loads: tuple[float, ...]
    seeds: tuple[int, ...]
    size: float = 1.0
    """On counts of executions."""

    @property
    def name(self) -> str:
        """Of its file."""
        words = [self.part, self.workload, str(self.gpus), self.system, self.variant]
        return "-".join(word.replace(" ", "_") for word in words if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A system at a rate."""

    part: str
    workload: str
    gpus: int
    system: str
    variant: str
    load: float
    """Part of the capacity that the planner expects of its best plan."""
    rate_per_s: float
    """Of all workflows together."""
    candidates: int
    chosen: str
    """What was chosen, in words; empty where none keeps up."""
    runs: tuple[Run, ...]
    """By seed; none where none keeps up."""

    @property
    def keeps_up(self) -> bool:
        """On every seed."""
        return bool(self.runs) and not any(run.saturated for run in self.runs)


def run_chain(
    chain: Chain,
    setting: Setting,
    workload: Workload,
    path: Path,
    tell: Callable[[Point], None] = lambda _: None,
) -> None:
    """Evaluate what is not in the chain's file yet, and add it, rate by rate."""
    done = read_points(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    loads = [load for load in chain.loads if load not in {point.load for point in done}]
    is_hopeless = any(not point.runs for point in done)
    with path.open("a", encoding="utf-8") as file:
        for point in _points(chain, setting, workload, loads, is_hopeless):
            file.write(json.dumps(asdict(point)) + "\n")
            file.flush()
            tell(point)


def read_points(path: Path) -> list[Point]:
    """The results in a file; a line that broke off is left out."""
    if not path.exists():
        return []
    *lines, broken = path.read_text("utf-8").split("\n")
    if broken:
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    points = (_point(json.loads(line)) for line in dict.fromkeys(lines))
    return sorted(points, key=lambda point: point.load)


def _point(row: dict[str, object]) -> Point:
    runs = [
        Run(**{**run, "latencies": tuple(Latency(**each) for each in run["latencies"])})
        for run in row["runs"]  # type: ignore[attr-defined]
    ]
    return Point(**{**row, "runs": tuple(runs)})  # type: ignore[arg-type]


def _points(
    chain: Chain,
    setting: Setting,
    workload: Workload,
    loads: Sequence[float],
    is_hopeless: bool,
) -> Iterator[Point]:
    variant = find_variant(chain.variant)
    expected = reference(workload.task(setting.gpu, chain.gpus, 1.0))
    tester = _Tester(chain, setting, workload, variant, expected)
    for load in loads:
        factor = load * expected.factor
        evaluated = sum(r.rate_per_s for r in variant.rates(workload.rates(factor)))
        point = Point(
            part=chain.part,
            workload=chain.workload,
            gpus=chain.gpus,
            system=chain.system,
            variant=chain.variant,
            load=load,
            rate_per_s=evaluated,
            candidates=0,
            chosen="",
            runs=(),
        )
        if not is_hopeless:
            point = tester.tested(point, factor)
            is_hopeless = not point.runs
        yield point


class _Scored(NamedTuple):
    value: float
    """Relative latency; infinite where it does not keep up."""
    less_ended_per_s: float
    candidate: Candidate


class _Tester:
    """Tunes and evaluates a system at a rate."""

    def __init__(
        self,
        chain: Chain,
        setting: Setting,
        workload: Workload,
        variant: Variant,
        expected: Reference,
    ) -> None:
        self._chain = chain
        self._setting = setting
        self._workload = workload
        self._variant = variant
        self._expected = expected
        self._size = setting.size * chain.size
        self._least = workload.setting.executions * sqrt(chain.gpus / 4)

    def tested(self, point: Point, factor: float) -> Point:
        """The point with the figures of what was chosen; without where none keeps up."""
        task = self._workload.task(self._setting.gpu, self._chain.gpus, factor)
        true = self._variant.true(task)
        told = self._variant.told(true)
        found = candidates(self._chain.system, told)
        best = self._tuned(found, factor)
        if best is None:
            return replace(point, candidates=len(found))
        system = best.make_for(true)
        arriving = streams(
            self._variant.executions(self._workload), self._variant.rates(true.rates)
        )
        window = self._window(factor, 1.0)
        runs = tuple(measure(system, arriving, window, seed) for seed in self._chain.seeds)
        return replace(point, candidates=len(found), chosen=best.system.note, runs=runs)

    def _tuned(self, found: Sequence[Candidate], factor: float) -> Candidate | None:
        """The best on the seeds for tuning; None where none keeps up on the first of them.

        If one of them keeps up on the first seed and none later, the one that serves most there.
        """
        rates = self._variant.told_rates(self._workload.rates(factor))
        arriving = streams(self._workload.training, rates)
        first = self._round(found, arriving, factor, 0)
        if not first or first[0].value == inf:
            return None
        kept = [each.candidate for each in first if each.value < inf][:_KEPT]
        left = [one for each in kept for one in (each, *each.others)]
        if len(left) == 1:
            return left[0]
        second = self._round(left, arriving, factor, 1)
        if second[0].value == inf or not second[0].candidate.is_own:
            return second[0].candidate
        return self._last(second, arriving, factor)

    def _last(
        self, second: Sequence[_Scored], arriving: Sequence[Stream], factor: float
    ) -> Candidate:
        """Of the best few, and the best behind each allocation, by the second seed and two more."""
        by_allocation: dict[Allocation | None, _Scored] = {}
        for each in second:
            by_allocation.setdefault(each.candidate.system.allocation, each)
        finalists = dict.fromkeys((*second[:_FEW], *by_allocation.values()))
        values = {each.candidate: _TUNED[1] * each.value for each in finalists if each.value < inf}
        for number, part in enumerate(_TUNED[2:], start=2):
            for each in self._round(list(values), arriving, factor, number):
                values[each.candidate] += part * each.value
        return min(values, key=values.__getitem__)

    def _round(
        self, left: Sequence[Candidate], arriving: Sequence[Stream], factor: float, number: int
    ) -> list[_Scored]:
        """Best first; of those that do not get to the next round some are given up."""
        scale_s = self._scale_s()
        excess = {demand.workflow: demand.likely_excess for demand in self._workload.demands}
        busier = [_busier(each, excess) for each in arriving]
        seed, window = self._setting.tuning_seeds[number], self._window(factor, _TUNED[number])
        scored: list[_Scored] = []
        for candidate in left:
            known = sorted(each.value for each in scored)
            ceiling = _ceiling(candidate, known, number, scale_s)
            run = measure(candidate.system, arriving, window, seed, ceiling)
            value = run.relative(scale_s)
            if candidate.is_cautious and value < inf:
                value = (value + self._at_busier(candidate, busier, window, seed)) / 2
            scored.append(_Scored(value, -run.ended_per_s, candidate))
        return sorted(scored, key=itemgetter(0, 1))

    def _at_busier(
        self, candidate: Candidate, arriving: Sequence[Stream], window: Window, seed: int
    ) -> float:
        """At more load; executions that do not end take as long as is waited for them."""
        scale_s = self._scale_s()
        waited = sum(window.patience_s / each_s for each_s in scale_s.values()) / len(scale_s)
        return min(waited, measure(candidate.system, arriving, window, seed).relative(scale_s))

    def _window(self, factor: float, part: float) -> Window:
        """What counts at a rate, or so large a part of it."""
        mean_s = {each.workflow: each.execution_s_mean for each in self._expected.latencies}
        under_way = sum(
            rate.rate_per_s * mean_s[rate.workflow] for rate in self._workload.rates(factor)
        )
        executions = max(8, round(part * self._size * max(self._least, _TIMES * under_way)))
        return Window(
            executions=executions,
            warm_up=round(max(_WARM_UP * executions, under_way)),
            patience_s=_PATIENCE * max(e.execution_s_p95 for e in self._expected.latencies),
        )

    def _scale_s(self) -> Mapping[WorkflowName, float]:
        """Expected mean latency of each workflow: a scale, no more."""
        return {each.workflow: each.execution_s_mean for each in self._expected.latencies}


def _ceiling(
    candidate: Candidate, known: Sequence[float], number: int, scale_s: Mapping[WorkflowName, float]
) -> Ceiling | None:
    """Beyond what a candidate does not get on from a round; of the last round all is wanted."""
    wanted = 1 if number and not candidate.is_own else _KEPT
    if number > 1 or len(known) < wanted or known[wanted - 1] == inf:
        return None
    slack = _SLACK if number and candidate.is_own else 1.0
    return Ceiling(known[wanted - 1] * slack, scale_s)


def _busier(stream: Stream, excess: Mapping[WorkflowName, float]) -> Stream:
    more = 1 + excess[stream.scripts[0].workflow]
    return replace(stream, rate_per_s=stream.rate_per_s * more)
