"""The best plan by simulation: of those that the search finds, and of what lies near the best.

The search decides among all allocations in milliseconds, by what profiles say of each LLM alone.
The simulator takes a second for each and knows how they meet: bursts, prefixes, long executions.
So the search proposes, the simulator chooses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from operator import itemgetter

from scepsy.errors import InfeasibleError, MissingError, UnknownNameError
from scepsy.model.plan import Allocation, Plan, Prediction, WorkflowRate
from scepsy.model.workflow import WorkflowName
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.policy.route import LeastLoaded, MakeRouter
from scepsy.search.goals import at_rates, largest_rates
from scepsy.search.neighbours import Neighbourhood, placed
from scepsy.search.problem import Problem, problem
from scepsy.search.rank import contenders, value_of
from scepsy.search.turns import taking_turns
from scepsy.sim.rank import Latencies, Ranked, Trial, always, climb, race, simulated
from scepsy.sim.script import Script
from scepsy.sim.specs import SpecOf
from scepsy.sim.summary import Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is simulated."""

    contenders: int = 16
    """Plans that the search proposes."""
    turns: int = 10
    """And those in which LLMs take turns."""
    rounds: tuple[int, ...] = (4_000, 12_000)
    """Calls in each round among them."""
    starts: int = 2
    """The best of them, each of which is climbed from."""
    steps: int = 30
    """Neighbours tried in each climb."""
    finalists: int = 3
    """Compared at the end, on other arrivals."""
    last_calls: int = 24_000
    """In that comparison."""
    is_cautious: bool = True
    """Whether plans are compared at higher rates as well: as much higher as executions may well
    be longer than those recorded."""

    @property
    def most_simulations(self) -> int:
        """That it comes to, at most."""
        tried = self.contenders + self.turns + self.starts * (self.steps + 1)
        return tried * len(self.rounds) + self.finalists


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    plans: tuple[Plan, ...]
    """The finalists that keep up, best first, with simulated latencies."""
    simulations: int


def plan_by_simulation(
    asked: Problem,
    scripts: Mapping[WorkflowName, Sequence[Script]],
    spec_of: SpecOf,
    *,
    effort: Effort | None = None,
    make_router: MakeRouter = LeastLoaded,
    order: OrderPolicy = first_come,
    seed: int = 0,
    go_on: Callable[[], bool] = always,
) -> Found:
    """The best plans for a problem by simulation of its recorded executions.

    Args:
        asked: what to plan for.
        scripts: the executions of each workflow that has a rate.
        spec_of: gives the engines.
        effort: how much to simulate; as much as takes about a minute when None.
        make_router: how each LLM's replicas are fed.
        order: which of the calls that wait in an engine comes first.
        seed: decides arrivals; equal seeds give equal plans, unless time is out.
        go_on: asked before each simulation; once it says no, what is best by then is taken.

    Raises:
        MissingError: a stage has no profile, or an LLM no step times.
        InfeasibleError: there is no plan, or none that keeps up when it is simulated.
    """
    effort = effort or Effort()
    simulations, in_time = 0, True

    def count() -> bool:
        nonlocal simulations, in_time
        simulations += 1
        in_time = go_on() and in_time
        return in_time

    turned = taking_turns(asked, effort.turns)
    planner = _Planner(asked, _proposed(asked, effort.contenders, turned), spec_of)
    planner.add(turned)
    busier = _busier(asked) if effort.is_cautious else ()
    ranking = planner.trial(scripts, make_router, order, seed, busier)
    finalists = _finalists(asked, ranking, planner.allocations, effort, count)
    judging = planner.trial(scripts, make_router, order, seed + 1, busier)
    plans: list[tuple[float, Plan]] = []
    for allocation in finalists:
        if not count() and plans:
            break
        calls = effort.last_calls if in_time else effort.rounds[-1]
        plan = planner.plan(allocation, judging, calls)
        if plan is not None:
            value = value_of(asked)(plan.prediction)
            plans.append((judging.with_busier(value, allocation, calls)[0], plan))
    if not plans:
        raise _no_plan(asked, len(planner.allocations))
    plans.sort(key=itemgetter(0))
    return Found(tuple(plan for _, plan in plans), simulations)


def _busier(asked: Problem) -> tuple[WorkflowRate, ...]:
    """Rates at which the executions recorded ask as much as longer ones at the rates asked."""
    return tuple(
        replace(w.rate, rate_per_s=w.rate.rate_per_s * (1 + w.demand.likely_excess))
        for w in asked.workflows
    )


def _proposed(asked: Problem, most: int, turned: Sequence[Allocation]) -> list[Plan]:
    """Plans by the search; that of the largest rates where turns alone may sustain those asked."""
    try:
        return contenders(asked, most)
    except InfeasibleError:
        if not turned:
            raise
        return [at_rates(asked, largest_rates(asked))]


def _finalists(
    asked: Problem,
    trial: Trial,
    allocations: Sequence[Allocation],
    effort: Effort,
    go_on: Callable[[], bool],
) -> list[Allocation]:
    """Where the climbs ended, best first, then the best of the race."""
    ranked = [
        each
        for each in race(trial, allocations, rounds=effort.rounds, go_on=go_on)
        if each.value < float("inf")
    ]
    nearby = Neighbourhood(asked)
    reached = [
        climb(trial, start, nearby.of, rounds=effort.rounds, most=effort.steps, go_on=go_on)
        for start in _apart(ranked, effort.starts)
    ]
    highest = sorted((each for each in reached if each is not None), key=_value)
    found = dict.fromkeys(each.allocation for each in (*highest, *ranked))
    return list(found)[: effort.finalists]


