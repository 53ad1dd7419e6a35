"""From demand, profiles, a cluster and a target to a plan: the planner in one function."""

from scepsy.model.plan import Plan
from scepsy.search.explain import why_none
from scepsy.search.find import NoPlan, find_plans
from scepsy.search.goals import Goal, cheapest, largest_rates
from scepsy.search.problem import PlanRequest, Problem, problem


def make_plan(request: PlanRequest, goal: Goal = Goal.LATENCY) -> Plan:
    """The plan that is best by a goal and meets the request.

    Raises:
        InputError: the request contradicts itself; see ``problem``.
        MissingError: a stage has no profile on the cluster's GPU types.
        InfeasibleError: no plan does; the subclasses in ``explain`` say why, and what would.
    """
    return plan_for(problem(request), goal)


def plan_for(asked: Problem, goal: Goal = Goal.LATENCY) -> Plan:
    """``make_plan`` for a request that was checked."""
    if goal is Goal.RATE:
        return largest_rates(asked)
    if goal in {Goal.GPUS, Goal.COST}:
        return cheapest(asked, goal)
    return best_plans(asked, 1)[0]


def best_plans(asked: Problem, most: int) -> list[Plan]:
    """The plans of the distinct allocations with the least objective, best first.

    Raises:
        MissingError: a stage has no profile on the cluster's GPU types.
        InfeasibleError: there is no plan.
    """
    found = find_plans(asked, most)
    if isinstance(found, NoPlan):
        raise why_none(asked, found)
    return found
