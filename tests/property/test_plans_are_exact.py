"""Laws of whole plans: by every goal, nothing that brute force finds with a place is better."""

import random
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.cluster import (
    Cluster,
    GpuType,
    GpuTypeName,
    regular_cluster,
)
from scepsy.model.plan import Allocation, Plan, WorkflowRate
from scepsy.model.slo import Slo, Statistic
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.search.exhaustive import EnumeratedPlan, enumerate_all, enumerate_plans
from scepsy.search.fair import OTHERS
from scepsy.search.find import NoPlan, find_plans
from scepsy.search.frontier import Room, WeightedWorkflow
from scepsy.search.goals import MAX_UTILIZATION, Goal
from scepsy.search.grow import grown
from scepsy.search.limits import Scope
from scepsy.search.plan import best_plans, make_plan
from scepsy.search.problem import Objective, PlanRequest, problem, slo_value_s
from scepsy.traces.demand import WorkflowDemand
from tests.property.made_up_plans import (
    MEMORY_BYTES,
    a_demand,
    a_request,
    some_profiles,
)

REL = 1e-9

seeds = st.integers(0, 2**32 - 1)


class Found(NamedTuple):
    """What brute force knows of an allocation that has a place."""

    plan: EnumeratedPlan
    objective_s: float
    slo_s: float
    """The SLO's statistic, in the workflow where it is largest."""

    @property
    def gpus(self) -> int:
        return sum(self.plan.touched.values())

    def price(self, cluster: Cluster) -> float:
        prices = {kind.name: kind.price_per_hour or 0.0 for kind in cluster.types}
        return sum(n * prices[kind] for kind, n in self.plan.touched.items())


def weighted(request: PlanRequest) -> list[WeightedWorkflow]:
    named = {weight.workflow: weight.weight for weight in request.weights}
    rates = {rate.workflow: rate.rate_per_s for rate in request.rates}
    total = sum(named.get(name, 1.0) for name in rates)
    return [
        WeightedWorkflow(d, rates[d.workflow], named.get(d.workflow, 1.0) / total)
        for d in sorted(request.demands, key=lambda d: d.workflow)
    ]


def gap_s(demand: WorkflowDemand) -> float:
    return sum(e.gap_s for e in demand.executions) / len(demand.executions)


def brute_force(request: PlanRequest, *, within_slo: bool = True) -> list[Found]:
    """Every plan, by its objective."""
    asked = problem(request)
    workflows = weighted(request)
    found = []
    for one in enumerate_plans(
        workflows, request.profiles, request.cluster, request.units_per_gpu, request.limits
    ):
        objective_s = sum(
            w.weight * (gap_s(w.demand) + one.parts_s[w.demand.workflow]) for w in workflows
        )
        slo_s = 0.0
        if request.slo is not None:
            slo_s = slo_value_s(asked.predict(one.allocation), request.slo)
            if within_slo and slo_s > request.slo.bound_s:
                continue
        found.append(Found(one, objective_s, slo_s))
    return sorted(found, key=lambda one: one.objective_s)


def with_slo(request: PlanRequest, seed: int, statistic: Statistic) -> PlanRequest:
    """With an SLO that some plans meet and some do not, seldom none."""
    rng = random.Random(seed)
    wide = replace(request, slo=Slo(statistic, 1e9))
    values_s = sorted(one.slo_s for one in brute_force(wide))
    if not values_s:
        return wide
    bound_s = rng.choice(values_s) * rng.choice([1.0001, 1.05, 0.9999])
    return replace(request, slo=Slo(statistic, bound_s))


def made(request: PlanRequest, goal: Goal = Goal.LATENCY) -> Plan | None:
    try:
        return make_plan(request, goal)
    except (InfeasibleError, MissingError):
        return None


def at_rates(request: PlanRequest, factor: float) -> PlanRequest:
    rates = tuple(replace(r, rate_per_s=r.rate_per_s * factor) for r in request.rates)
    return replace(request, rates=rates)


