"""The first of the allocations, best first, that meets the SLO and can be placed.

The best allocations fill the GPUs to the last unit, and shares of GPUs often leave no way to place
them. So, where none of those tried can be placed, some GPUs' worth of units is held back, and only
as much as it takes; of all shares, of shares that divide a GPU evenly, and of whole GPUs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

import numpy as np

from scepsy.model.plan import Allocation, Placement, Plan, Prediction
from scepsy.place.bounds import gpus_for_shards
from scepsy.place.pack import Unplaced, pack
from scepsy.predict.surface import Floats
from scepsy.search.exact import Choice, allocation
from scepsy.search.frontier import Bools, Options
from scepsy.search.problem import Problem, slo_value_s

_GPUS_PACKED = 4_000
"""GPUs over all allocations packed: packing takes longer on a larger cluster, so fewer are."""
_LEAST_PACKED = 2
_GPUS_WALKED = 20_000
"""GPUs over all allocations looked at in order of cost, of which most are seen not to fit."""
_MOST_PREDICTED = 64
"""Allocations that can be placed, best first, of which one must meet the SLO."""
_HELD_BACK = 4
"""Allocations tried for each number of units held back; one on many GPUs."""
_MANY = 512


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No allocation that was tried is a plan."""

    tried: int
    """Allocations that sustain the rates; 0 where there is none."""
    unplaced: Unplaced | None
    """Why the best of those that could not be placed could not; None where all could."""


def find_plan(problem: Problem) -> Plan | NoPlan:
    """The plan with the least objective, if one is found.

    Raises:
        MissingError: a stage has no profile on the cluster's GPU types.
    """
    found = find_plans(problem, 1)
    return found if isinstance(found, NoPlan) else found[0]


def find_plans(problem: Problem, most: int) -> list[Plan] | NoPlan:
    """The plans of the best allocations that can be placed and meet the SLO, best first.

    Raises:
        MissingError: a stage has no profile on the cluster's GPU types.
    """
    parts = list(problem.splits())
    if len(parts) == 1:
        return _find_plans(parts[0], most)
    per_s = problem.worst_per_s(problem.options())
    found = [_find_plans(part, most, per_s) for part in parts]
    every = {plan.allocation: plan for plans in found if isinstance(plans, list) for plan in plans}
    if every:
        best = sorted(every.values(), key=lambda plan: problem.fare_s(plan.prediction, per_s))
        return best[:most]
    none = [one for one in found if isinstance(one, NoPlan)]
    unplaced = next((one.unplaced for one in none if one.unplaced is not None), None)
    return NoPlan(sum(one.tried for one in none), unplaced)


def _find_plans(problem: Problem, most: int, per_s: Floats | None = None) -> list[Plan] | NoPlan:
    tries = _Tries(problem, per_s)
    slo = problem.request.slo
    plans: list[Plan] = []
    for predicted, (groups, placement) in enumerate(tries.placed(), start=1):
        prediction = problem.predict(groups)
        if slo is None or slo_value_s(prediction, slo) <= slo.bound_s:
            plans.append(tries.plan(groups, placement, prediction))
        if len(plans) == most or predicted >= max(most, _patience(problem)):
            break
    return plans or NoPlan(tries.tried, tries.unplaced)


def _patience(problem: Problem) -> int:
    return 1 if problem.best_decides else _MOST_PREDICTED


