"""The frontier, why a plan is as it is, and how to get there from the plan that runs."""

from dataclasses import replace

import pytest

from scepsy.model.cluster import regular_cluster
from scepsy.model.plan import Placement, WorkflowRate
from scepsy.model.workflow import WorkflowName
from scepsy.place.moves import StepKind, unchanged
from scepsy.search.plan import make_plan
from scepsy.search.problem import problem
from scepsy.search.replan import replan
from scepsy.search.sweep import frontier
from scepsy.search.why import why
from tests.unit.search.made_up import BIG, H100, SMALL, request

W = WorkflowName("w")


@pytest.mark.parametrize("gpus", [3, 4, 8])
def test_latency_never_falls_along_the_frontier(gpus: int) -> None:
    told: list[None] = []
    points = frontier(problem(request(gpus)), 10, lambda: told.append(None))

    assert len(told) == 10
    assert len(points) >= 9  # the highest rate may find no place
    latencies_s = [point.objective_s for point in points]
    assert latencies_s == sorted(latencies_s)
    rates = [point.plan.rates[0].rate_per_s for point in points]
    assert rates == sorted(rates)
    for point, rate in zip(points, rates, strict=True):
        assert point.plan.prediction.workflow(W).capacity_per_s > rate


def test_why_compares_with_what_the_planner_would_do() -> None:
    asked = request(4)
    plan = make_plan(asked)
    found = why(problem(asked), plan)

    assert found.less.plan is not None
    assert (found.less.plan.objective_s or 0) >= (plan.objective_s or 0)
    assert found.less.plan.objective_s == make_plan(request(3)).objective_s
    assert found.more.plan is not None
    assert (found.more.plan.objective_s or 0) < (plan.objective_s or 0)
    degrees = {(a.llm, a.tensor_parallel) for a in found.alternatives}
    assert degrees == {(BIG, 1), (BIG, 2), (BIG, 4), (SMALL, 1)} - {
        (group.llm, group.tensor_parallel) for group in plan.allocation.groups
    }
    assert all(a.more_s >= 0 for a in found.alternatives)


def test_one_gpu_less_may_not_do() -> None:
    plan = make_plan(request(2))
    less = why(problem(request(2)), plan).less

    assert less.plan is None
    assert less.reason == "the rates are not sustained"


def test_the_same_request_moves_nothing() -> None:
    running = make_plan(request(8, nodes=2))

    change = replan(problem(request(8, nodes=2)), running)

    assert change.steps == ()
    assert change.plan.placement == running.placement


def test_a_higher_rate_keeps_what_it_can() -> None:
    running = make_plan(request(8, nodes=2))
    asked = request(8, nodes=2, rate_per_s=7.0)

    change = replan(problem(asked), running)

    assert change.plan.objective_s == make_plan(asked).objective_s
    stays = unchanged(running.placement, change.plan.placement)
    assert len(stays) == change.stay > 0
    assert sum(step.kind is StepKind.START for step in change.steps) == len(
        change.plan.placement.replicas
    ) - len(stays)


def test_little_latency_may_be_given_up_to_move_nothing() -> None:
    running = make_plan(request(8, nodes=2))
    asked = replace(request(8, nodes=2), rates=(WorkflowRate(W, 2.2),))

    assert replan(problem(asked), running, tolerance=0.5).steps == ()


@pytest.mark.parametrize("rate_per_s", [0.5, 4.0, 7.0, 10.0])
def test_steps_are_safe_and_lead_to_the_plan(rate_per_s: float) -> None:
    """No GPU is over 1.0 at any step, and the steps end with the new placement."""
    running = make_plan(request(8, nodes=2))
    change = replan(problem(request(8, nodes=2, rate_per_s=rate_per_s)), running)

    now = list(running.placement.replicas)
    for step in change.steps:
        if step.kind is StepKind.START:
            now.append(step.replica)
        else:
            now.remove(step.replica)
        assert max(Placement(tuple(now)).used.values()) <= 1 + 1e-9
    assert {(r.llm, r.gpus) for r in now} == {
        (r.llm, r.gpus) for r in change.plan.placement.replicas
    }


def test_replicas_leave_gpus_that_are_gone() -> None:
    running = make_plan(request(8, nodes=2))
    smaller = request(cluster=regular_cluster(H100, nodes=1, gpus_per_node=4))

    change = replan(problem(smaller), running)

    left = {gpu.id for gpu in smaller.cluster.gpus}
    assert set(change.plan.placement.used) <= left
    gone = [r for r in running.placement.replicas if not set(r.gpus) <= left]
    stopped = [step.replica for step in change.steps if step.kind is StepKind.STOP]
    assert all(replica in stopped for replica in gone)
