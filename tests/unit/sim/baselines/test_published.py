"""The published search: against brute force under its own pruning, and with several workflows."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import NO_ROLE, LlmName, WorkflowName
from scepsy.policy.route import CallView
from scepsy.sim.baselines.published import divide, latency_shares, published_systems
from scepsy.sim.baselines.published_search import READINGS, Goal, Reading, offers, search
from scepsy.sim.baselines.ratings import Ratings
from scepsy.sim.engine import EngineCall
from tests.unit.sim.baselines.made_up import BOTH, TENTHS, WHOLE, Llm, made_task

made = st.builds(
    Llm,
    call_s=st.floats(0.01, 1.0),
    share=st.floats(0.01, 1.0),
    shapes=st.sampled_from((TENTHS, WHOLE, BOTH)),
)


@pytest.mark.no_cover
@settings(max_examples=30, deadline=None)
@given(
    st.lists(made, min_size=1, max_size=3), st.sampled_from(READINGS), st.sampled_from(list(Goal))
)
def test_nothing_that_the_pruning_leaves_is_better(
    llms: list[Llm], reading: Reading, goal: Goal
) -> None:
    task = made_task({"w": dict(zip("abc", llms, strict=False))}, gpus=2)
    ratings, shares = Ratings(task), latency_shares(task.demands[0])
    order = sorted(ratings.llms, key=lambda llm: (shares[llm], llm))
    each = [offers(ratings, llm, 2, goal, reading) for llm in order]
    allowed = []
    for at in product(*(range(len(own.units)) for own in each)):
        units = [int(own.units[i]) for own, i in zip(each, at, strict=True)]
        least = [int(own.units[0]) if reading.beyond_least else 0 for own in each]
        ranks = [n - m for n, m in zip(units, least, strict=True)]
        values = [float(own.value[i]) for own, i in zip(each, at, strict=True)]
        if ranks == sorted(ranks) and sum(units) <= 20:
            allowed.append(sum(values) if goal is Goal.LATENCY else max(values))

    found = search(ratings, shares, 2, goal, reading)

    assert found.value[-1] == pytest.approx(min(allowed, default=np.inf))
    if found.value[-1] < np.inf:
        groups = found.chosen(20)
        assert sum(group.gpus for group in groups) <= 2 + 1e-9
        rated = [
            r
            for g in groups
            if (r := ratings.rated(g.llm, (g.tensor_parallel, g.gpu_fraction), g.replicas))
        ]
        parts = [r.cost_s if goal is Goal.LATENCY else r.utilization for r in rated]
        together = sum(parts) if goal is Goal.LATENCY else max(parts)
        assert together == pytest.approx(found.value[-1])


def test_a_larger_share_of_the_latency_never_gets_less() -> None:
    """By load alone b would have most; a has the larger share of the latency."""
    llms = {"a": Llm(0.1, 0.7, WHOLE), "b": Llm(1.5, 0.3, WHOLE)}
    task = made_task({"w": llms}, gpus=4)

    systems = [s for s in published_systems(task) if "order by all" in s.note]

    assert systems
    for system in systems:
        assert system.allocation is not None
        a, b = system.allocation.groups
        assert a.gpus >= b.gpus


def test_amounts_are_whole_gpus_or_part_of_one_and_nothing_is_wasted() -> None:
    task = made_task({"w": {"a": Llm(0.01, shapes=(*TENTHS, (2, 0.5), (4, 1.0)))}}, gpus=4)
    ratings, a = Ratings(task), LlmName("a")

    narrow = offers(ratings, a, 4, Goal.UTILIZATION, Reading(False, False))
    any_shape = offers(ratings, a, 4, Goal.UTILIZATION, Reading(True, False))

    assert narrow.units.tolist() == [*range(1, 11), 20, 30, 40]
    assert any_shape.units.tolist() == list(range(1, 41))
    for own in (narrow, any_shape):
        gpus = [one.group.gpus for one in own.rated]
        assert gpus == pytest.approx((own.units / 10).tolist())


@given(
    st.lists(
        st.lists(st.floats(0, 9) | st.just(float("inf")), min_size=5, max_size=5),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from((np.add, np.maximum)),
)
def test_the_division_among_workflows_is_the_best_one(
    values: list[list[float]], together: np.ufunc
) -> None:
    ways = [way for way in product(range(5), repeat=len(values)) if sum(way) == 4]

    def value(way: Sequence[int]) -> float:
        return float(together.reduce([own[n] for own, n in zip(values, way, strict=True)]))

    found = divide([np.array(own) for own in values], together)

    best = min(map(value, ways))
    if best == float("inf"):
        assert found == ()
    else:
        assert sum(found) == 4
        assert value(found) == pytest.approx(best)


def test_a_shared_llm_is_served_apart_for_each_workflow() -> None:
    llms = {"a": Llm(0.5, 0.7, TENTHS), "b": Llm(0.1, 0.3, TENTHS)}
    task = made_task({"v": llms, "w": llms}, gpus=4)

    for system in published_systems(task):
        assert system.allocation is None
        assert system.gpus <= 4
        serving = system.make()
        assert serving.next_event_s() == float("inf")
        for name in ("v", "w"):
            view = CallView(
                execution=ExecutionId("e"),
                workflow=WorkflowName(name),
                role=NO_ROLE,
                prompt_tokens=10,
            )
            call = EngineCall(id=name, prompt_tokens=10, output_tokens=1)
            serving.submit(0.0, LlmName("a"), view, call)
        events = serving.advance(10.0)
        assert {event.call_id for event in events} == {"v", "w"}
        assert serving.replica_of("v").startswith("v/")
        assert serving.replica_of("w").startswith("w/")
        assert serving.advance(11.0) == []
        with pytest.raises(KeyError):
            serving.replica_of("v")


def test_workflows_without_a_common_llm_have_one_allocation() -> None:
    task = made_task({"v": {"a": Llm(0.5)}, "w": {"b": Llm(0.2)}}, gpus=4)

    systems = published_systems(task)

    assert systems
    assert all(s.allocation is not None and len(s.allocation.groups) == 2 for s in systems)
