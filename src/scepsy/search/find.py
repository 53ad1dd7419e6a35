"""The first of the allocations, best first, that meets the SLO and can be placed.

Where fractions of GPUs leave no way to place the best ones, coarser shares are tried: halves, then
whole GPUs, which always fit where domains and degrees are powers of two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from scepsy.model.plan import Allocation, Plan
from scepsy.place.pack import Unplaced, pack
from scepsy.search.exact import allocation, choices
from scepsy.search.frontier import Options
from scepsy.search.problem import Problem, slo_value_s

_GPUS_PACKED = 20_000
"""GPUs over all allocations tried: packing takes longer on a larger cluster, so fewer are."""
_LEAST_TRIED = 8
_MOST_PREDICTED = 64
"""Allocations that can be placed, best first, of which one must meet the SLO."""


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No allocation that was tried is a plan."""

    tried: int
    """Allocations that sustain the rates; 0 where there is none."""
    unplaced: Unplaced | None
    """Why the best of those that could not be placed could not; None where all could."""


def find_plan(problem: Problem) -> Plan | NoPlan:
    """The plan with the least weighted mean execution latency, if one is found.

    Raises:
        MissingError: a stage has no profile on the cluster's GPU type.
    """
    request, slo = problem.request, problem.request.slo
    bound_s: float | None = None
    unplaced: Unplaced | None = None
    tried = predicted = 0
    for groups in _candidates(problem, problem.options()):
        if bound_s is None:
            bound_s = problem.objective_s(problem.predict(groups))
        placement = pack(groups, request.cluster, units_per_gpu=request.units_per_gpu)
        if isinstance(placement, Unplaced):
            unplaced = unplaced or placement
        else:
            prediction = problem.predict(groups)
            if slo is None or slo_value_s(prediction, slo) <= slo.bound_s:
                return Plan(
                    cluster=request.cluster,
                    rates=tuple(workflow.rate for workflow in problem.workflows),
                    slo=slo,
                    allocation=groups,
                    placement=placement,
                    prediction=prediction,
                    objective_s=problem.objective_s(prediction),
                    bound_s=bound_s,
                    passed_over=tried,
                )
            predicted += 1
        tried += 1
        if predicted == (1 if problem.best_decides else _MOST_PREDICTED):
            break
    return NoPlan(tried, unplaced)


def _candidates(problem: Problem, llms: Sequence[Options]) -> Iterator[Allocation]:
    """Distinct allocations, best first, of any shares, then of halves, then of whole GPUs."""
    units_per_gpu = problem.room.units_per_gpu
    halves = units_per_gpu // 2 if units_per_gpu % 2 == 0 else units_per_gpu
    gpus = len(problem.request.cluster.gpus)
    most = min(problem.request.max_candidates, max(_LEAST_TRIED, _GPUS_PACKED // gpus))
    seen: set[Allocation] = set()
    for step in (1, halves, units_per_gpu):
        coarse = [options.where(options.fraction_units % step == 0) for options in llms]
        found = choices(coarse, problem.room.budget_units)
        for choice in islice(found, most):
            groups = allocation(coarse, choice)
            if groups not in seen:
                seen.add(groups)
                yield groups
