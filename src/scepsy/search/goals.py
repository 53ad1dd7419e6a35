"""What to make of the GPUs, beside the least latency: the largest rates, or the fewest GPUs."""

from dataclasses import replace
from enum import StrEnum
from itertools import product
from math import floor

from scepsy.errors import InfeasibleError, InputError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Plan, WorkflowRate
from scepsy.search.explain import why_none
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.problem import Problem
from scepsy.search.reach import bisect, reach_of

MAX_UTILIZATION = 0.95
"""Of any LLM at the largest rates, where no SLO keeps them lower: at 1 latency has no bound."""
_BELOW = 1 - 1e-9


class Goal(StrEnum):
    """What a plan is the best in."""

    LATENCY = "latency"
    """Least latency at the rates."""
    RATE = "rate"
    """Largest rates, in the proportions given, within the SLO."""
    GPUS = "gpus"
    """Fewest GPUs that sustain the rates within the SLO; then least latency."""
    COST = "cost"
    """Least price of the GPUs per hour that sustain the rates within the SLO."""


def largest_rates(problem: Problem) -> Plan:
    """The plan with the largest rates within the SLO, to four digits before placement.

    Without an SLO, those at which the fullest LLM is at ``MAX_UTILIZATION``.

    Raises:
        InfeasibleError: there is no plan at any rate.
    """
    reach = reach_of(problem)
    if reach is None:
        raise why_none(problem, NoPlan(0, None))
    part = 1.0 if problem.request.slo is not None else MAX_UTILIZATION
    found: list[tuple[float, Plan]] = []

    def holds(factor: float) -> bool:
        plan = find_plan(problem.scaled(factor))
        if isinstance(plan, Plan):
            found.append((factor, plan))
        return isinstance(plan, Plan)

    if not holds(reach.factor * _BELOW):
        bisect(holds, reach.factor)
    if not found:
        raise why_none(problem, NoPlan(1, None)) if problem.request.slo else _no_rate(problem)
    factor, plan = max(found, key=lambda one: one[0])
    return at_rates(problem.scaled(factor * part), plan) if part < 1 else plan


def _no_rate(problem: Problem) -> InfeasibleError:
    none = find_plan(problem)
    assert isinstance(none, NoPlan)  # it holds at no lower rates either
    return why_none(problem, none)


def at_rates(problem: Problem, plan: Plan) -> Plan:
    """The same allocation and placement, with what is predicted of them for a problem."""
    prediction = problem.predict(plan.allocation)
    rates = tuple(WorkflowRate(w.rate.workflow, w.rate.rate_per_s) for w in problem.workflows)
    return replace(
        plan,
        rates=rates,
        prediction=prediction,
        objective_s=problem.objective_s(prediction),
        bound_s=None,
    )


def cheapest(problem: Problem, goal: Goal) -> Plan:
    """The plan with the fewest or cheapest GPUs that sustains the rates within the SLO.

    Of each number of GPUs of the other types, the fewest of the first type are bisected.

    Raises:
        InputError: a GPU type has no price.
        InfeasibleError: there is no plan with all GPUs.
    """
    prices = [_price(problem, room.gpu_type, goal) for room in problem.rooms]
    most = [problem.most_gpus[room.gpu_type] for room in problem.rooms]
    found = find_plan(problem)
    if isinstance(found, NoPlan):
        raise why_none(problem, found)
    best, best_price = found, sum(n * price for n, price in zip(most, prices, strict=True))
    for others in product(*(range(n + 1) for n in most[1:])):
        rest = sum(n * price for n, price in zip(others, prices[1:], strict=True))
        high = min(most[0], floor((best_price - rest) / prices[0] + 1e-9))
        plan = _with_fewest(problem, high, others)
        if plan is not None:
            gpus = [plan[0], *others]
            price = sum(n * price for n, price in zip(gpus, prices, strict=True))
            if price < best_price * (1 - 1e-9) or _ties(price, best_price, plan[1], best):
                best, best_price = plan[1], price
    return best


def _ties(price: float, best_price: float, plan: Plan, best: Plan) -> bool:
    return price <= best_price * (1 + 1e-9) and (plan.objective_s or 0) < (best.objective_s or 0)


def _with_fewest(problem: Problem, high: int, others: tuple[int, ...]) -> tuple[int, Plan] | None:
    """The fewest GPUs of the first type, up to a number, with which there is a plan; and it."""
    best: tuple[int, Plan] | None = None
    low = -1
    while high > low:
        middle = high if best is None else (low + high) // 2
        if best is not None and middle == low:
            break
        plan = find_plan(problem.within([middle, *others]))
        if isinstance(plan, Plan):
            best, high = (middle, plan), middle
        elif best is None:
            return None
        else:
            low = middle
    return best


def _price(problem: Problem, name: GpuTypeName, goal: Goal) -> float:
    if goal is Goal.GPUS:
        return 1.0
    price = problem.cluster.gpu_type(name).price_per_hour
    if price is None:
        raise InputError(
            f"GPU type {name} has no price",
            hint=f"give it in the cluster file, e.g. `prices_per_hour: {{{name}: 2.5}}`",
        )
    return price
