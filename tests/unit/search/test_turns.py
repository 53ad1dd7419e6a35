"""Allocations in which LLMs take turns: what the search proposes, and what lies near."""

from dataclasses import replace

import pytest

from scepsy.model.plan import Placement
from scepsy.predict.turns import stretches
from scepsy.search.limits import Limits, LlmLimits
from scepsy.search.neighbours import Neighbourhood, placed
from scepsy.search.problem import problem
from scepsy.search.turns import taking_turns, turn_replicas
from tests.unit.search.made_up import BIG, SMALL, request


def test_proposals_can_be_placed_and_differ_in_degrees() -> None:
    asked = problem(request(4, rate_per_s=0.5))

    found = taking_turns(asked, 10)

    assert 1 < len(found) == len(set(found))
    for allocation in found:
        assert allocation.turns == ((BIG, SMALL),)
        assert isinstance(placed(asked, allocation), Placement)
        assert sum(group.gpu_fraction for group in allocation.groups) == pytest.approx(1)
    degrees = [tuple(group.tensor_parallel for group in a.groups) for a in found]
    assert len(set(degrees)) == len(degrees)
    assert (2, 2) in degrees  # the small LLM was not profiled on so many


def test_what_turns_predict_is_slower_than_alone_and_saturates_together() -> None:
    asked = problem(request(4, rate_per_s=0.5))
    allocation = taking_turns(asked, 1)[0]

    together = asked.predict(allocation).workflows[0]

    group = allocation.group(BIG)
    at = {stage.stage.llm: stage for stage in together.stages}
    assert at[BIG].utilization == at[SMALL].utilization
    busier = asked.scaled(0.999 * together.capacity_per_s / 0.5)
    assert busier.predict(allocation).workflows[0].execution_s_mean < float("inf")
    over = asked.scaled(1.001 * together.capacity_per_s / 0.5)
    assert over.predict(allocation).workflows[0].execution_s_mean == float("inf")
    alone = asked.surfaces.profiles.curve(
        at[BIG].stage, group.gpu_type, group.tensor_parallel, 1.0, group.replicas
    )
    assert alone is not None
    assert at[BIG].call_s > alone.latency_s(0.0)


@pytest.mark.parametrize(
    "limits", [Limits(share=False), Limits(llms={SMALL: LlmLimits(share=False)})]
)
def test_nobody_takes_turns_where_sharing_is_not_allowed(limits: Limits) -> None:
    asked = problem(replace(request(4, rate_per_s=0.5), limits=limits))

    assert taking_turns(asked, 10) == []


def test_limits_hold_for_turns() -> None:
    limits = Limits(llms={BIG: LlmLimits(tensor_parallel=2), SMALL: LlmLimits(min_replicas=2)})
    asked = problem(replace(request(4, rate_per_s=0.5), limits=limits))

    found = taking_turns(asked, 10)

    assert found
    for allocation in found:
        assert allocation.group(BIG).tensor_parallel == 2
        assert allocation.group(SMALL).replicas >= 2
        assert all(a.group(SMALL).replicas >= 2 for a in Neighbourhood(asked).of(allocation))


def test_neighbours_have_an_instance_more_or_less() -> None:
    asked = problem(request(4, rate_per_s=0.5))
    allocation = next(a for a in taking_turns(asked, 10) if a.group(BIG).tensor_parallel == 2)

    found = list(turn_replicas(allocation))
    assert found
    for each in found:
        assert each.turns == allocation.turns
        counts = {group.replicas for group in each.groups}
        assert len(counts) == 1
        assert abs(counts.pop() - allocation.group(BIG).replicas) == 1
    fit = {each for each in found if each.gpus <= 4}
    assert fit
    assert fit <= set(Neighbourhood(asked).of(allocation))


def test_calls_beside_others_are_slower_the_more_the_others_work() -> None:
    assert stretches([0.0, 0.0]) == [1, 1]
    idle, half, busy = (stretches([1.0, n]) for n in (0.0, 0.5, 50.0))
    assert 1 == idle[0] < half[0] < busy[0]
    assert busy[0] == pytest.approx(1 + 1 / (1 - 0.078), rel=1e-3)
    assert idle[1] > 1