def same(one: float, other: float) -> bool:
    return one == pytest.approx(other, rel=1e-9)


@pytest.mark.no_cover  # brute force would take most of its time
@settings(max_examples=300, deadline=None)
@given(seeds)
def test_the_fastest_plans_are_those_of_brute_force(seed: int) -> None:
    """Weights, limits and losses to survive included; the five best too."""
    asked = a_request(seed)
    every = brute_force(asked)

    try:
        plans = best_plans(problem(asked), 5)
    except (InfeasibleError, MissingError):
        assert not every
        return

    objectives_s = {one.plan.allocation: one.objective_s for one in every}
    assert len({plan.allocation for plan in plans}) == len(plans)
    for plan in plans:
        assert same(plan.objective_s or 0.0, objectives_s[plan.allocation])
    found_s = [plan.objective_s or 0.0 for plan in plans]
    assert same(found_s[0], every[0].objective_s)
    assert found_s == sorted(found_s)
    last_s = found_s[-1] if len(plans) == 5 else float("inf")
    left_out = set(objectives_s) - {plan.allocation for plan in plans}
    for groups in left_out:
        if objectives_s[groups] < last_s * (1 - REL):
            assert any(
                fewer(other, groups) and same(other_s, objectives_s[groups])
                for other, other_s in objectives_s.items()
            )


def fewer(one: Allocation, other: Allocation) -> bool:
    """Whether one has the same shapes as the other and no more replicas, some fewer."""
    return one != other and all(
        replace(a, replicas=b.replicas) == b and a.replicas <= b.replicas
        for a, b in zip(one.groups, other.groups, strict=True)
    )


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(seeds)
@example(543549575)  # replicas of two LLMs that need each other's room on the large node
def test_no_plan_leaves_the_worst_workflow_better_off(seed: int) -> None:
    asked = replace(a_request(seed, workflows=2), objective=Objective.MAX_MIN)
    every = brute_force(asked)
    plan = made(asked)

    assert (plan is None) == (not every)
    if plan is None:
        return
    workflows = weighted(asked)
    least_s = least_alone_s(asked, workflows)

    def fares(means_s: list[float]) -> float:
        """Weight x latency / least, of the worst; a thousandth for the mean."""
        each = [
            w.weight * len(workflows) * mean_s / least
            for w, mean_s, least in zip(workflows, means_s, least_s, strict=True)
        ]
        return max(each) + OTHERS * sum(each) / len(each)

    best = min(
        fares([gap_s(w.demand) + one.plan.parts_s[w.demand.workflow] for w in workflows])
        for one in every
    )
    assert same(fares([w.execution_s_mean for w in plan.prediction.workflows]), best)


