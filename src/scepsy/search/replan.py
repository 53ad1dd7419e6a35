"""A new plan beside one that runs: of plans that are equally fast, the one that moves least."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from scepsy.model.plan import Allocation, PlacedReplica, Placement, Plan, ReplicaGroup
from scepsy.place.moves import Step, steps, unchanged
from scepsy.place.pack import pack
from scepsy.search.explain import why_none
from scepsy.search.find import NoPlan, find_plans
from scepsy.search.limits import Target
from scepsy.search.problem import Problem, slo_value_s

_EQUAL = 1 + 1e-6
"""Plans are equally fast up to this factor, unless a user says more."""
_COMPARED = 16
"""Plans, best first, of which the equally fast ones are compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """A plan, and how to get there from the one that runs."""

    plan: Plan
    steps: tuple[Step, ...]
    stay: int
    """Replicas that are not touched."""


def replan(problem: Problem, running: Plan, tolerance: float = 0.0) -> Change:
    """The plan with the fewest replicas to start among those that are equally fast.

    The allocation that runs counts too, if it still sustains the rates and meets the SLO.

    Args:
        problem: what to plan for now.
        running: the plan that runs.
        tolerance: part of the least latency that may be given up to move less.

    Raises:
        InfeasibleError: there is no plan.
    """
    found = find_plans(problem, _COMPARED)
    if isinstance(found, NoPlan):
        raise why_none(problem, found)
    least_s = found[0].objective_s or 0.0
    close = [p for p in found if (p.objective_s or 0.0) <= least_s * max(_EQUAL, 1 + tolerance)]
    close += [p for p in _as_it_runs(problem, running, found[0]) if p not in close]
    close = [p for p in close if (p.objective_s or 0.0) <= least_s * max(_EQUAL, 1 + tolerance)]
    changes = [_change(problem, plan, running) for plan in close]
    return min(changes, key=lambda one: len(one.plan.placement.replicas) - one.stay)


def _as_it_runs(problem: Problem, running: Plan, found: Plan) -> Iterator[Plan]:
    """The running plan with what is predicted of it now, where it can serve the problem."""
    groups, slo = running.allocation, problem.request.slo
    gpus = {gpu.id for gpu in problem.cluster.gpus}
    placed = {gpu for replica in running.placement.replicas for gpu in replica.gpus}
    if {load.llm for load in problem.loads} != {g.llm for g in groups.groups}:
        return
    if (
        not placed <= gpus
        or len(placed) > problem.gpus
        or not all(_allowed(problem, group) for group in groups.groups)
    ):
        return
    prediction = problem.predict(groups)
    if any(w.execution_s_mean == float("inf") for w in prediction.workflows):
        return
    if slo is not None and slo_value_s(prediction, slo) > slo.bound_s:
        return
    yield replace(
        found,
        allocation=groups,
        placement=running.placement,
        prediction=prediction,
        objective_s=problem.objective_s(prediction),
    )


def _allowed(problem: Problem, group: ReplicaGroup) -> bool:
    """Whether a running group keeps the limits that one LLM's group can keep or break."""
    limits, per_gpu = problem.request.limits, problem.room.units_per_gpu
    units = round(group.gpu_fraction * per_gpu)
    return (
        abs(units - group.gpu_fraction * per_gpu) < 1e-6
        and limits.allow(group.llm, group.tensor_parallel, units, per_gpu)
        and group.replicas >= limits.of(group.llm).min_replicas
        and limits.survive is None
        and limits.target is not Target.K8S_MPS_EQUAL
    )


def _change(problem: Problem, plan: Plan, running: Plan) -> Change:
    """A plan placed so that as many running replicas stay as was found to be possible."""
    placements = [plan.placement, *_keeping(problem, plan.allocation, running)]
    best = max(placements, key=lambda one: len(unchanged(running.placement, one)))
    return change_to(replace(plan, placement=best), running)


def change_to(plan: Plan, running: Plan) -> Change:
    """How to get to a plan from the one that runs."""
    stay = len(unchanged(running.placement, plan.placement))
    return Change(plan, tuple(steps(running.placement, plan.placement)), stay)


def _keeping(problem: Problem, groups: Allocation, running: Plan) -> Iterator[Placement]:
    """Placements with all replicas that can stay, or where that leaves no room, with fewer.

    Of those that can stay, LLMs with small replicas are let go first.
    """
    candidates = stayable(problem, groups, running)
    order = sorted(
        {replica.llm for replica in candidates},
        key=lambda llm: (groups.group(llm).tensor_parallel * groups.group(llm).gpu_fraction, llm),
    )
    rules = problem.place_rules(groups)
    for gone in range(len(order) + 1):
        kept = tuple(r for r in candidates if r.llm in order[gone:])
        placement = pack(
            groups,
            problem.cluster,
            units_per_gpu=problem.room.units_per_gpu,
            rules=replace(rules, kept=kept),
        )
        if isinstance(placement, Placement) and len(placement.used) <= problem.gpus:
            yield placement
            return


def stayable(problem: Problem, groups: Allocation, running: Plan) -> Sequence[PlacedReplica]:
    """Running replicas that the new allocation has use for, in the shape they have.

    Those of LLMs that take turns, before or after, start anew: they sit together.
    """
    gpus = {gpu.id: gpu.type for gpu in problem.cluster.gpus}
    left = Counter({group.llm: group.replicas for group in groups.groups})
    found = []
    for replica in running.placement.replicas:
        group = next((g for g in groups.groups if g.llm == replica.llm), None)
        if (
            group is not None
            and not groups.turns_of(replica.llm)
            and not running.allocation.turns_of(replica.llm)
            and left[replica.llm]
            and len(replica.gpus) == group.tensor_parallel
            and abs(replica.gpu_fraction - group.gpu_fraction) < 1e-6
            and all(gpus.get(gpu) == group.gpu_type for gpu in replica.gpus)
        ):
            left[replica.llm] -= 1
            found.append(replica)
    return found
