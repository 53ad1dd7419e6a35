"""The best of several allocations by simulation: each is tried a little, the better ones longer.

All are simulated with the same arrivals, so that they differ by themselves and not by chance. After
each round those that are far behind the best leave, and the rest are tried with more executions.
From the winner the search may go on to its neighbours: allocations that differ in one LLM's group.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.plan import Allocation, Prediction, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.route import LeastLoaded, MakeRouter
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Stream
from scepsy.sim.plan_run import SpecOf
from scepsy.sim.run import ServedExecution
from scepsy.sim.script import Script
from scepsy.sim.serve import fleet_of, serve
from scepsy.sim.summary import Summary, summary

SIMULATOR = "simulator"
"""What predictions are called whose latencies were simulated."""
ROUNDS = (60, 180, 540)
"""Executions that each candidate is tried with, round by round."""
_KEPT = 1 / 3
"""Part of the candidates that go on to the next round."""
_LEAST_KEPT = 3

Objective = Callable[[Summary], float]
"""What is made small."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An allocation as it was simulated in its last round."""

    allocation: Allocation
    value: float
    """Of the objective."""
    summary: Summary
    executions: int
    """That it was tried with in the last round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What candidates are simulated under."""

    scripts: Mapping[WorkflowName, Sequence[Script]]
    """The recorded executions of each workflow that has a rate."""
    rates: tuple[WorkflowRate, ...]
    spec_of: SpecOf
    objective: Objective
    make_router: MakeRouter = LeastLoaded
    order: OrderPolicy = first_come
    seed: int = 0

    def served(self, allocation: Allocation, executions: int) -> tuple[ServedExecution, ...]:
        """So many executions, after a quarter as many to warm up.

        Raises:
            InfeasibleError: a group's weights do not fit its share of the GPUs.
            MissingError: no step times are known for a group.
        """
        streams = [
            Stream(scripts=tuple(self.scripts[rate.workflow]), rate_per_s=rate.rate_per_s)
            for rate in self.rates
        ]
        fleet = fleet_of(allocation, self._specs(allocation), make_router=self.make_router)
        return serve(
            streams,
            fleet,
            executions=executions,
            warm_up=executions // 4,
            seed=self.seed,
            order=self.order,
        )

    def rank(self, allocation: Allocation, executions: int) -> Ranked | None:
        """An allocation by so many executions; None where its engines cannot hold them."""
        try:
            found = summary(self.served(allocation, executions))
        except (InfeasibleError, MissingError):
            return None
        return Ranked(allocation, self.objective(found), found, executions)

    def _specs(self, allocation: Allocation) -> Mapping[LlmName, EngineSpec]:
        return {
            g.llm: self.spec_of(g.llm, g.gpu_type, g.tensor_parallel, g.gpu_fraction)
            for g in allocation.groups
        }


def race(
    trial: Trial,
    candidates: Iterable[Allocation],
    *,
    rounds: Sequence[int] = ROUNDS,
    on_trial: Callable[[], object] = lambda: None,
) -> list[Ranked]:
    """Candidates, best first: those of the last round, then those that left before, by round.

    Args:
        trial: what they are simulated under.
        candidates: distinct allocations for the trial's rates.
        rounds: executions that each is tried with, round by round.
        on_trial: called after each simulation.
    """
    running = list(candidates)
    left: list[list[Ranked]] = []
    for at, executions in enumerate(rounds, start=1):
        tried: list[Ranked] = []
        for allocation in running:
            ranked = trial.rank(allocation, executions)
            on_trial()
            if ranked is not None:
                tried.append(ranked)
        most = len(tried) if at == len(rounds) else max(_LEAST_KEPT, round(len(tried) * _KEPT))
        kept = nsmallest(most, tried, key=_value)
        names = {id(each) for each in kept}
        left.append(sorted((each for each in tried if id(each) not in names), key=_value))
        running = [each.allocation for each in kept]
        if at == len(rounds):
            left.append(kept)
    return [each for several in reversed(left) for each in several]


def climb(
    trial: Trial,
    start: Ranked,
    neighbours: Callable[[Allocation], Iterable[Allocation]],
    *,
    executions: int,
    most_trials: int,
    on_trial: Callable[[], object] = lambda: None,
) -> Ranked:
    """Go to the best neighbour for as long as one is better, within so many simulations.

    Args:
        trial: what all are simulated under.
        start: where to begin; simulated anew where that was with other executions.
        neighbours: allocations that are nearly the same and fit the cluster.
        executions: each is tried with.
        most_trials: simulations at most.
        on_trial: called after each.
    """
    best = start
    if start.executions != executions:
        best = trial.rank(start.allocation, executions) or start
    seen = {start.allocation}
    trials = 0
    while trials < most_trials:
        tried: list[Ranked] = []
        for allocation in neighbours(best.allocation):
            if allocation in seen or trials == most_trials:
                continue
            seen.add(allocation)
            trials += 1
            ranked = trial.rank(allocation, executions)
            on_trial()
            if ranked is not None:
                tried.append(ranked)
        better = min(tried, key=_value, default=best)
        if better.value >= best.value:
            return best
        best = better
    return best


def simulated(prediction: Prediction, found: Summary) -> Prediction:
    """A prediction whose latencies of executions are those that were simulated."""
    by_name = {each.workflow: each.execution for each in found.workflows}
    return Prediction(
        SIMULATOR,
        tuple(
            replace(
                predicted,
                execution_s_mean=by_name[predicted.workflow].mean_s,
                execution_s_p50=by_name[predicted.workflow].p50_s,
                execution_s_p95=by_name[predicted.workflow].p95_s,
                execution_s_p99=by_name[predicted.workflow].p99_s,
                error_fraction=None,
            )
            if predicted.workflow in by_name
            else predicted
            for predicted in prediction.workflows
        ),
    )


def _value(ranked: Ranked) -> float:
    return ranked.value
