"""A request for a plan, checked, and the questions that the search asks of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from typing import TypeVar

import numpy as np

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.cluster import Cluster, GpuTypeName
from scepsy.model.plan import Allocation, Prediction, WorkflowRate, WorkflowWeight
from scepsy.model.slo import Slo, Statistic
from scepsy.model.workflow import WorkflowName
from scepsy.place.rules import PlaceRules
from scepsy.place.topology import UNITS_PER_GPU, largest_domain
from scepsy.predict.pipeline import RatedWorkflow, predict
from scepsy.predict.surface import Floats, Surfaces
from scepsy.profiles.curve import ProfileSet
from scepsy.search.exact import Choice, choices
from scepsy.search.fair import OTHERS, fair_choices
from scepsy.search.frontier import LlmLoad, Options, Room, WeightedWorkflow, llm_loads, options
from scepsy.search.limits import Limits, Scope, Target
from scepsy.search.survive import most_together
from scepsy.traces.demand import WorkflowDemand


class Objective(StrEnum):
    """What is made small, over the workflows."""

    MEAN = "mean"
    """The weighted mean of their mean execution latencies."""
    MAX_MIN = "max-min"
    """The largest of weight x mean execution latency / its least on the cluster alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What to plan for: workflows at rates, on a cluster, within an SLO."""

    demands: tuple[WorkflowDemand, ...]
    """Of the planned workflows at least; those without a rate are left out."""
    profiles: ProfileSet
    cluster: Cluster
    rates: tuple[WorkflowRate, ...]
    slo: Slo | None = None
    """Holds for each workflow."""
    weights: tuple[WorkflowWeight, ...] = ()
    """1 for a workflow that is not named. Only their ratios matter."""
    objective: Objective = Objective.MEAN
    limits: Limits = field(default_factory=Limits)
    units_per_gpu: int = UNITS_PER_GPU
    """GPUs are shared in fractions of 1 over this; profiled fractions that do not fit are left
    out, so 1 gives whole GPUs only."""
    max_candidates: int = 1000
    """Allocations tried, best first, until one can be placed and meets the SLO; fewer on more
    than 20 GPUs."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A checked request, split into what each LLM must serve and the room there is."""

    request: PlanRequest
    cluster: Cluster
    """Without GPUs that are kept free by name."""
    workflows: tuple[RatedWorkflow, ...]
    """By name."""
    weights: tuple[float, ...]
    """(workflows,) in (0, 1], adding up to 1."""
    rooms: tuple[Room, ...]
    """By GPU type."""
    surfaces: Surfaces
    most_gpus: Mapping[GpuTypeName, int]
    """GPUs of each type that may be touched."""
    at_most: int
    """GPUs that may be touched, whatever their types."""

    @property
    def room(self) -> Room:
        """The first room; the only one where the cluster has one GPU type."""
        return self.rooms[0]

    @property
    def budgets(self) -> tuple[int, ...]:
        """(rooms,) units."""
        return tuple(room.budget_units for room in self.rooms)

    @property
    def gpus(self) -> int:
        """GPUs that may be touched."""
        return min(self.at_most, sum(self.most_gpus.values()))

    @property
    def loads(self) -> tuple[LlmLoad, ...]:
        """What each LLM must serve."""
        return llm_loads(
            [
                WeightedWorkflow(workflow.demand, workflow.rate.rate_per_s, weight)
                for workflow, weight in zip(self.workflows, self.weights, strict=True)
            ]
        )

    def scaled(self, factor: float) -> "Problem":
        """The same problem with all rates times a factor."""
        return replace(
            self,
            workflows=tuple(
                replace(w, rate=WorkflowRate(w.rate.workflow, w.rate.rate_per_s * factor))
                for w in self.workflows
            ),
        )

    def on(self, cluster: Cluster) -> "Problem":
        """The same problem on another cluster."""
        return problem(
            replace(self.request, cluster=cluster, rates=tuple(w.rate for w in self.workflows)),
            self.surfaces,
        )

    def within(self, gpus: Sequence[int]) -> "Problem":
        """The same problem with at most so many GPUs for each room."""
        return replace(
            self,
            most_gpus={room.gpu_type: n for room, n in zip(self.rooms, gpus, strict=True)},
            rooms=tuple(
                replace(room, budget_units=min(room.budget_units, n * room.units_per_gpu))
                for room, n in zip(self.rooms, gpus, strict=True)
            ),
        )

    def splits(self) -> Iterator["Problem"]:
        """The same problem for each way to leave enough GPUs untouched of one type or another."""
        sizes = [self.most_gpus[room.gpu_type] for room in self.rooms]
        over = sum(sizes) - self.at_most
        if over <= 0:
            yield self
            return
        for less in product(*(range(min(over, size) + 1) for size in sizes)):
            if sum(less) == over:
                yield self.within([size - n for size, n in zip(sizes, less, strict=True)])

    def options(self, budgets: Sequence[int] | None = None) -> list[Options]:
        """The options of each LLM within budgets; the cluster's when None."""
        rooms = self.rooms
        if budgets is not None:
            rooms = tuple(
                replace(room, budget_units=n) for room, n in zip(rooms, budgets, strict=True)
            )
        parts = self.wants_parts
        names = [w.demand.workflow for w in self.workflows] if parts else []
        limits = self.request.limits
        return [options(load, self.surfaces, rooms, limits, names) for load in self.loads]

    @property
    def wants_parts(self) -> bool:
        """Whether the workflows' latencies are looked at one by one."""
        return len(self.workflows) > 1 and self.request.objective is Objective.MAX_MIN

    def choices(
        self, llms: Sequence[Options], budgets: Sequence[int], per_s: Floats
    ) -> Iterator[Choice]:
        """Choices within budgets, by rising objective.

        Args:
            llms: the options of each LLM, or some of them.
            budgets: units of each room.
            per_s: ``worst_per_s`` of all options.
        """
        if not self.wants_parts:
            return choices(llms, budgets)
        return fair_choices(llms, budgets, self.gaps_s, per_s)

    @property
    def gaps_s(self) -> Floats:
        """(workflows,) mean time of an execution in which no call runs."""
        return np.array([np.mean([e.gap_s for e in w.demand.executions]) for w in self.workflows])

    def worst_per_s(self, llms: Sequence[Options]) -> Floats:
        """(workflows,) what a second of each counts under max-min: weight / least latency.

        The least is what it has where the others get no more than they need.
        """
        if not self.wants_parts:
            return np.zeros(0)
        least_s = self.gaps_s
        for n in range(len(self.workflows)):
            alone = [options.costing(options.parts_s[n]) for options in llms]
            best = next(choices(alone, self.budgets), None)
            least_s[n] += np.inf if best is None else best.cost_s
        per_s: Floats = np.array(self.weights) * len(self.weights) / least_s
        return per_s

    def predict(self, groups: Allocation) -> Prediction:
        """What an allocation gives to the workflows."""
        return predict(self.workflows, groups, self.request.profiles)

    def objective_s(self, prediction: Prediction) -> float:
        """Weighted mean of the workflows' mean execution latencies."""
        means_s = (w.execution_s_mean for w in prediction.workflows)
        return sum(weight * s for weight, s in zip(self.weights, means_s, strict=True))

    def fare_s(self, prediction: Prediction, per_s: Floats) -> float:
        """What is made small: the objective, or under max-min what the worst fares."""
        if not self.wants_parts:
            return self.objective_s(prediction)
        fares = per_s * np.array([w.execution_s_mean for w in prediction.workflows])
        return float(fares.max() + OTHERS * fares.mean())

    def place_rules(self, groups: Allocation) -> PlaceRules:
        """What a placement of an allocation must keep."""
        limits = self.request.limits
        together = {}
        if limits.survive is not None:
            loads = {load.llm: load for load in self.loads}
            together = {
                group.llm: most_together(loads[group.llm], self.surfaces, group)
                for group in groups.groups
            }
        return PlaceRules(
            max_gpus=self.most_gpus,
            max_together=together,
            by_rack=limits.survive is Scope.RACK,
            equal_shares=limits.target is Target.K8S_MPS_EQUAL,
        )

    @property
    def best_decides(self) -> bool:
        """Whether no allocation meets the SLO if the one of the least objective does not."""
        slo = self.request.slo
        return slo is not None and slo.statistic is Statistic.MEAN and len(self.workflows) == 1


