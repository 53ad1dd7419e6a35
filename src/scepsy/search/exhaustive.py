"""Every allocation of a small problem, one by one: the oracle that the exact search is held to.

Written from the definitions, with no arrays, tables or pruning, and with the profiles' own
curves, so that it shares no code with what it checks. Grows as the product of the LLMs' options.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.profiles.curve import ProfileSet
from scepsy.search.frontier import Room, WeightedWorkflow


@dataclass(frozen=True, slots=True)
class Enumerated:
    """One allocation within the budget."""

    allocation: Allocation
    units: int
    cost_s: float
    """Weighted sum of calls x latency / fan-out; infinite where the load is not sustained."""
    headroom: float
    """Factor on all rates at which it saturates."""


def enumerate_all(
    workflows: Sequence[WeightedWorkflow], profiles: ProfileSet, room: Room
) -> Iterator[Enumerated]:
    """Every allocation of profiled shapes within a budget, sustained or not, in no order."""
    llms = sorted({s.stage.llm for w in workflows for s in w.demand.stages})
    groups = [list(_groups(llm, workflows, profiles, room)) for llm in llms]
    for chosen in product(*groups):
        units = sum(one.units for one in chosen)
        if units <= room.budget_units:
            yield Enumerated(
                Allocation(tuple(group for one in chosen for group in one.allocation.groups)),
                units,
                sum(one.cost_s for one in chosen),
                min(one.headroom for one in chosen),
            )


def _groups(
    llm: LlmName, workflows: Sequence[WeightedWorkflow], profiles: ProfileSet, room: Room
) -> Iterator[Enumerated]:
    stages = [s.stage for w in workflows for s in w.demand.stages if s.stage.llm == llm]
    for degree, fraction in profiles.shapes(llm, room.gpu_type, stages):
        share = fraction * room.units_per_gpu
        if degree > room.max_tensor_parallel or abs(share - round(share)) > 1e-6:
            continue
        each = degree * round(share)
        for replicas in range(1, room.budget_units // each + 1):
            group = ReplicaGroup(
                llm=llm,
                gpu_type=room.gpu_type,
                tensor_parallel=degree,
                gpu_fraction=fraction,
                replicas=replicas,
            )
            cost_s, headroom = _cost(group, workflows, profiles)
            yield Enumerated(Allocation((group,)), each * replicas, cost_s, headroom)


def _cost(
    group: ReplicaGroup, workflows: Sequence[WeightedWorkflow], profiles: ProfileSet
) -> tuple[float, float]:
    served = [(w, s) for w in workflows for s in w.demand.stages if s.stage.llm == group.llm]
    curves = [
        profiles.curve(
            s.stage, group.gpu_type, group.tensor_parallel, group.gpu_fraction, group.replicas
        )
        for _, s in served
    ]
    utilization = 0.0
    for (workflow, stage), curve in zip(served, curves, strict=True):
        if curve is None:
            return float("inf"), 0.0
        calls_per_s = workflow.rate_per_s * stage.calls_per_execution
        utilization += calls_per_s / (group.replicas * curve.capacity_per_s)
    cost_s = sum(
        workflow.weight * stage.calls_per_execution * curve.latency_s(utilization) / stage.fan_out
        for (workflow, stage), curve in zip(served, curves, strict=True)
        if curve is not None
    )
    return cost_s, 1 / utilization
