"""The best of several allocations by simulation: each is tried a little, the better ones longer.

All are simulated with the same arrivals, so that they differ by themselves and not by chance. After
each round those that are far behind the best leave, and the rest are tried with more calls. From
a winner the search may go on to its neighbours: allocations that differ in a group or two. What
is certain to be no better than what is known already is simulated no further.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from itertools import chain, islice
from math import ceil

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, Prediction, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.route import LeastLoaded, MakeRouter
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Arrival, OpenLoop, Stream
from scepsy.sim.run import ServedExecution, Simulation
from scepsy.sim.script import Script
from scepsy.sim.serve import arriving, fleet_of
from scepsy.sim.specs import SpecOf, check_calls_fit, specs_of
from scepsy.sim.summary import Latency, latency

SIMULATOR = "simulator"
"""What predictions are called whose latencies were simulated."""
ROUNDS = (4_000, 12_000, 36_000)
"""Calls that each candidate is tried with, round by round."""
_KEPT = 1 / 3
"""Part of the candidates that go on to the next round."""
_LEAST_KEPT = 3
_LEAST_EXECUTIONS = 4
_PATIENCE = 10
"""An allocation on which an execution takes so many times as long as long ones were expected to
take is thought not to keep up."""
_CHECKS = 24
"""Times that a simulation is looked at while its executions arrive."""

Latencies = Mapping[WorkflowName, Latency]
Objective = Callable[[Latencies], float]
"""What is made small. Must not fall when an execution takes longer."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An allocation as it was simulated in its last round."""

    allocation: Allocation
    value: float
    """Of the objective; infinite where the allocation does not keep up."""
    calls: int
    """That it was tried with in the last round, about."""
    is_bound: bool = False
    """Whether the value is at least so large: the simulation was given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What candidates are simulated under."""

    scripts: Mapping[WorkflowName, Sequence[Script]]
    """The recorded executions of each workflow that has a rate."""
    expected: Latencies
    """About what a good allocation gives: how long to warm up, how long to wait for a bad one."""
    rates: tuple[WorkflowRate, ...]
    busier: tuple[WorkflowRate, ...] = ()
    """Rates at which candidates are compared as well; not where there are none."""
    spec_of: SpecOf
    objective: Objective
    make_router: MakeRouter = LeastLoaded
    order: OrderPolicy = first_come
    seed: int = 0
    _specs: dict[tuple[object, ...], EngineSpec] = field(default_factory=dict, repr=False)
    _longest: dict[LlmName, int] = field(default_factory=dict, repr=False)

    def rank(
        self, allocation: Allocation, calls: int, beyond: float = float("inf")
    ) -> Ranked | None:
        """An allocation by about so many calls; None where its engines cannot hold them.

        With busier rates the value is the mean of that at the rates and that at those; where it
        does not keep up with those, executions count as long as anyone would wait.

        Args:
            allocation: for the rates.
            calls: of the executions that are counted.
            beyond: the simulation is given up once the value is known to be larger, if it is no
                better at busier rates.
        """
        try:
            value, is_bound = self._run(allocation, calls, beyond)
        except (InfeasibleError, MissingError):
            return None
        if self.busier and not is_bound:
            value, is_bound = self.with_busier(value, allocation, calls, beyond)
        return Ranked(allocation, value, calls, is_bound)

    def with_busier(
        self, value: float, allocation: Allocation, calls: int, beyond: float = float("inf")
    ) -> tuple[float, bool]:
        """What ``rank`` makes of a value that is known at the rates; whether it is a bound."""
        if not self.busier:
            return value, False
        there = replace(self, rates=self.busier, busier=())
        ranked = there.rank(allocation, calls, 2 * beyond - value)
        if ranked is not None and ranked.value < float("inf"):
            return (value + ranked.value) / 2, ranked.is_bound
        long_s = self.patience_s
        forever = Latency(mean_s=long_s, p50_s=long_s, p95_s=long_s, p99_s=long_s)
        return (value + self.objective(dict.fromkeys(self.scripts, forever))) / 2, False

    def latencies(self, allocation: Allocation, calls: int) -> Latencies | None:
        """Of the executions by which an allocation is ranked; None where it does not keep up.

        Raises:
            InfeasibleError: a group's weights do not fit its share of the GPUs.
            MissingError: no step times are known for a group.
        """
        run = _Run(self, allocation, calls)
        while not run.is_over and not run.is_hopeless:
            run.go_on()
        return run.latencies() if run.is_over else None

    def executions(self, calls: int) -> int:
        """How many executions have about so many calls."""
        total_per_s = sum(rate.rate_per_s for rate in self.rates)
        per_execution = sum(
            rate.rate_per_s * _mean([len(s.stages) for s in self.scripts[rate.workflow]])
            for rate in self.rates
        )
        return max(_LEAST_EXECUTIONS, round(calls * total_per_s / per_execution))

    def warm_up(self, executions: int) -> int:
        """Executions that come before: those that run at once, and a quarter of the counted."""
        at_once = sum(r.rate_per_s * self.expected[r.workflow].mean_s for r in self.rates)
        return max(executions // 4, min(executions, ceil(at_once)))

    @property
    def patience_s(self) -> float:
        """An execution that takes longer is on what does not keep up."""
        return _PATIENCE * max(self.expected[rate.workflow].p99_s for rate in self.rates)

    def arrivals(self, executions: int) -> Iterator[Arrival]:
        """Executions without end; about so many are a period, in which rates are exact."""
        streams = [
            Stream(scripts=tuple(self.scripts[rate.workflow]), rate_per_s=rate.rate_per_s)
            for rate in self.rates
        ]
        return arriving(streams, executions=executions, seed=self.seed)

    def simulation(self, allocation: Allocation, arrivals: Iterator[Arrival]) -> Simulation:
        """Nothing has arrived yet."""
        specs = specs_of(allocation, self._spec)
        check_calls_fit(specs, self._longest_calls())
        fleet = fleet_of(allocation, specs, make_router=self.make_router)
        return Simulation(OpenLoop(arrivals), fleet, order=self.order)

    def _longest_calls(self) -> Mapping[LlmName, int]:
        """Tokens of the longest call of each LLM; looked up once."""
        if not self._longest:
            for script in chain.from_iterable(self.scripts.values()):
                for stage, call in zip(script.stages, script.segment.calls, strict=True):
                    tokens = call.prompt_tokens + max(0, call.output_tokens - 1)
                    self._longest[stage.llm] = max(self._longest.get(stage.llm, 1), tokens)
        return self._longest

    def _spec(self, *shape: *tuple[LlmName, GpuTypeName, int, float]) -> EngineSpec:
        """Made once for each shape."""
        if shape not in self._specs:
            self._specs[shape] = self.spec_of(*shape)
        return self._specs[shape]

    def _run(self, allocation: Allocation, calls: int, beyond: float) -> tuple[float, bool]:
        run = _Run(self, allocation, calls)
        while not run.is_over:
            run.go_on()
            if run.is_hopeless:
                return float("inf"), True
            if not run.is_over and beyond < float("inf"):
                least = self.objective(run.latencies())
                if least > beyond:
                    return least, True
        return self.objective(run.latencies()), False


class _Run:
    """One simulation, a stretch of virtual time after the other."""

    def __init__(self, trial: Trial, allocation: Allocation, calls: int) -> None:
        executions = trial.executions(calls)
        self._first = trial.warm_up(executions)
        endless = trial.arrivals(executions)
        head = list(islice(endless, self._first + executions))
        self._counted = head[self._first :]
        self._took_s: dict[int, float] = {}
        self._simulation = trial.simulation(allocation, chain(head, endless))
        self._stretch_s = head[-1].at_s / _CHECKS
        self._now_s = 0.0
        self._patience_s = trial.patience_s

    @property
    def is_over(self) -> bool:
        """Whether all counted executions have ended."""
        return len(self._took_s) == len(self._counted)

    @property
    def is_hopeless(self) -> bool:
        """Whether an execution takes longer than anyone would wait."""
        return any(
            self._now_s - arrival.at_s > self._patience_s
            for at, arrival in enumerate(self._counted)
            if at not in self._took_s
        )

    def go_on(self) -> None:
        """Simulate another stretch."""
        self._now_s += self._stretch_s
        while (next_s := self._simulation.next_s) <= self._now_s and not self.is_over:
            for execution in self._simulation.step(next_s):
                self._see(execution)

    def _see(self, execution: ServedExecution) -> None:
        at = execution.number - self._first
        if 0 <= at < len(self._counted):
            self._took_s[at] = execution.execution_s

    def latencies(self) -> Latencies:
        """Of the counted executions; those that are not over count as long as they have run."""
        by_workflow: dict[WorkflowName, list[float]] = {}
        for at, arrival in enumerate(self._counted):
            took_s = self._took_s.get(at)
            if took_s is None:
                took_s = max(0.0, self._now_s - arrival.at_s)
            by_workflow.setdefault(arrival.script.workflow, []).append(took_s)
        return {name: latency(took_s) for name, took_s in by_workflow.items()}


def always() -> bool:
    """There is no bound on time."""
    return True


def race(
    trial: Trial,
    candidates: Iterable[Allocation],
    *,
    rounds: Sequence[int] = ROUNDS,
    kept: Sequence[int] | None = None,
    beyond: Sequence[float] | None = None,
    go_on: Callable[[], bool] = always,
) -> list[Ranked]:
    """Candidates, best first: those of the last round, then those that left before, by round.

    The first three have values, those that follow may have bounds.

    Args:
        trial: what they are simulated under.
        candidates: distinct allocations for the trial's rates, likely good ones first.
        rounds: calls that each is tried with, round by round.
        kept: how many go on after each round but the last; a third, and three at least, when None.
        beyond: values, round by round, beyond which a candidate is of no interest.
        go_on: asked before each simulation; once it says no there are no more, but for one.
    """
    running = list(candidates)
    left: list[list[Ranked]] = []
    best: list[Ranked] = []
    for at, calls in enumerate(rounds):
        is_last = at == len(rounds) - 1
        most = _LEAST_KEPT if is_last else kept[at] if kept else _third(len(running))
        ceiling = beyond[at] if beyond else float("inf")
        tried = _round(trial, running, calls, most, ceiling, go_on)
        if len(tried) < min(most, len(running)) and best:
            break  # out of time: the round before decides
        best = nsmallest(most, tried, key=_value)
        names = {id(each) for each in best}
        left.append(sorted((each for each in tried if id(each) not in names), key=_value))
        running = [each.allocation for each in best]
    left.append(best)
    return [each for several in reversed(left) for each in several]


def _round(
    trial: Trial,
    running: Sequence[Allocation],
    calls: int,
    most: int,
    ceiling: float,
    go_on: Callable[[], bool],
) -> list[Ranked]:
    """Each simulated until it is certain that so many others are better, or beyond a ceiling."""
    tried: list[Ranked] = []
    least: list[float] = []
    for at, allocation in enumerate(running):
        if not go_on() and at:
            break
        beyond = least[most - 1] if len(least) >= most else float("inf")
        ranked = trial.rank(allocation, calls, min(beyond, ceiling))
        if ranked is not None:
            tried.append(ranked)
            least = sorted((*least, ranked.value))[:most]
    return tried


def climb(
    trial: Trial,
    start: Allocation,
    neighbours: Callable[[Allocation], Iterable[Allocation]],
    *,
    rounds: Sequence[int],
    most: int,
    go_on: Callable[[], bool] = always,
) -> Ranked | None:
    """Go to a better neighbour for as long as there is one, within so many that are tried.

    One is better if it is so in every round: most that are not are found out in the first.

    Args:
        trial: what all are simulated under.
        start: where to begin.
        neighbours: allocations that are nearly the same and fit the cluster, likely good ones
            first: the first better one is gone to.
        rounds: calls that each is tried with, round by round.
        most: neighbours tried at most.
        go_on: asked before each simulation; once it says no there are no more, but for one.

    Returns:
        The best as it was in the last round; None where not even the start can be simulated.
    """
    best = _better(trial, start, rounds, [float("inf")] * len(rounds), go_on)
    seen = {start}
    improved = best is not None
    while improved:
        assert best is not None
        improved = False
        for allocation in neighbours(best[-1].allocation):
            if allocation in seen:
                continue
            if len(seen) > most or not go_on():
                break
            seen.add(allocation)
            better = _better(trial, allocation, rounds, [each.value for each in best], go_on)
            if better is not None:
                best, improved = better, True
                break
    return None if best is None else best[-1]


def _better(
    trial: Trial,
    allocation: Allocation,
    rounds: Sequence[int],
    values: Sequence[float],
    go_on: Callable[[], bool],
) -> list[Ranked] | None:
    """An allocation in each round; None where it is not better in one of them."""
    found: list[Ranked] = []
    for calls, value in zip(rounds, values, strict=True):
        if found:
            go_on()
        ranked = trial.rank(allocation, calls, value)
        if ranked is None or not ranked.value < value:
            return None
        found.append(ranked)
    return found


def simulated(prediction: Prediction, found: Latencies) -> Prediction:
    """A prediction whose latencies of executions are those that were simulated."""
    return Prediction(
        SIMULATOR,
        tuple(
            replace(
                predicted,
                execution_s_mean=found[predicted.workflow].mean_s,
                execution_s_p50=found[predicted.workflow].p50_s,
                execution_s_p95=found[predicted.workflow].p95_s,
                execution_s_p99=found[predicted.workflow].p99_s,
                error_fraction=None,
            )
            if predicted.workflow in found
            else predicted
            for predicted in prediction.workflows
        ),
    )


def _third(candidates: int) -> int:
    return max(_LEAST_KEPT, round(candidates * _KEPT))


def _value(ranked: Ranked) -> float:
    return ranked.value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