def slo_value_s(prediction: Prediction, slo: Slo) -> float:
    """The SLO's statistic in the workflow where it is largest."""
    return max(float(getattr(w, f"execution_s_{slo.statistic}")) for w in prediction.workflows)


def problem(request: PlanRequest, surfaces: Surfaces | None = None) -> Problem:
    """Check a request.

    Args:
        request: what to plan for.
        surfaces: of its profiles, where they were made before.

    Raises:
        UnknownNameError: a rate, a weight or a limit names what is not there.
        InputError: no rates, a rate given twice, or no GPU that is not kept free.
    """
    recorded = {demand.workflow: demand for demand in request.demands}
    rates = _by_workflow(request.rates, recorded, "rate")
    if not rates:
        raise InputError("no rate is given", hint="give at least one, e.g. `--rate rag=2`")
    if idle := sorted({weight.workflow for weight in request.weights} - set(rates)):
        raise InputError(
            f"a weight but no rate is given for: {', '.join(idle)}",
            hint=f"rates are given for: {', '.join(sorted(rates))}",
        )
    weights = _by_workflow(request.weights, recorded, "weight")
    if request.units_per_gpu < 1 or request.max_candidates < 1:
        raise InputError("units_per_gpu and max_candidates must be >= 1")
    raw = [weights[name].weight if name in weights else 1.0 for name in sorted(rates)]
    llms = sorted({s.stage.llm for name in rates for s in recorded[name].stages})
    for name in request.limits.llms:
        if name not in llms:
            raise UnknownNameError("LLM", name, llms)
    cluster = _open_cluster(request)
    rooms = _rooms(request, cluster)
    return Problem(
        request,
        cluster,
        tuple(RatedWorkflow(recorded[name], rates[name]) for name in sorted(rates)),
        tuple(weight / sum(raw) for weight in raw),
        rooms,
        surfaces or Surfaces(request.profiles),
        {room.gpu_type: room.budget_units // room.units_per_gpu for room in rooms},
        len(cluster.gpus) - request.limits.free_gpus,
    )


def _open_cluster(request: PlanRequest) -> Cluster:
    """The cluster without GPUs that are kept free by name."""
    keep_free = request.limits.keep_free
    known = {gpu.id for gpu in request.cluster.gpus}
    for gpu in keep_free - known:
        raise UnknownNameError("GPU", gpu, known)
    left = tuple(gpu for gpu in request.cluster.gpus if gpu.id not in keep_free)
    if len(left) <= request.limits.free_gpus:
        raise InputError(
            f"no GPU is left to plan with: {len(known)} GPUs, "
            f"{len(known) - len(left) + request.limits.free_gpus} of them kept free"
        )
    return Cluster(left, request.cluster.types)


def _rooms(request: PlanRequest, cluster: Cluster) -> tuple[Room, ...]:
    sizes = Counter(gpu.type for gpu in cluster.gpus)
    free = request.limits.free_gpus if len(sizes) == 1 else 0  # else: see `splits`
    survive = request.limits.survive

    def scopes(kind: GpuTypeName) -> int:
        gpus = [gpu for gpu in cluster.gpus if gpu.type == kind]
        return len({gpu.rack if survive is Scope.RACK else gpu.node for gpu in gpus})

    return tuple(
        Room(
            gpu_type=kind,
            budget_units=(sizes[kind] - free) * request.units_per_gpu,
            units_per_gpu=request.units_per_gpu,
            max_tensor_parallel=largest_domain(cluster, kind),
            scopes=scopes(kind) if survive is not None else 0,
        )
        for kind in sorted(sizes)
    )


_Named = TypeVar("_Named", WorkflowRate, WorkflowWeight)


def _by_workflow(
    given: tuple[_Named, ...], recorded: Mapping[WorkflowName, WorkflowDemand], kind: str
) -> dict[WorkflowName, _Named]:
    by_name: dict[WorkflowName, _Named] = {}
    for item in given:
        if item.workflow not in recorded:
            raise UnknownNameError("workflow", item.workflow, recorded)
        if item.workflow in by_name:
            raise InputError(f"workflow `{item.workflow}` has more than one {kind}")
        by_name[item.workflow] = item
    return by_name
