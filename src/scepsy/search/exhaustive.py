"""Every allocation of a small problem, one by one: the oracle that the exact search is held to.

Written from the definitions, with no arrays, tables or pruning, and with the profiles' own
curves, so that it shares no code with what it checks. Grows as the product of the LLMs' options,
and with every way to place each where placements are looked at.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from scepsy.model.cluster import Cluster, Gpu, GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.curve import ProfileSet
from scepsy.search.frontier import Room, WeightedWorkflow
from scepsy.search.limits import Limits, Scope, Target


@dataclass(frozen=True, slots=True)
class Enumerated:
    """One allocation within the budgets and limits."""

    allocation: Allocation
    units: Mapping[GpuTypeName, int]
    parts_s: Mapping[WorkflowName, float]
    """Sum of calls x latency / fan-out; infinite where the load is not sustained."""
    headroom: float
    """Factor on all rates at which it saturates; where one node or rack may be lost, the least
    over what is left of it then."""

    def cost_s(self, workflows: Sequence[WeightedWorkflow]) -> float:
        """The weighted sum of the workflows' parts."""
        return sum(w.weight * self.parts_s[w.demand.workflow] for w in workflows)


def enumerate_all(
    workflows: Sequence[WeightedWorkflow],
    profiles: ProfileSet,
    rooms: Sequence[Room],
    limits: Limits | None = None,
) -> Iterator[Enumerated]:
    """Every allocation of profiled shapes within the rooms and limits, sustained or not."""
    llms = sorted({s.stage.llm for w in workflows for s in w.demand.stages})
    groups = [
        [one for room in rooms for one in _groups(llm, workflows, profiles, room, limits)]
        for llm in llms
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
    llm: LlmName,
    workflows: Sequence[WeightedWorkflow],
    profiles: ProfileSet,
    room: Room,
    limits: Limits | None,
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
            if limits is not None and not _keeps(group, limits):
                continue
            parts_s, headroom = _parts(group, workflows, profiles)
            if room.scopes:
                headroom = min(headroom, _after_loss(group, workflows, profiles, room.scopes))
            yield Enumerated(
                Allocation((group,)), {room.gpu_type: each * replicas}, parts_s, headroom
            )


def _keeps(group: ReplicaGroup, limits: Limits) -> bool:
    """Whether a group keeps the limits that it alone can break."""
    own, whole = limits.llms.get(group.llm), group.gpu_fraction == 1
    if own is not None:
        if own.tensor_parallel is not None and own.tensor_parallel != group.tensor_parallel:
            return False
        if group.replicas < own.min_replicas or not (own.share or whole):
            return False
    if limits.target is Target.K8S_MPS_EQUAL and not whole:
        parts = 1 / group.gpu_fraction
        return limits.share and group.tensor_parallel == 1 and abs(parts - round(parts)) < 1e-6
    return whole or (limits.share and limits.target is Target.ANY)


def _after_loss(
    group: ReplicaGroup, workflows: Sequence[WeightedWorkflow], profiles: ProfileSet, scopes: int
) -> float:
    """The least headroom with as many lost as sit together when spread evenly, or fewer."""
    together = Counter(replica % scopes for replica in range(group.replicas))
    return min(
        _without(group, lost, workflows, profiles) for lost in range(1, max(together.values()) + 1)
    )


def _without(
    group: ReplicaGroup, lost: int, workflows: Sequence[WeightedWorkflow], profiles: ProfileSet
) -> float:
    """Headroom of a group without some of its replicas."""
    if lost == group.replicas:
        return 0.0
    return _parts(replace(group, replicas=group.replicas - lost), workflows, profiles)[1]


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


@dataclass(frozen=True, slots=True)
class EnumeratedPlan:
    """One allocation that sustains the rates, keeps the limits, and has a place."""

    allocation: Allocation
    parts_s: Mapping[WorkflowName, float]
    headroom: float
    touched: Mapping[GpuTypeName, int]
    """GPUs that it touches at least."""


def enumerate_plans(
    workflows: Sequence[WeightedWorkflow],
    profiles: ProfileSet,
    cluster: Cluster,
    units_per_gpu: int,
    limits: Limits,
) -> Iterator[EnumeratedPlan]:
    """Every allocation for which some placement on a cluster keeps the limits."""
    gpus = [gpu for gpu in cluster.gpus if gpu.id not in limits.keep_free]
    kinds = sorted({gpu.type for gpu in gpus})
    rooms = [
        Room(
            gpu_type=kind,
            budget_units=sum(gpu.type == kind for gpu in gpus) * units_per_gpu,
            units_per_gpu=units_per_gpu,
            max_tensor_parallel=len(gpus),
        )
        for kind in kinds
    ]
    for one in enumerate_all(workflows, profiles, rooms, limits):
        if not one.headroom > 1:
            continue
        touched = {
            kind: least_touched(
                [g for g in one.allocation.groups if g.gpu_type == kind],
                [gpu for gpu in gpus if gpu.type == kind],
                units_per_gpu,
                limits,
                _may_be_lost(one.allocation, workflows, profiles, limits),
            )
            for kind in kinds
        }
        found = {kind: n for kind, n in touched.items() if n is not None}
        if len(found) == len(kinds) and sum(found.values()) <= len(gpus) - limits.free_gpus:
            yield EnumeratedPlan(one.allocation, one.parts_s, one.headroom, found)


def _may_be_lost(
    allocation: Allocation,
    workflows: Sequence[WeightedWorkflow],
    profiles: ProfileSet,
    limits: Limits,
) -> dict[LlmName, int]:
    """Replicas of each LLM that may be lost, so many or fewer; none are named if none must."""
    if limits.survive is None:
        return {}
    return {
        group.llm: next(
            lost - 1
            for lost in range(1, group.replicas + 1)
            if not _without(group, lost, workflows, profiles) > 1
        )
        for group in allocation.groups
    }


_State = tuple[tuple[int, int], ...]
"""Of each GPU: units free, and the units that the last replica on it has, 0 for none."""


def least_touched(
    groups: Sequence[ReplicaGroup],
    gpus: Sequence[Gpu],
    units_per_gpu: int,
    limits: Limits,
    together: Mapping[LlmName, int],
) -> int | None:
    """GPUs of one type that groups touch at least; None where they find no place.

    Each replica is tried on every set of GPUs of every NVLink domain; of states that differ
    only in the order of GPUs that are alike, one is looked at.

    Args:
        groups: of the GPU type.
        gpus: of the GPU type.
        units_per_gpu: how GPUs are shared.
        limits: what the placement must keep.
        together: replicas of an LLM that a node, or rack, may hold at most, where named.
    """
    states: set[_State] = {((units_per_gpu, 0),) * len(gpus)}
    for group in groups:
        units = round(group.gpu_fraction * units_per_gpu)
        counted: set[tuple[_State, tuple[str, ...]]] = {(state, ()) for state in states}
        for _ in range(group.replicas):
            counted = {
                (_taken(state, at, units, gpus), tuple(sorted((*failing, *scopes))))
                for state, failing in counted
                for at in combinations(range(len(gpus)), group.tensor_parallel)
                if len({gpus[n].domain for n in at}) == 1
                and all(state[n][0] >= units for n in at)
                and (limits.target is not Target.K8S_MPS_EQUAL or _alike(state, at, units, gpus))
                for scopes in [_scopes(at, gpus, limits)]
                if all(failing.count(scope) < together[group.llm] for scope in scopes)
            }
        states = {state for state, _ in counted}
    return min((sum(free < units_per_gpu for free, _ in state) for state in states), default=None)


def _scopes(at: Sequence[int], gpus: Sequence[Gpu], limits: Limits) -> set[str]:
    """Nodes, or racks, of which any takes a replica on some GPUs with it; none if none must."""
    if limits.survive is None:
        return set()
    return {gpus[n].rack if limits.survive is Scope.RACK else gpus[n].node for n in at}


def _alike(state: _State, at: Sequence[int], units: int, gpus: Sequence[Gpu]) -> bool:
    """Whether all replicas on some GPUs' nodes have so many units."""
    nodes = {gpus[n].node for n in at}
    return all(
        share in {0, units}
        for gpu, (_, share) in zip(gpus, state, strict=True)
        if gpu.node in nodes
    )


def _taken(state: _State, at: Sequence[int], units: int, gpus: Sequence[Gpu]) -> _State:
    """With units of some GPUs taken; GPUs that are alike in an order of their own."""
    after = [(free - units, units) if n in at else (free, s) for n, (free, s) in enumerate(state)]
    alike: dict[tuple[str, str, str], list[int]] = {}
    for n, gpu in enumerate(gpus):
        alike.setdefault((gpu.domain, gpu.node, gpu.rack), []).append(n)
    ordered = list(after)
    for numbers in alike.values():
        for n, value in zip(numbers, sorted(after[n] for n in numbers), strict=True):
            ordered[n] = value
    return tuple(ordered)
