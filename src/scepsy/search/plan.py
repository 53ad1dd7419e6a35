"""From demand, profiles, a cluster and a target to a plan: the planner in one function."""

from scepsy.model.plan import Plan
from scepsy.search.explain import why_none
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.problem import PlanRequest, problem


def make_plan(request: PlanRequest) -> Plan:
    """The plan with the least weighted mean execution latency that meets the request.

    Raises:
        InputError: the request contradicts itself; see ``problem``.
        MissingError: a stage has no profile on the cluster's GPU type.
        InfeasibleError: no plan does; the subclasses in ``explain`` say why, and what would.
    """
    asked = problem(request)
    found = find_plan(asked)
    if isinstance(found, NoPlan):
        raise why_none(asked, found)
    return found
