"""A request for a plan, checked, and the questions that the search asks of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.cluster import Cluster
from scepsy.model.plan import Allocation, Prediction, WorkflowRate, WorkflowWeight
from scepsy.model.slo import Slo, Statistic
from scepsy.model.workflow import WorkflowName
from scepsy.place.topology import UNITS_PER_GPU, largest_domain
from scepsy.predict.pipeline import RatedWorkflow, predict
from scepsy.profiles.curve import ProfileSet
from scepsy.search.exact import allocation, choices
from scepsy.search.frontier import LlmLoad, Options, Room, WeightedWorkflow, llm_loads, options
from scepsy.traces.demand import WorkflowDemand


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
    """1 for a workflow that is not named. The objective is the weighted mean of the workflows'
    mean execution latencies, so only the ratios of weights matter."""
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
    workflows: tuple[RatedWorkflow, ...]
    """By name."""
    weights: tuple[float, ...]
    """(workflows,) in (0, 1], adding up to 1."""
    room: Room

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
                RatedWorkflow(w.demand, WorkflowRate(w.rate.workflow, w.rate.rate_per_s * factor))
                for w in self.workflows
            ),
        )

    def on(self, cluster: Cluster) -> "Problem":
        """The same problem on another cluster."""
        return problem(
            replace(self.request, cluster=cluster, rates=tuple(w.rate for w in self.workflows))
        )

    def options(self, budget_units: int | None = None) -> list[Options]:
        """The options of each LLM within a budget; the cluster's when None."""
        budget = self.room.budget_units if budget_units is None else budget_units
        room = replace(self.room, budget_units=budget)
        return [options(load, self.request.profiles, room) for load in self.loads]

    def predict(self, groups: Allocation) -> Prediction:
        """What an allocation gives to the workflows."""
        return predict(self.workflows, groups, self.request.profiles)

    def objective_s(self, prediction: Prediction) -> float:
        """Weighted mean of the workflows' mean execution latencies."""
        means_s = (w.execution_s_mean for w in prediction.workflows)
        return sum(weight * s for weight, s in zip(self.weights, means_s, strict=True))

    def meets_slo(self, budget_units: int, *, candidates: int) -> bool:
        """Whether one of so many best allocations within a budget meets the SLO, if there is one.

        Exact where ``best_decides``; elsewhere it may miss one that does.
        """
        llms = self.options(budget_units)
        slo = self.request.slo
        return any(
            slo is None or slo_value_s(self.predict(allocation(llms, choice)), slo) <= slo.bound_s
            for choice in islice(choices(llms, budget_units), candidates)
        )

    @property
    def best_decides(self) -> bool:
        """Whether no allocation meets the SLO if the one of the least objective does not."""
        slo = self.request.slo
        return slo is not None and slo.statistic is Statistic.MEAN and len(self.workflows) == 1


def slo_value_s(prediction: Prediction, slo: Slo) -> float:
    """The SLO's statistic in the workflow where it is largest."""
    return max(float(getattr(w, f"execution_s_{slo.statistic}")) for w in prediction.workflows)


def problem(request: PlanRequest) -> Problem:
    """Check a request.

    Raises:
        UnknownNameError: a rate or a weight names a workflow that was not recorded.
        InputError: no rates, a rate given twice, or a cluster of several GPU types.
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
    types = sorted({gpu.type for gpu in request.cluster.gpus})
    if len(types) > 1:
        raise InputError(
            f"the cluster mixes GPU types: {', '.join(types)}",
            hint="plan for one type at a time, each with a cluster file of its own",
        )
    if request.units_per_gpu < 1 or request.max_candidates < 1:
        raise InputError("units_per_gpu and max_candidates must be >= 1")
    raw = [weights[name].weight if name in weights else 1.0 for name in sorted(rates)]
    return Problem(
        request,
        tuple(RatedWorkflow(recorded[name], rates[name]) for name in sorted(rates)),
        tuple(weight / sum(raw) for weight in raw),
        Room(
            gpu_type=types[0],
            budget_units=len(request.cluster.gpus) * request.units_per_gpu,
            units_per_gpu=request.units_per_gpu,
            max_tensor_parallel=largest_domain(request.cluster),
        ),
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
