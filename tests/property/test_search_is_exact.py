"""Laws of the search: nothing that brute force finds is better."""

import random
from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.predict.surface import Surfaces
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet
from scepsy.search.exact import allocation, choices
from scepsy.search.exhaustive import Enumerated, enumerate_all
from scepsy.search.fair import OTHERS, fair_choices
from scepsy.search.frontier import Options, Room, WeightedWorkflow, llm_loads, options
from scepsy.search.limits import Limits, LlmLimits, Target
from scepsy.search.reach import fewest_units, largest_factor
from scepsy.traces.demand import ExecutionDemand, Spread, StageDemand, WorkflowDemand

SPREAD = Spread(mean=1.0, sd=0.0, p5=1.0, p95=1.0)
BUDGET = {1: 20, 2: 12, 3: 7}
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


def some_profiles(rng: random.Random, stages: list[Stage], types: list[GpuTypeName]) -> ProfileSet:
    curves = []
    for llm in sorted({stage.llm for stage in stages}):
        for gpu_type in rng.sample(types, rng.randint(1, len(types))):
            degrees = rng.sample([1, 2, 4], rng.randint(1, 3))
            fractions = rng.sample([0.2, 0.5, 1.0], rng.randint(1, 3))
            counts = {1, rng.randint(1, 4), rng.randint(1, 4)}
            shapes = product(degrees, fractions, counts)
            for (degree, fraction, replicas), stage in product(shapes, stages):
                if stage.llm == llm:
                    key = ProfileKey(
                        stage=stage,
                        gpu_type=gpu_type,
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


def some_limits(rng: random.Random, llms: list[LlmName]) -> Limits:
    """Of what an LLM, all LLMs or the target may be limited to: about one thing in four."""

    def seldom(*values: int) -> int:
        return rng.choice(values) if rng.random() < 0.25 else values[0]

    return Limits(
        llms={
            llm: LlmLimits(
                tensor_parallel=seldom(0, 1, 2, 4) or None,
                min_replicas=seldom(1, 2, 3),
                share=not seldom(0, 1),
            )
            for llm in llms
            if rng.random() < 0.5
        },
        share=not seldom(0, 0, 0, 1),
        target=list(Target)[seldom(0, 1, 2)],
    )


class Instance:
    """A random problem: 1-3 LLMs, 1-2 workflows that may share them, 1-2 roles, 1-2 GPU types.

    Half have limits, and of half of those the loss of a node must be survived.
    """

    def __init__(self, seed: int, *, workflows: int | None = None) -> None:
        rng = random.Random(seed)
        llms = [LlmName(f"llm-{n}") for n in range(rng.randint(1, 3))]
        self.types = [GpuTypeName("gpu"), GpuTypeName("other")][: rng.choice([1, 1, 2])]
        self.workflows = []
        for name in ("a", "b")[: workflows or rng.randint(1, 2)]:
            stages = [
                Stage(WorkflowName(name), llm, Role(f"role-{role}"))
                for llm in llms
                if rng.random() < 0.8 or llm == llms[0]
                for role in range(rng.choice([1, 1, 2]))
            ]
            self.workflows.append(a_workflow(rng, name, stages))
        every = [s.stage for w in self.workflows for s in w.demand.stages]
        self.profiles = some_profiles(rng, every, self.types)
        units_per_gpu = rng.choice([1, 2, 5, 10])
        limited = rng.random() < 0.5
        self.limits = some_limits(rng, llms) if limited else Limits()
        survives = limited and rng.random() < 0.5
        self.rooms = [
            Room(
                gpu_type=gpu_type,
                budget_units=rng.randint(2, BUDGET[len(llms)] // len(self.types)),
                units_per_gpu=units_per_gpu,
                max_tensor_parallel=rng.choice([1, 2, 4]),
                scopes=rng.randint(1, 4) if survives else 0,
            )
            for gpu_type in self.types
        ]

    @property
    def budgets(self) -> list[int]:
        return [room.budget_units for room in self.rooms]

    @property
    def names(self) -> list[WorkflowName]:
        return [w.demand.workflow for w in self.workflows]

    def llms(self, rooms: list[Room] | None = None) -> list[Options]:
        surfaces = Surfaces(self.profiles)
        return [
            options(load, surfaces, rooms or self.rooms, self.limits, self.names)
            for load in llm_loads(self.workflows)
        ]

    def brute_force(self) -> list[Enumerated]:
        return list(enumerate_all(self.workflows, self.profiles, self.rooms, self.limits))

    def sustained(self) -> list[Enumerated]:
        return [one for one in self.brute_force() if one.headroom > 1]


def least_s(found: list[Enumerated], workflows: list[WeightedWorkflow]) -> float:
    return min((one.cost_s(workflows) for one in found), default=float("inf"))


@pytest.mark.no_cover  # tracing would take most of its time
@settings(max_examples=2000, deadline=None)
@given(seeds)
@example(0)
def test_nothing_is_better_than_what_the_search_finds(seed: int) -> None:
    """The best, the largest rate, and the fewest units are those of brute force."""
    instance = Instance(seed)
    llms = instance.llms()
    every = instance.brute_force()
    sustained = [one for one in every if one.headroom > 1]

    best = next(choices(llms, instance.budgets), None)
    least = least_s(sustained, instance.workflows)
    assert (best.cost_s if best else float("inf")) == pytest.approx(least, rel=1e-9)
    if best:
        assert all(n <= budget for n, budget in zip(best.units, instance.budgets, strict=True))
        (found,) = [one for one in every if one.allocation == allocation(llms, best)]
        assert [found.units[kind] for kind in instance.types] == list(best.units)
        assert found.cost_s(instance.workflows) == pytest.approx(best.cost_s, rel=1e-9)

    if len(instance.rooms) == 1:
        (room,) = instance.rooms
        loads = llm_loads(instance.workflows)
        reach = largest_factor(loads, Surfaces(instance.profiles), room, instance.limits)
        most = max((one.headroom for one in every), default=0.0)
        assert (reach.factor if reach else 0.0) == pytest.approx(most, rel=1e-9)
        fewest = fewest_units(llms)
        within = fewest.units[0] if fewest and fewest.units[0] <= room.budget_units else None
        assert within == min((one.units[room.gpu_type] for one in sustained), default=None)


@pytest.mark.no_cover
@settings(max_examples=200, deadline=None)
@given(seeds)
def test_no_choice_leaves_the_worst_workflow_better_off(seed: int) -> None:
    """Max-min over two workflows: the first two choices are those of brute force."""
    instance = Instance(seed, workflows=2)
    gaps_s, per_s = np.array([0.3, 0.0]), np.array([1.0, 2.5])

    found = [
        choice.cost_s
        for choice in islice(fair_choices(instance.llms(), instance.budgets, gaps_s, per_s), 2)
    ]

    def worst(one: Enumerated) -> float:
        fares = [
            per_s[n] * (gaps_s[n] + one.parts_s[name]) for n, name in enumerate(instance.names)
        ]
        return max(fares) + OTHERS * sum(fares) / 2

    worst_first = sorted(worst(one) for one in instance.sustained())
    assert found == pytest.approx(sorted(found), rel=1e-9)
    assert found[:1] == pytest.approx(worst_first[:1], rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_choices_come_in_order_and_none_is_left_out(seed: int) -> None:
    """The first choices are the cheapest of all; what is left out is no better by more replicas."""
    instance = Instance(seed)
    llms = instance.llms()
    costs_s = {one.allocation: one.cost_s(instance.workflows) for one in instance.sustained()}

    found = list(islice(choices(llms, instance.budgets), 40))

    in_order = sorted(one.cost_s for one in found)
    assert [one.cost_s for one in found] == pytest.approx(in_order, rel=1e-9)
    seen = {allocation(llms, one): one.cost_s for one in found}
    assert len(seen) == len(found)
    for groups, cost_s in seen.items():
        assert cost_s == pytest.approx(costs_s[groups], rel=1e-9)
    last_s = found[-1].cost_s if len(found) == 40 else float("inf")
    offered = [{o.group(at) for at in range(len(o))} for o in llms]
    for groups, cost_s in costs_s.items():
        if cost_s < last_s * (1 - 1e-9) and groups not in seen:
            assert any(g not in has for g, has in zip(groups.groups, offered, strict=True))
            assert any(
                cost == pytest.approx(cost_s, rel=1e-9) and _fewer(other, groups)
                for other, cost in costs_s.items()
            )


def _fewer(one: Allocation, other: Allocation) -> bool:
    """Whether one has the same shapes as the other and no more replicas, some fewer."""
    return one != other and all(
        replace(a, replicas=b.replicas) == b and a.replicas <= b.replicas
        for a, b in zip(one.groups, other.groups, strict=True)
    )


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_more_gpus_never_cost_more(seed: int) -> None:
    """The least cost does not rise with any budget."""
    instance = Instance(seed)
    larger = [replace(room, budget_units=room.budget_units + 7) for room in instance.rooms]

    few = next(choices(instance.llms(), instance.budgets), None)
    many = next(choices(instance.llms(larger), [room.budget_units for room in larger]), None)

    if few is not None:
        assert many is not None
        assert many.cost_s <= few.cost_s * (1 + 1e-9)
