"""Of the best plans by the search's predictor, which is best by figures nearer to the truth."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from scepsy.errors import InfeasibleError
from scepsy.model.plan import Plan, Prediction
from scepsy.predict.pipeline import PREDICTOR
from scepsy.predict.predictor import predicted_by
from scepsy.search.find import NoPlan, find_plans
from scepsy.search.goals import at_rates, largest_rates
from scepsy.search.limits import Limits
from scepsy.search.plan import best_plans
from scepsy.search.problem import Problem, problem, slo_value_s

__all__ = ["COMPARED", "PREDICTOR", "contenders", "ranked", "value_of"]

COMPARED = 8
"""Plans that another predictor chooses from, unless more are asked for."""
_GROWN = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Factors on the rates for which other plans are good too."""


def ranked(problem: Problem, plans: Sequence[Plan], predictor: str) -> list[Plan]:
    """The plans with another predictor's figures, the best first; see ``value_of``.

    By the search's own predictor the order stays.

    Raises:
        UnknownNameError: there is no such predictor.
        MissingError: as the predictor.
    """
    demands, profiles = problem.request.demands, problem.request.profiles
    again = []
    for plan in plans:
        told = predicted_by(predictor, plan, demands, profiles)
        if predictor != PREDICTOR:
            told = replace(told, objective_s=problem.objective_s(told.prediction), bound_s=None)
        again.append(told)
    if predictor == PREDICTOR:
        return again
    value = value_of(problem)
    return sorted(again, key=lambda plan: value(plan.prediction))


def value_of(problem: Problem) -> Callable[[Prediction], float]:
    """What makes one plan better than another: the less the better.

    What the SLO's statistic says, in the workflow where it is largest; without an SLO the
    objective that is asked for, the weighted mean or what the worst fares.
    """
    slo = problem.request.slo
    if slo is not None:
        return lambda prediction: slo_value_s(prediction, slo)
    per_s = problem.worst_per_s(problem.options())
    return lambda prediction: problem.fare_s(prediction, per_s)


def contenders(asked: Problem, most: int) -> list[Plan]:
    """Plans of distinct allocations that may turn out to be the best, likely ones first.

    Half of them are the best by the search's predictor, which differ little; then the best on
    whole GPUs, with each other degree of each LLM, and at larger rates, which have more to spare
    when many calls come at once.

    Raises:
        MissingError: a stage has no profile on the cluster's GPU types.
        InfeasibleError: there is no plan.
    """
    found = {plan.allocation: plan for plan in best_plans(asked, max(1, most // 2))}
    for plan in _others(asked, max(1, most // 8)):
        if len(found) >= most:
            break
        if plan.allocation not in found:
            found[plan.allocation] = at_rates(asked, plan)
    return list(found.values())


def _others(asked: Problem, each: int) -> Iterator[Plan]:
    limits = asked.request.limits
    yield from _best(_limited(asked, replace(limits, share=False)), each)
    for options in asked.options():
        for degree in sorted({int(d) for d in options.tensor_parallel}):
            own = replace(limits.of(options.llm), tensor_parallel=degree)
            pinned = replace(limits, llms={**limits.llms, options.llm: own})
            yield from _best(_limited(asked, pinned), 1)
    for factor in _GROWN:
        plans = _best(asked.scaled(factor), each)
        if not plans:
            break
        yield from plans
    try:
        yield largest_rates(asked)
    except InfeasibleError:
        return


def _limited(asked: Problem, limits: Limits) -> Problem:
    rates = tuple(workflow.rate for workflow in asked.workflows)
    return problem(replace(asked.request, rates=rates, limits=limits), asked.surfaces)


def _best(asked: Problem, most: int) -> list[Plan]:
    found = find_plans(asked, most)
    return [] if isinstance(found, NoPlan) else found
