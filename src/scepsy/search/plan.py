"""From demand, profiles, a cluster and a target to a plan: what the command line and the demo call.

Allocations come best first from the exact search. The first that meets the SLO and can be placed
is the plan. Where fractions of GPUs leave no way to place the best ones, coarser shares are tried:
halves, then whole GPUs, which always fit domains of a power of two.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from scepsy.model.plan import Allocation, Plan
from scepsy.place.pack import Unplaced, pack
from scepsy.search.exact import allocation, choices
from scepsy.search.explain import why_overloaded, why_slo_missed, why_unplaced
from scepsy.search.frontier import Options
from scepsy.search.problem import PlanRequest, Problem, problem, slo_value_s


def make_plan(request: PlanRequest) -> Plan:
    """The plan with the least weighted mean execution latency that meets the request.

    Raises:
        InputError: the request contradicts itself; see ``problem``.
        MissingError: a stage has no profile on the cluster's GPU type.
        InfeasibleError: no plan does; the subclasses in ``explain`` say why, and what would.
    """
    asked = problem(request)
    llms = asked.options()
    bound_s: float | None = None
    closest_s = float("inf")
    unplaced: Unplaced | None = None
    tried = 0
    for groups in _candidates(asked, llms):
        prediction = asked.predict(groups)
        if bound_s is None:
            bound_s = asked.objective_s(prediction)
        value_s = slo_value_s(prediction, request.slo)
        closest_s = min(closest_s, value_s)
        if request.slo is not None and value_s > request.slo.bound_s:
            if asked.best_decides:
                break
            tried += 1
            continue
        placement = pack(groups, request.cluster, units_per_gpu=request.units_per_gpu)
        if not isinstance(placement, Unplaced):
            return Plan(
                cluster=request.cluster,
                rates=tuple(workflow.rate for workflow in asked.workflows),
                slo=request.slo,
                allocation=groups,
                placement=placement,
                prediction=prediction,
                objective_s=asked.objective_s(prediction),
                bound_s=bound_s,
                passed_over=tried,
            )
        unplaced = placement
        tried += 1
    if bound_s is None:
        raise why_overloaded(asked)
    if unplaced is not None:
        raise why_unplaced(asked, unplaced, tried)
    assert request.slo is not None  # every candidate was placed, unplaced or beyond the SLO
    raise why_slo_missed(asked, request.slo, closest_s)


def _candidates(asked: Problem, llms: Sequence[Options]) -> Iterator[Allocation]:
    """Distinct allocations, best first, of any shares, then of halves, then of whole GPUs."""
    units_per_gpu = asked.room.units_per_gpu
    halves = units_per_gpu // 2 if units_per_gpu % 2 == 0 else units_per_gpu
    seen: set[Allocation] = set()
    for step in (1, halves, units_per_gpu):
        coarse = [options.where(options.fraction_units % step == 0) for options in llms]
        found = choices(coarse, asked.room.budget_units)
        for choice in islice(found, asked.request.max_candidates):
            groups = allocation(coarse, choice)
            if groups not in seen:
                seen.add(groups)
                yield groups
