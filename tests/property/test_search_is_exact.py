"""Laws of the search: nothing that brute force finds is better."""

import random
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.search.exact import allocation, choices, least_cost_s
from scepsy.search.exhaustive import Enumerated, enumerate_all
from scepsy.search.frontier import Options, Room, WeightedWorkflow, llm_loads, options
from scepsy.search.reach import fewest_units, largest_factor
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

GPU = GpuTypeName("gpu")
SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
BUDGET = {1: 30, 2: 16, 3: 8}
"""Units by number of LLMs, so that brute force takes milliseconds."""

seeds = st.integers(0, 2**32 - 1)


def a_curve(rng: random.Random, key: ProfileKey) -> ProfileCurve:
    loads = sorted(rng.sample([n / 20 for n in range(20)], rng.randint(1, 4)))
    latencies = sorted(rng.choice([0.5, 1.0, rng.uniform(0.1, 5.0)]) for _ in loads)
    return ProfileCurve(
        key=key,
        capacity_per_s=rng.uniform(0.5, 20.0),
        points=tuple(
            ProfilePoint(utilization=u, latency_s_mean=s, latency_s_p95=s, ttft_s_mean=s)
            for u, s in zip(loads, latencies, strict=True)
        ),
        provenance=Provenance.MEASURED,
        source="made up",
    )


def some_profiles(rng: random.Random, stages: list[Stage]) -> ProfileSet:
    curves = []
    for llm in sorted({stage.llm for stage in stages}):
        degrees = rng.sample([1, 2, 4], rng.randint(1, 3))
        fractions = rng.sample([0.2, 0.5, 1.0], rng.randint(1, 3))
        for stage in stages:
            if stage.llm != llm:
                continue
            for degree in degrees:
                for fraction in fractions:
                    for replicas in {1, rng.randint(1, 4), rng.randint(1, 4)}:
                        key = ProfileKey(
                            stage=stage,
                            gpu_type=GPU,
                            tensor_parallel=degree,
                            gpu_fraction=fraction,
                            replicas=replicas,
                        )
                        curves.append(a_curve(rng, key))
    return ProfileSet(tuple(curves))


def a_workflow(rng: random.Random, name: str, stages: list[Stage]) -> WeightedWorkflow:
    return WeightedWorkflow(
        WorkflowDemand(
            workflow=WorkflowName(name),
            stages=tuple(
                StageDemand(
                    stage=stage,
                    calls_per_execution=rng.uniform(0.1, 4.0),
                    calls=SPREAD,
                    fan_out=rng.uniform(1.0, 3.0),
                    time_share=SPREAD,
                    call_s_mean=rng.uniform(0.1, 2.0),
                    prompt_tokens_mean=100.0,
                    output_tokens_mean=10.0,
                    cached_fraction=None,
                )
                for stage in sorted(stages)
            ),
            executions=(ExecutionDemand((1.0,) * len(stages), 0.0, 1.0),),
        ),
        rate_per_s=10 ** rng.uniform(-1.5, 0.7),
        weight=rng.uniform(0.1, 1.0),
    )


class Instance:
    """A random problem: 1-3 LLMs, 1-2 workflows that may share them, 1-2 roles an LLM."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        llms = [LlmName(f"llm-{n}") for n in range(rng.randint(1, 3))]
        self.workflows = []
        for name in ("a", "b")[: rng.randint(1, 2)]:
            stages = [
                Stage(WorkflowName(name), llm, Role(f"role-{role}"))
                for llm in llms
                if rng.random() < 0.8 or llm == llms[0]
                for role in range(rng.choice([1, 1, 2]))
            ]
            self.workflows.append(a_workflow(rng, name, stages))
        every = [s.stage for w in self.workflows for s in w.demand.stages]
        self.profiles = some_profiles(rng, every)
        self.room = Room(
            gpu_type=GPU,
            budget_units=rng.randint(2, BUDGET[len(llms)]),
            units_per_gpu=rng.choice([1, 2, 5, 10]),
            max_tensor_parallel=rng.choice([1, 2, 4]),
        )

    @property
    def llms(self) -> list[Options]:
        return [options(load, self.profiles, self.room) for load in llm_loads(self.workflows)]

    def brute_force(self) -> list[Enumerated]:
        return list(enumerate_all(self.workflows, self.profiles, self.room))


@settings(max_examples=1000, deadline=None)
@given(seeds)
@example(0)
def test_nothing_is_better_than_what_the_search_finds(seed: int) -> None:
    """The best, the largest rate, and the fewest units are those of brute force."""
    instance = Instance(seed)
    llms, budget = instance.llms, instance.room.budget_units
    every = instance.brute_force()
    sustained = [one for one in every if one.headroom > 1]

    best = next(choices(llms, budget), None)
    least_s = min((one.cost_s for one in sustained), default=float("inf"))
    assert (best.cost_s if best else float("inf")) == pytest.approx(least_s, rel=1e-9)
    assert least_cost_s(llms, budget)[0, -1] == pytest.approx(least_s, rel=1e-9)
    if best:
        assert best.units <= budget
        found = [one for one in every if one.allocation == allocation(llms, best)]
        assert [one.units for one in found] == [best.units]
        assert found[0].cost_s == pytest.approx(best.cost_s, rel=1e-9)

    reach = largest_factor(llms, budget)
    most = max((one.headroom for one in every), default=0.0)
    assert (reach.factor if reach else 0.0) == pytest.approx(most, rel=1e-9)

    fewest = fewest_units(llms)
    assert (fewest.units if fewest and fewest.units <= budget else None) == min(
        (one.units for one in sustained), default=None
    )


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_choices_come_in_order_and_none_is_left_out(seed: int) -> None:
    """The first K choices are the K cheapest of all, each another allocation."""
    instance = Instance(seed)
    llms, budget = instance.llms, instance.room.budget_units
    costs_s = sorted(one.cost_s for one in instance.brute_force() if one.headroom > 1)

    found = list(islice(choices(llms, budget), 40))

    assert [one.cost_s for one in found] == pytest.approx(costs_s[:40], rel=1e-9)
    assert len({allocation(llms, one) for one in found}) == len(found)


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_more_units_never_cost_more(seed: int) -> None:
    """The least cost does not rise with the budget, nor with fewer LLMs."""
    instance = Instance(seed)
    budget = instance.room.budget_units
    tables = least_cost_s(instance.llms, budget)

    assert (least_cost_s(instance.llms, budget // 2) == tables[:, : budget // 2 + 1]).all()

    assert (tables[:, 1:] <= tables[:, :-1]).all()
    assert (tables[1:] <= tables[:-1]).all()
