"""What a baseline is: from the task that every system is given to systems that can be simulated.

A baseline offers the configurations among which its own tuning rule chooses. Whoever compares
simulates them all on seeds that are kept for tuning and takes the best one for the baseline.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scepsy.errors import InputError
from scepsy.model.cluster import Cluster, GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName
from scepsy.place.pack import Unplaced, pack
from scepsy.policy.order import OrderPolicy, first_come
from scepsy.profiles.curve import ProfileSet
from scepsy.search.frontier import LlmLoad, WeightedWorkflow, llm_loads
from scepsy.sim.fleet import Serving
from scepsy.sim.serve import fleet_of
from scepsy.sim.specs import SpecOf, specs_of
from scepsy.traces.demand import WorkflowDemand


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every system is given, ours and baselines alike."""

    demands: tuple[WorkflowDemand, ...]
    """Of the workflows that have a rate at least."""
    profiles: ProfileSet
    cluster: Cluster
    rates: tuple[WorkflowRate, ...]
    spec_of: SpecOf

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return len(self.cluster.gpus)

    @property
    def gpu_type(self) -> GpuTypeName:
        """The one type of all GPUs.

        Raises:
            InputError: the cluster mixes types, for which no baseline has a rule.
        """
        types = {gpu.type for gpu in self.cluster.gpus}
        if len(types) > 1:
            raise InputError(f"baselines know one GPU type, the cluster has {len(types)}")
        return types.pop()

    @property
    def loads(self) -> tuple[LlmLoad, ...]:
        """What each LLM must serve, by its name; workflows count alike."""
        recorded = {demand.workflow: demand for demand in self.demands}
        weight = 1 / len(self.rates)
        return llm_loads(
            [WeightedWorkflow(recorded[r.workflow], r.rate_per_s, weight) for r in self.rates]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One configuration, ready to be simulated."""

    name: str
    gpus: float
    """GPUs that it takes; may be fractional."""
    make: Callable[[], Serving]
    """What serves, fresh and idle, for each simulation anew."""
    order: OrderPolicy = first_come
    allocation: Allocation | None = None
    """None where no LLM owns its share of a GPU."""
    note: str = ""
    """What was chosen, in words."""


Baseline = Callable[[Task], tuple[System, ...]]
"""The configurations that a baseline's own tuning rule may choose from, on the whole cluster.

Where none can serve the load it gives its best attempts; none where not even the weights fit.
"""


def allocation_of(groups: Iterable[ReplicaGroup]) -> Allocation:
    """An allocation of groups in any order."""
    return Allocation(tuple(sorted(groups, key=_llm)))


def is_placeable(allocation: Allocation, cluster: Cluster) -> bool:
    """Whether every replica finds its GPUs, each inside one NVLink domain."""
    return not isinstance(pack(allocation, cluster), Unplaced)


def fixed_system(
    task: Task, name: str, allocation: Allocation, *, order: OrderPolicy = first_come, note: str
) -> System:
    """A system that serves by an allocation that stays as it is."""
    specs = specs_of(allocation, task.spec_of)
    return System(
        name=name,
        gpus=allocation.gpus,
        make=lambda: fleet_of(allocation, specs),
        order=order,
        allocation=allocation,
        note=note,
    )


def _llm(group: ReplicaGroup) -> LlmName:
    return group.llm