def least_alone_s(request: PlanRequest, workflows: list[WeightedWorkflow]) -> list[float]:
    """What each workflow has at least within the GPUs, before placement, if it alone counts."""
    open_gpus = [g for g in request.cluster.gpus if g.id not in request.limits.keep_free]
    kinds = sorted({gpu.type for gpu in open_gpus})
    free = request.limits.free_gpus if len(kinds) == 1 else 0
    rooms = [
        Room(
            gpu_type=kind,
            budget_units=(len(own) - free) * request.units_per_gpu,
            units_per_gpu=request.units_per_gpu,
            max_tensor_parallel=max(Counter(g.domain for g in own).values()),
            scopes=0
            if request.limits.survive is None
            else len({g.rack if request.limits.survive is Scope.RACK else g.node for g in own}),
        )
        for kind in kinds
        for own in [[gpu for gpu in open_gpus if gpu.type == kind]]
    ]
    sustained = [
        one
        for one in enumerate_all(workflows, request.profiles, rooms, request.limits)
        if one.headroom > 1
    ]
    return [
        gap_s(w.demand) + min(one.parts_s[w.demand.workflow] for one in sustained)
        for w in workflows
    ]


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(seeds)
def test_no_plan_within_the_slo_has_fewer_gpus(seed: int) -> None:
    asked = with_slo(a_request(seed, workflows=1), seed, Statistic.MEAN)
    every = brute_force(asked)
    plan = made(asked, Goal.GPUS)

    assert (plan is None) == (not every)
    if plan is not None:
        gpus, objective_s = min((one.gpus, one.objective_s) for one in every)
        assert len(plan.placement.used) == gpus
        assert same(plan.objective_s or 0.0, objective_s)


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(seeds)
def test_no_plan_within_the_slo_is_cheaper(seed: int) -> None:
    asked = with_slo(a_request(seed, workflows=1), seed, Statistic.MEAN)
    every = brute_force(asked)
    plan = made(asked, Goal.COST)

    assert (plan is None) == (not every)
    if plan is not None:
        least = min(one.price(asked.cluster) for one in every)
        kinds = {gpu.id: asked.cluster.gpu_type(gpu.type) for gpu in asked.cluster.gpus}
        assert same(sum(kinds[gpu].price_per_hour or 0.0 for gpu in plan.placement.used), least)
        as_cheap = [one for one in every if one.price(asked.cluster) <= least * (1 + REL)]
        assert same(plan.objective_s or 0.0, min(one.objective_s for one in as_cheap))


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(seeds, st.booleans())
def test_no_plan_has_larger_rates(seed: int, within_slo: bool) -> None:
    """To four digits: a plan of brute force at the rates found, none at a little more."""
    asked = a_request(seed)
    if within_slo:
        asked = with_slo(asked, seed, Statistic.MEAN)
    plan = made(asked, Goal.RATE)

    if plan is None:
        assert not brute_force(asked)
        assert not brute_force(at_rates(asked, 1e-4))
        return
    given_per_s = min(asked.rates, key=lambda rate: rate.workflow).rate_per_s
    factor = plan.rates[0].rate_per_s / given_per_s / (1 if asked.slo else MAX_UTILIZATION)
    assert brute_force(at_rates(asked, factor * (1 - 1e-6)))
    assert not brute_force(at_rates(asked, factor * (1 + 2e-4)))


def tenths_request(seed: int) -> PlanRequest:
    """2-5 LLMs shared by two workflows, in tenths of up to 32 GPUs: too many for brute force."""
    rng = random.Random(seed)
    kind = GpuType(name=GpuTypeName("gpu"), memory_bytes=MEMORY_BYTES)
    nodes, gpus_per_node = rng.randint(1, 4), rng.choice([2, 4, 8])
    llms = [LlmName(f"llm-{n}") for n in range(rng.randint(2, 5))]
    stages = {name: [Stage(WorkflowName(name), llm) for llm in llms] for name in ("a", "b")}
    return PlanRequest(
        demands=tuple(a_demand(rng, name, own) for name, own in stages.items()),
        profiles=some_profiles(rng, [s for own in stages.values() for s in own], [kind.name], 10),
        cluster=regular_cluster(kind, nodes=nodes, gpus_per_node=gpus_per_node),
        rates=tuple(WorkflowRate(WorkflowName(n), 10 ** rng.uniform(-1, 0.7)) for n in stages),
    )


@pytest.mark.no_cover
@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans(), st.sampled_from([1, 2, 8]))
def test_a_plan_for_a_larger_cluster_is_never_slower(seed: int, tenths: bool, more: int) -> None:
    """With placement, and so with what the packing heuristic gives away."""
    asked = tenths_request(seed) if tenths else a_request(seed)
    kind = asked.cluster.gpus[seed % len(asked.cluster.gpus)].type
    try:
        plans = find_plans(problem(asked), 1)
    except MissingError:
        return
    larger = find_plans(problem(replace(asked, cluster=grown(asked.cluster, kind, more))), 1)

    if not isinstance(plans, NoPlan):
        assert not isinstance(larger, NoPlan)
        assert (larger[0].objective_s or 0.0) <= (plans[0].objective_s or 0.0) * (1 + REL)