class _Tries:
    """Allocations packed one after the other, and what came of them."""

    def __init__(self, problem: Problem, per_s: Floats | None) -> None:
        self._problem = problem
        self._llms = problem.options()
        self._per_s = problem.worst_per_s(self._llms) if per_s is None else per_s
        self._bound_s: float | None = None
        self._seen: set[Allocation] = set()
        self._packed: dict[Allocation, Placement | Unplaced] = {}
        self._packs_left = max(_LEAST_PACKED, _GPUS_PACKED // max(1, problem.gpus))
        self.tried = 0
        self.unplaced: Unplaced | None = None

    def plan(self, groups: Allocation, placement: Placement, prediction: Prediction) -> Plan:
        """The plan of an allocation that was placed."""
        problem = self._problem
        return Plan(
            cluster=problem.request.cluster,
            rates=tuple(workflow.rate for workflow in problem.workflows),
            slo=problem.request.slo,
            allocation=groups,
            placement=placement,
            prediction=prediction,
            objective_s=problem.objective_s(prediction),
            bound_s=None if problem.wants_parts else self._bound_s,
            passed_over=self.tried - 1,
        )

    def placed(self) -> Iterator[tuple[Allocation, Placement]]:
        """Allocations that can be placed: in order of cost while packing is quick, then others."""
        walked = max(_LEAST_PACKED, _GPUS_WALKED // max(1, self._problem.gpus))
        most = min(self._problem.request.max_candidates, walked)
        for choice in islice(self._choices(self._llms, self._problem.budgets), most):
            if self._packs_left <= 0:
                break
            if (done := self._try(self._llms, choice)) is not None:
                yield done
        for _, groups, placement in self._coarser():
            if groups not in self._seen:
                self._seen.add(groups)
                yield groups, placement

    def _coarser(self) -> Iterator[tuple[Choice, Allocation, Placement]]:
        """With units held back, best first; families that cannot be better wait for their turn."""
        families = [
            (least.cost_s, llms)
            for llms in _families(self._llms)
            if (least := next(self._choices(llms, self._problem.budgets), None)) is not None
        ]
        found: list[tuple[Choice, Allocation, Placement]] = []
        for least_s, llms in (*sorted(families, key=itemgetter(0)), (np.inf, None)):
            found.sort(key=lambda one: one[0].cost_s)
            while found and found[0][0].cost_s < least_s:
                yield found.pop(0)
            if llms is not None:
                found += self._held_back(llms)

    def _try(self, llms: Sequence[Options], choice: Choice) -> tuple[Allocation, Placement] | None:
        self.tried += 1
        if self._bound_s is None:
            self._bound_s = self._objective_s(allocation(llms, choice))
        too_many = _gpus_for(llms, choice) > self._problem.gpus
        if too_many and self.unplaced is not None:
            return None
        groups = allocation(llms, choice)
        self._packs_left -= not too_many
        placement = self._pack(groups)
        if isinstance(placement, Unplaced):
            self.unplaced = self.unplaced or placement
            return None
        self._seen.add(groups)
        return groups, placement

    def _choices(self, llms: Sequence[Options], budgets: Sequence[int]) -> Iterator[Choice]:
        return self._problem.choices(llms, budgets, self._per_s)

    def _objective_s(self, groups: Allocation) -> float:
        return self._problem.objective_s(self._problem.predict(groups))

    def _pack(self, groups: Allocation) -> Placement | Unplaced:
        if groups not in self._packed:
            self._packed[groups] = pack(
                groups,
                self._problem.cluster,
                units_per_gpu=self._problem.room.units_per_gpu,
                rules=self._problem.place_rules(groups),
            )
        return self._packed[groups]

    def _held_back(self, llms: Sequence[Options]) -> list[tuple[Choice, Allocation, Placement]]:
        """Some that can be placed, with as few units held back as was found to do."""
        gpus = self._problem.gpus
        found = self._within(llms, 0.0)
        low, high, step = 0, 0, 1
        while not found and high < gpus:
            low, high, step = high, min(gpus, high + step), step * 2
            found = self._within(llms, high / gpus)
        while found and high - low > max(1, gpus // 128):
            middle = (low + high) // 2
            if better := self._within(llms, middle / gpus):
                found, high = better, middle
            else:
                low = middle
        return found

    def _within(
        self, llms: Sequence[Options], held: float
    ) -> list[tuple[Choice, Allocation, Placement]]:
        budgets = [int(units * (1 - held)) for units in self._problem.budgets]
        found = []
        for choice in islice(
            self._choices(llms, budgets), _HELD_BACK if self._problem.gpus <= _MANY else 1
        ):
            if _gpus_for(llms, choice) <= self._problem.gpus:
                groups = allocation(llms, choice)
                placement = self._pack(groups)
                if isinstance(placement, Placement):
                    found.append((choice, groups, placement))
                    if len(found) == 1 and self._problem.gpus > 64:
                        break
        return found


def _families(llms: Sequence[Options]) -> Iterator[list[Options]]:
    """All shares of a GPU, only those that divide it evenly, halves, and whole GPUs."""
    size = llms[0].units_per_gpu

    def only(allowed: Sequence[int]) -> list[Options]:
        return [o.where(_among(o, allowed)) for o in llms]

    even = [n for n in range(1, size + 1) if size % n == 0]
    half = [n for n in even if 2 * n >= size]
    for number, allowed in enumerate((list(range(1, size + 1)), even, half, [size])):
        family = only(allowed)
        if all(len(options) for options in family) and (number == 0 or len(allowed) < size):
            yield family


def _among(options: Options, allowed: Sequence[int]) -> Bools:
    mask: Bools = np.isin(options.fraction_units, allowed)
    return mask


def _gpus_for(llms: Sequence[Options], choice: Choice) -> int:
    """GPUs that the shards of a choice touch at least."""
    shards = np.zeros((len(llms[0].gpu_types), llms[0].units_per_gpu + 1))
    for options, at in zip(llms, choice.options, strict=True):
        count = int(options.replicas[at]) * int(options.tensor_parallel[at])
        shards[options.room[at], options.fraction_units[at]] += count
    return sum(gpus_for_shards(row) for row in shards if row.any())
