"""Every allocation of a small problem, one by one: the oracle that the exact search is held to.

Written from the definitions, with no arrays, tables or pruning, and with the profiles' own
curves, so that it shares no code with what it checks. Grows as the product of the LLMs' options.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.curve import ProfileSet
from scepsy.search.frontier import Room, WeightedWorkflow


@dataclass(frozen=True, slots=True)
class Enumerated:
    """One allocation within the budgets."""

    allocation: Allocation
    units: Mapping[GpuTypeName, int]
    parts_s: Mapping[WorkflowName, float]
    """Sum of calls x latency / fan-out; infinite where the load is not sustained."""
    headroom: float
    """Factor on all rates at which it saturates."""

    def cost_s(self, workflows: Sequence[WeightedWorkflow]) -> float:
        """The weighted sum of the workflows' parts."""
        return sum(w.weight * self.parts_s[w.demand.workflow] for w in workflows)


def enumerate_all(
    workflows: Sequence[WeightedWorkflow], profiles: ProfileSet, rooms: Sequence[Room]
) -> Iterator[Enumerated]:
    """Every allocation of profiled shapes within the rooms, sustained or not, in no order."""
    llms = sorted({s.stage.llm for w in workflows for s in w.demand.stages})
    groups = [
        [one for room in rooms for one in _groups(llm, workflows, profiles, room)] for llm in llms
    ]
    for chosen in product(*groups):
        units = {r.gpu_type: sum(one.units.get(r.gpu_type, 0) for one in chosen) for r in rooms}
        if all(units[room.gpu_type] <= room.budget_units for room in rooms):
            yield Enumerated(
                Allocation(tuple(group for one in chosen for group in one.allocation.groups)),
                units,
                {
                    w.demand.workflow: sum(one.parts_s[w.demand.workflow] for one in chosen)
                    for w in workflows
                },
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
            parts_s, headroom = _parts(group, workflows, profiles)
            yield Enumerated(
                Allocation((group,)), {room.gpu_type: each * replicas}, parts_s, headroom
            )


def _parts(
    group: ReplicaGroup, workflows: Sequence[WeightedWorkflow], profiles: ProfileSet
) -> tuple[dict[WorkflowName, float], float]:
    served = [(w, s) for w in workflows for s in w.demand.stages if s.stage.llm == group.llm]
    curves = [
        profiles.curve(
            s.stage, group.gpu_type, group.tensor_parallel, group.gpu_fraction, group.replicas
        )
        for _, s in served
    ]
    parts_s = {w.demand.workflow: 0.0 for w in workflows}
    utilization = 0.0
    for (workflow, stage), curve in zip(served, curves, strict=True):
        if curve is None:
            return dict.fromkeys(parts_s, float("inf")), 0.0
        calls_per_s = workflow.rate_per_s * stage.calls_per_execution
        utilization += calls_per_s / (group.replicas * curve.capacity_per_s)
    for (workflow, stage), curve in zip(served, curves, strict=True):
        if curve is not None:
            parts_s[workflow.demand.workflow] += (
                stage.calls_per_execution * curve.latency_s(utilization) / stage.fan_out
            )
    return parts_s, 1 / utilization
