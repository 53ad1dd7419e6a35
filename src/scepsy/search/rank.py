"""The best plans by the search's predictor, put in order by another one's figures."""

from collections.abc import Sequence
from dataclasses import replace

from scepsy.model.plan import Plan
from scepsy.predict.pipeline import PREDICTOR
from scepsy.predict.predictor import predicted_by
from scepsy.search.problem import Problem, slo_value_s

__all__ = ["COMPARED", "PREDICTOR", "ranked"]

COMPARED = 8
"""Plans that another predictor chooses from, unless more are asked for."""


def ranked(problem: Problem, plans: Sequence[Plan], predictor: str) -> list[Plan]:
    """The plans with another predictor's figures: those within the SLO first, then the fastest.

    Fast is what the SLO's statistic says, in the workflow where it is largest; without an SLO the
    weighted mean. By the search's own predictor the order stays.

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

    def order(plan: Plan) -> tuple[bool, float]:
        if plan.slo is None:
            return False, plan.objective_s or 0.0
        value_s = slo_value_s(plan.prediction, plan.slo)
        return value_s > plan.slo.bound_s, value_s

    return sorted(again, key=order)