def with_simulated(
    asked: Problem,
    plan: Plan,
    scripts: Mapping[WorkflowName, Sequence[Script]],
    spec_of: SpecOf,
    *,
    calls: int = 12_000,
    seed: int = 1,
) -> Plan:
    """The same allocation and placement with simulated latencies, at the plan's own rates.

    Raises:
        MissingError: an LLM has no step times.
        InfeasibleError: the plan does not keep up.
    """
    asked = problem(replace(asked.request, rates=plan.rates), asked.surfaces)
    planner = _Planner(asked, [plan], spec_of)
    trial = planner.trial(scripts, LeastLoaded, first_come, seed)
    found = trial.latencies(plan.allocation, calls)
    if found is None:
        raise _no_plan(asked, 1)
    return planner.told(plan, found)


def trial_of(
    asked: Problem,
    expected: Prediction,
    scripts: Mapping[WorkflowName, Sequence[Script]],
    spec_of: SpecOf,
    *,
    make_router: MakeRouter = LeastLoaded,
    order: OrderPolicy = first_come,
    seed: int = 0,
    busier: tuple[WorkflowRate, ...] = (),
) -> Trial:
    """By the objective that is asked for; what is expected of a good plan is a measure."""
    value = value_of(asked)
    return Trial(
        scripts=scripts,
        expected={
            each.workflow: Latency(
                mean_s=each.execution_s_mean,
                p50_s=each.execution_s_p50,
                p95_s=each.execution_s_p95,
                p99_s=each.execution_s_p99,
            )
            for each in expected.workflows
        },
        rates=tuple(workflow.rate for workflow in asked.workflows),
        spec_of=spec_of,
        objective=lambda latencies: value(simulated(expected, latencies)),
        make_router=make_router,
        order=order,
        seed=seed,
        busier=busier,
    )


class _Planner:
    """Turns allocations into plans with simulated latencies."""

    def __init__(self, asked: Problem, plans: Sequence[Plan], spec_of: SpecOf) -> None:
        self._asked = asked
        self._plans = {plan.allocation: plan for plan in plans}
        self._first = plans[0]
        self._spec_of = spec_of
        _check_specs(self._first, spec_of)

    def add(self, allocations: Sequence[Allocation]) -> None:
        """Let more be planned, as far as they can be placed."""
        for allocation in allocations:
            plan = self._placed(allocation)
            if plan is not None:
                self._plans.setdefault(allocation, plan)

    def _placed(self, allocation: Allocation) -> Plan | None:
        placement = placed(self._asked, allocation)
        if placement is None:
            return None
        plan = replace(self._first, allocation=allocation, placement=placement)
        return at_rates(self._asked, plan)

    @property
    def allocations(self) -> list[Allocation]:
        return list(self._plans)

    def trial(
        self,
        scripts: Mapping[WorkflowName, Sequence[Script]],
        make_router: MakeRouter,
        order: OrderPolicy,
        seed: int,
        busier: tuple[WorkflowRate, ...] = (),
    ) -> Trial:
        return trial_of(
            self._asked,
            self._first.prediction,
            scripts,
            self._spec_of,
            make_router=make_router,
            order=order,
            seed=seed,
            busier=busier,
        )

    def plan(self, allocation: Allocation, trial: Trial, calls: int) -> Plan | None:
        """None where it does not keep up."""
        found = trial.latencies(allocation, calls)
        if found is None:
            return None
        plan = self._plans.get(allocation) or self._placed(allocation)
        assert plan is not None, "neighbours were placed before"
        return self.told(plan, found)

    def told(self, plan: Plan, found: Latencies) -> Plan:
        """A plan with latencies that were simulated."""
        prediction = simulated(plan.prediction, found)
        objective_s = self._asked.objective_s(prediction)
        return replace(
            plan, prediction=prediction, objective_s=objective_s, bound_s=None, passed_over=0
        )


def _check_specs(plan: Plan, spec_of: SpecOf) -> None:
    for group in plan.allocation.groups:
        try:
            spec_of(group.llm, group.gpu_type, group.tensor_parallel, group.gpu_fraction)
        except (UnknownNameError, MissingError) as error:
            raise MissingError(
                f"`{group.llm}` cannot be simulated on {group.gpu_type}: {error}",
                hint="plan by `--predictor critical-path`, which needs profiles alone",
            ) from error


def _no_plan(asked: Problem, tried: int) -> InfeasibleError:
    rates = ", ".join(f"{w.rate.workflow}={w.rate.rate_per_s:g}/s" for w in asked.workflows)
    which = f"none of the {tried} best plans keeps" if tried > 1 else "the plan does not keep"
    return InfeasibleError(
        f"by simulation {which} up with {rates}, though profiles say so",
        hint="lower the rates, or add GPUs; `--predictor pipeline` plans by profiles alone",
    )


def _apart(ranked: Sequence[Ranked], most: int) -> list[Allocation]:
    """The best, of which any two differ in the shape of half of the LLMs at least."""
    found: list[Allocation] = []
    for each in ranked:
        if len(found) == most:
            break
        groups = each.allocation.groups
        if all(_different(each.allocation, other) >= ceil(len(groups) / 2) for other in found):
            found.append(each.allocation)
    return found


def _different(one: Allocation, other: Allocation) -> int:
    """LLMs with another shape; all where others take turns."""
    if one.turns != other.turns:
        return len(one.groups)
    return sum(
        (a.gpu_type, a.tensor_parallel, a.gpu_fraction)
        != (b.gpu_type, b.tensor_parallel, b.gpu_fraction)
        for a, b in zip(one.groups, other.groups, strict=True)
    )


def _value(ranked: Ranked) -> float:
    return ranked.value
