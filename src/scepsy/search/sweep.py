"""Latency against throughput: the best plan at each of many rates, up to what the GPUs reach."""

from collections.abc import Callable
from dataclasses import dataclass

from scepsy.model.plan import Plan
from scepsy.search.explain import why_none
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.goals import at_rates
from scepsy.search.problem import Problem
from scepsy.search.reach import reach_of

_HIGHEST = 0.98
"""Part of the largest rates up to which plans are made: at 1 latency has no bound."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """The best plan at some rates."""

    factor: float
    """On all rates that were asked for."""
    objective_s: float
    """Weighted mean execution latency; it never falls as rates rise."""
    plan: Plan


def frontier(
    problem: Problem, points: int, tell: Callable[[], None] = lambda: None
) -> list[FrontierPoint]:
    """The best plans at rates evenly spread up to the largest, by rising rate.

    Goes from high rates to low ones: a plan that sustains higher rates is one for lower rates
    too, and stays where the search finds no better one that can be placed.

    Args:
        problem: whose rates give the proportions.
        points: how many rates are looked at; those without a plan are left out.
        tell: called after each.

    Raises:
        InfeasibleError: there is no plan at any of the rates.
    """
    reach = reach_of(problem)
    if reach is None:
        raise why_none(problem, NoPlan(0, None))
    found: list[FrontierPoint] = []
    last: NoPlan | None = None
    for at in range(points, 0, -1):
        factor = reach.factor * _HIGHEST * at / points
        scaled = problem.scaled(factor)
        plan = find_plan(scaled)
        if isinstance(plan, NoPlan):
            last = plan
        best = [plan] if isinstance(plan, Plan) else []
        if found:
            best.append(at_rates(scaled, found[-1].plan))
        if best:
            least = min(best, key=lambda one: one.objective_s or 0.0)
            found.append(FrontierPoint(factor, least.objective_s or 0.0, least))
        tell()
    if not found:
        assert last is not None  # no point has a plan
        raise why_none(problem.scaled(reach.factor * _HIGHEST / points), last)
    return found[::-1]
