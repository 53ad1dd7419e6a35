"""The published Scepsy: GPUs divided among workflows, then its search for each of them.

See ``docs/reference/baselines/published.md``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName
from scepsy.place.topology import UNITS_PER_GPU
from scepsy.search.frontier import WeightedWorkflow, llm_loads
from scepsy.sim.baselines.apart import Apart
from scepsy.sim.baselines.base import System, Task, allocation_of, fixed_system, is_placeable
from scepsy.sim.baselines.published_search import (
    READINGS,
    Floats,
    Goal,
    Reading,
    Searched,
    search,
)
from scepsy.sim.baselines.ratings import Ratings
from scepsy.traces.demand import WorkflowDemand

NAME = "published"
Groups = tuple[ReplicaGroup, ...]


def published_systems(task: Task) -> tuple[System, ...]:
    """The best allocation by each reading of the publication, and by each way to divide GPUs."""
    workflows = [_Workflow(task, rate) for rate in task.rates]
    found: dict[tuple[Groups, ...], System] = {}
    for reading in READINGS:
        for parts, note in _allocations(task, workflows, reading):
            if parts not in found:
                found[parts] = _system(task, parts, f"{note}; {reading}")
    return tuple(found.values())


class _Workflow:
    """One workflow, as if it were alone."""

    def __init__(self, task: Task, rate: WorkflowRate) -> None:
        demand = next(d for d in task.demands if d.workflow == rate.workflow)
        self._ratings = Ratings(task, llm_loads([WeightedWorkflow(demand, rate.rate_per_s, 1.0)]))
        self._shares = latency_shares(demand)

    def search(self, gpus: int, goal: Goal, reading: Reading) -> Searched:
        """Its best allocation within each number of GPUs."""
        return search(self._ratings, self._shares, gpus, goal, reading)


def latency_shares(demand: WorkflowDemand) -> dict[LlmName, float]:
    """Each LLM's mean part of an execution's LLM time, over all its roles."""
    shares: dict[LlmName, float] = {}
    for stage in demand.stages:
        llm = stage.stage.llm
        shares[llm] = shares.get(llm, 0.0) + stage.time_share.mean
    return shares


def _allocations(
    task: Task, workflows: Sequence[_Workflow], reading: Reading
) -> Iterator[tuple[tuple[Groups, ...], str]]:
    """(workflows,) groups of each, by each way to divide the GPUs among them."""
    for goal in Goal:
        searched = [workflow.search(task.gpus, goal, reading) for workflow in workflows]
        values = [one.value[::UNITS_PER_GPU] for one in searched]
        ways = _WAYS[goal] if len(workflows) > 1 else _WAYS[goal][:1]
        found = False
        for way in ways:
            gpus = divide(way.scaled(values), way.together)
            parts = gpus and _placed(task, searched, gpus)
            if parts:
                found = True
                yield parts, f"{goal.value}{way.note if len(workflows) > 1 else ''}"
        if found:
            return


@dataclass(frozen=True, slots=True)
class _Way:
    """How the workflows' values make one."""

    note: str
    scaled: Callable[[Sequence[Floats]], Sequence[Floats]]
    together: Callable[[Floats, Floats], Floats]


def _as_they_are(values: Sequence[Floats]) -> Sequence[Floats]:
    return values


def _by_their_best(values: Sequence[Floats]) -> Sequence[Floats]:
    return [value / best if 0 < (best := value.min()) < np.inf else value for value in values]


_WAYS: Mapping[Goal, tuple[_Way, ...]] = {
    Goal.LATENCY: (
        _Way(" in the mean over workflows", _as_they_are, np.add),
        _Way(" for the workflow that fares worst", _by_their_best, np.maximum),
    ),
    Goal.UTILIZATION: (_Way(" of all workflows alike", _as_they_are, np.maximum),),
}


def divide(
    values: Sequence[Floats], together: Callable[[Floats, Floats], Floats]
) -> tuple[int, ...]:
    """GPUs of each workflow, all given away, such that their values together are least.

    Args:
        values: for each workflow (GPUs + 1,) what it makes of so many.
        together: makes one value of two.

    Returns:
        Nothing where no division has a finite value.
    """
    gpus = len(values[0]) - 1
    best, given = values[0], []
    for value in values[1:]:
        split = [together(best[: n + 1], value[n::-1]) for n in range(gpus + 1)]
        given.append([int(np.argmin(row)) for row in split])
        best = np.array([row.min() for row in split])
    if not best[-1] < np.inf:
        return ()
    left = [gpus]
    for row in reversed(given):
        left.append(row[left[-1]])
    return (left[-1], *(high - low for low, high in pairwise(reversed(left))))


def _placed(
    task: Task, searched: Sequence[Searched], gpus: Sequence[int]
) -> tuple[Groups, ...] | None:
    """What each workflow gets, with as little held back as it takes to be placed."""
    tried = set()
    for held_back in range(min(gpus) * UNITS_PER_GPU):
        budgets = [n * UNITS_PER_GPU - held_back for n in gpus]
        if not all(s.value[n] < np.inf for s, n in zip(searched, budgets, strict=True)):
            return None
        parts = tuple(s.chosen(n) for s, n in zip(searched, budgets, strict=True))
        if parts not in tried and is_placeable(_all_apart(parts), task.cluster):
            return parts
        tried.add(parts)
    return None


def _all_apart(parts: Sequence[Groups]) -> Allocation:
    """One allocation with an LLM of its own for each workflow that uses it."""
    return allocation_of(
        replace(group, llm=LlmName(f"{number}/{group.llm}"))
        for number, groups in enumerate(parts)
        for group in groups
    )


def _system(task: Task, parts: tuple[Groups, ...], note: str) -> System:
    every = [group for groups in parts for group in groups]
    if len({group.llm for group in every}) == len(every):
        return fixed_system(task, NAME, allocation_of(every), note=note)
    systems = {
        rate.workflow: fixed_system(task, NAME, allocation_of(groups), note=note)
        for rate, groups in zip(task.rates, parts, strict=True)
    }
    return System(
        name=NAME,
        gpus=sum(system.gpus for system in systems.values()),
        make=lambda: Apart({name: system.make() for name, system in systems.items()}),
        note=note,
    )
