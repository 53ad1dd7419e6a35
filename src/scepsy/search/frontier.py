"""Which groups may serve an LLM: what each costs, and what each takes.

The rest of the search sees only units and cost of each option, so it needs to know nothing of
profiles or workflows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import ReplicaGroup
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.predict.pipeline import contribution_s, missing_profile
from scepsy.predict.surface import Floats, Surfaces
from scepsy.search.limits import Limits
from scepsy.traces.demand import StageDemand, WorkflowDemand

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.signedinteger]
Shape = tuple[int, float]
"""(tensor_parallel, gpu_fraction)."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage asks of its LLM, and what its latency is worth."""

    stage: Stage
    calls_per_s: float
    worth: float
    """Seconds of the objective for each second of a call's latency."""
    execution_s: float
    """Seconds of its workflow's mean execution latency for each second of a call's."""


@dataclass(frozen=True, slots=True)
class LlmLoad:
    """All stages that one LLM serves, over all workflows."""

    llm: LlmName
    stages: tuple[StageLoad, ...]


@dataclass(frozen=True, slots=True)
class WeightedWorkflow:
    """A workflow, the rate of its executions, and its part in the objective."""

    demand: WorkflowDemand
    rate_per_s: float
    weight: float
    """In (0, 1]; the weights of all workflows add up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What options are chosen from: GPUs of one type, shared in equal units."""

    gpu_type: GpuTypeName
    budget_units: int
    """Units of all GPUs together."""
    units_per_gpu: int
    max_tensor_parallel: int
    """GPUs of the largest NVLink domain."""
    scopes: int = 0
    """Nodes or racks of which any one may be lost; 0 where none must be survived."""


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Groups that may serve one LLM and sustain its load; arrays over them, by rising units."""

    llm: LlmName
    gpu_types: tuple[GpuTypeName, ...]
    """By room."""
    units_per_gpu: int
    room: Ints
    tensor_parallel: Ints
    fraction_units: Ints
    """Units of each of its GPUs that a replica takes."""
    replicas: Ints
    units: Ints
    """Units of its room that the group takes in all."""
    cost_s: Floats
    """Part of the objective."""
    parts_s: Floats
    """(workflows, options) part of each workflow's mean execution latency; (0, options) where
    nobody asked."""

    def __len__(self) -> int:
        return len(self.units)

    def group(self, at: int) -> ReplicaGroup:
        """One option as the group it stands for."""
        return ReplicaGroup(
            llm=self.llm,
            gpu_type=self.gpu_types[self.room[at]],
            tensor_parallel=int(self.tensor_parallel[at]),
            replicas=int(self.replicas[at]),
            gpu_fraction=int(self.fraction_units[at]) / self.units_per_gpu,
        )

    def where(self, mask: Bools | Ints) -> "Options":
        """Only the options that a mask over them keeps, or in another order."""
        return replace(
            self,
            room=self.room[mask],
            tensor_parallel=self.tensor_parallel[mask],
            fraction_units=self.fraction_units[mask],
            replicas=self.replicas[mask],
            units=self.units[mask],
            cost_s=self.cost_s[mask],
            parts_s=self.parts_s[:, mask],
        )

    def costing(self, cost_s: Floats) -> "Options":
        """The same groups by another objective."""
        return replace(self, cost_s=cost_s)


def llm_loads(workflows: Sequence[WeightedWorkflow]) -> tuple[LlmLoad, ...]:
    """What the workflows ask of each LLM, sorted by its name; a shared LLM is there once."""
    stages: dict[LlmName, list[StageLoad]] = {}
    for workflow in workflows:
        for demand in workflow.demand.stages:
            stages.setdefault(demand.stage.llm, []).append(_stage_load(demand, workflow))
    return tuple(LlmLoad(llm, tuple(stages[llm])) for llm in sorted(stages))


def _stage_load(demand: StageDemand, workflow: WeightedWorkflow) -> StageLoad:
    execution_s = contribution_s(demand, 1.0)
    return StageLoad(
        demand.stage,
        calls_per_s=workflow.rate_per_s * demand.calls_per_execution,
        worth=workflow.weight * execution_s,
        execution_s=execution_s,
    )


def profiled_shapes(load: LlmLoad, surfaces: Surfaces, rooms: Sequence[Room]) -> list[list[Shape]]:
    """(rooms,) shapes that are profiled for every stage of an LLM.

    Raises:
        MissingError: there are none in any room.
    """
    stages = [stage.stage for stage in load.stages]
    shapes = [surfaces.shapes(stages, room.gpu_type) for room in rooms]
    if not any(shapes):
        types = " or ".join(str(room.gpu_type) for room in rooms)
        for stage in stages:
            if not any(surfaces.shapes([stage], room.gpu_type) for room in rooms):
                raise missing_profile(stage, f"GPU type {types}")
        raise missing_profile(stages[0], f"a shape that all stages of `{load.llm}` have")
    return shapes


def shape_units(shape: Shape, units_per_gpu: int) -> int:
    """Units that one replica takes on all its GPUs; 0 where its fraction is not whole units."""
    degree, fraction = shape
    units = round(fraction * units_per_gpu)
    return degree * units if abs(units - fraction * units_per_gpu) < 1e-6 else 0


def usable_shapes(
    load: LlmLoad, shapes: Sequence[Shape], room: Room, limits: Limits
) -> list[tuple[Shape, int]]:
    """The shapes that a room and the limits allow, with the units of one replica."""
    found = []
    for shape in shapes:
        degree, units = shape[0], shape_units(shape, room.units_per_gpu)
        if (
            degree <= room.max_tensor_parallel
            and 1 <= units <= room.budget_units
            and limits.allow(load.llm, degree, units // degree, room.units_per_gpu)
        ):
            found.append((shape, units))
    return found


def options(
    load: LlmLoad,
    surfaces: Surfaces,
    rooms: Sequence[Room],
    limits: Limits,
    workflows: Sequence[WorkflowName] = (),
) -> Options:
    """All groups of profiled shapes that fit a room, keep the limits and sustain the load.

    Replicas are left out that would change nothing: where more than were profiled are idle so
    far that no curve falls any further.

    Args:
        load: of the LLM.
        surfaces: of the profiles.
        rooms: one for each GPU type.
        limits: what is allowed.
        workflows: those whose parts are wanted one by one.

    Raises:
        MissingError: a stage of the LLM has no profile on any of the rooms' GPU types.
    """
    blocks = [
        block
        for at, (room, shapes) in enumerate(
            zip(rooms, profiled_shapes(load, surfaces, rooms), strict=True)
        )
        for block in _blocks(
            load,
            surfaces,
            room,
            at,
            usable_shapes(load, shapes, room, limits),
            limits.of(load.llm).min_replicas,
        )
    ]
    min_replicas = limits.of(load.llm).min_replicas
    rows = [row for block in blocks for row in block.rows(rooms, min_replicas, workflows)]
    columns = zip(*rows, strict=True) if rows else ((np.zeros(0),) for _ in range(6))
    room_at, degree, share, count, cost_s, parts_s = (np.concatenate(list(c), -1) for c in columns)
    sizes = np.stack([room_at, degree, share, count]).astype(np.int32)
    units = sizes[1] * sizes[2] * sizes[3]
    return Options(
        llm=load.llm,
        gpu_types=tuple(room.gpu_type for room in rooms),
        units_per_gpu=rooms[0].units_per_gpu,
        room=sizes[0],
        tensor_parallel=sizes[1],
        fraction_units=sizes[2],
        replicas=sizes[3],
        units=units,
        cost_s=cost_s,
        parts_s=parts_s.reshape(len(workflows), len(units)),
    ).where(np.argsort(units, kind="stable"))


_Rows = tuple[Ints, Ints, Ints, Ints, Floats, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Some shapes of one LLM in one room, each with some numbers of replicas."""

    load: LlmLoad
    room: int
    shapes: Sequence[tuple[Shape, int]]
    replicas: Sequence[Ints]
    utilization: Floats
    """Over shapes, then replicas."""
    latency_s: Sequence[Floats]
    """(stages,) each over shapes, then replicas; only where the load is sustained."""
    sustained: Bools
    need: Ints
    """Replicas from which on the load is sustained, whatever their number."""

    def rows(
        self, rooms: Sequence[Room], min_replicas: int, workflows: Sequence[WorkflowName]
    ) -> list[_Rows]:
        """The options among them, as columns; one element, or none if there are none."""
        counts = [len(k) for k in self.replicas]
        count = np.concatenate(self.replicas)
        keep = self.sustained & (count >= min_replicas)
        if scopes := rooms[self.room].scopes:
            keep &= count - -(-count // scopes) >= self.need
        if not keep.any():
            return []
        degree = np.repeat([s[0] for s, _ in self.shapes], counts)
        share = np.repeat([units // s[0] for s, units in self.shapes], counts)
        cost_s = np.zeros(len(count))
        parts_s = np.zeros((len(workflows), len(count)))
        numbers = {name: n for n, name in enumerate(workflows)}
        for stage, latency_s in zip(self.load.stages, self.latency_s, strict=True):
            cost_s += stage.worth * latency_s
            if workflows and stage.execution_s > 0:
                parts_s[numbers[stage.stage.workflow]] += stage.execution_s * latency_s
        room = np.full(int(keep.sum()), self.room)
        return [(room, degree[keep], share[keep], count[keep], cost_s[keep], parts_s[:, keep])]


def _blocks(
    load: LlmLoad,
    surfaces: Surfaces,
    room: Room,
    at: int,
    shapes: Sequence[tuple[Shape, int]],
    min_replicas: int,
) -> list[_Block]:
    """The replicas of all shapes up to those profiled together, the rest shape by shape."""
    if not shapes:
        return []
    stages = [surfaces.surface(stage.stage, room.gpu_type) for stage in load.stages]
    most = [max(stage.most_replicas(shape) for stage in stages) for shape, _ in shapes]
    tops = [room.budget_units // units for _, units in shapes]
    heads = [np.arange(1, min(k, top) + 1) for k, top in zip(most, tops, strict=True)]
    rows = [stage.rows([shape for shape, _ in shapes], heads) for stage in stages]
    count = np.concatenate(heads)
    utilization = np.zeros(len(count))
    for stage, row in zip(load.stages, rows, strict=True):
        if stage.calls_per_s > 0:
            utilization += stage.calls_per_s * row.call_s / count
    known = np.all([np.isfinite(row.call_s) for row in rows], axis=0)
    sustained = known & (utilization < 1)
    latency_s = [np.where(sustained, row.latency_s(utilization), 0.0) for row in rows]
    need = np.concatenate(
        [_need(part) for part in np.split(sustained, np.cumsum([len(k) for k in heads])[:-1])]
    )
    blocks = [_Block(load, at, shapes, heads, utilization, latency_s, sustained, need)]
    ends = np.cumsum([len(k) for k in heads]) - 1
    for n, shape in enumerate(shapes):
        if tops[n] > most[n]:
            after = int(need[ends[n]]) if sustained[ends[n]] else most[n] + 1
            blocks += _tail(load, surfaces, room, at, shape, (most[n], after, min_replicas))
    return blocks


def _need(sustained: Bools) -> Ints:
    """For each number of replicas from 1 on, the least from which on all up to it sustain."""
    numbers = np.arange(1, len(sustained) + 1)
    need: Ints = np.maximum.accumulate(np.where(sustained, 0, numbers)) + 1
    return need


def _tail(
    load: LlmLoad,
    surfaces: Surfaces,
    room: Room,
    at: int,
    shape: tuple[Shape, int],
    counts: tuple[int, int, int],
) -> list[_Block]:
    """One shape with more replicas than were profiled, as far as they change anything.

    Args:
        load: of the LLM.
        surfaces: of the profiles.
        room: where.
        at: the room's number.
        shape: and the units of one replica.
        counts: most replicas that were profiled; those needed just past them; least allowed.
    """
    most, need, min_replicas = counts
    stages = [surfaces.surface(stage.stage, room.gpu_type) for stage in load.stages]
    tails = [stage.tail(shape[0]) for stage in stages]
    work = sum(s.calls_per_s * tail.call_s for s, tail in zip(load.stages, tails, strict=True))
    top = room.budget_units // shape[1]
    idle = min(stage.first for stage in stages)
    low = max(most + 1, floor(work) + 1)
    if idle > 0:
        spare = ceil(low * room.scopes / (room.scopes - 1)) + 1 if room.scopes > 1 else 0
        top = min(top, max(most, ceil(work / idle), spare, min_replicas))
    if top < low:
        return []
    count = np.arange(low, top + 1)
    utilization = work / count
    sustained = utilization < 1
    needed = np.full(len(count), need if low == most + 1 else low)
    latency_s = [tail.latency_s(np.where(sustained, utilization, 0.0)) for tail in tails]
    return [_Block(load, at, [shape], [count], utilization, latency_s, sustained, needed)]


def utilizations(
    load: LlmLoad, surfaces: Surfaces, gpu_type: GpuTypeName, shape: Shape, replicas: int
) -> Floats:
    """(replicas,) utilization of 1, 2, ... replicas of a shape; infinite where not profiled."""
    stages = [surfaces.surface(stage.stage, gpu_type) for stage in load.stages]
    most = max(stage.most_replicas(shape) for stage in stages)
    head = np.arange(1, min(most, replicas) + 1)
    work = np.zeros(len(head))
    beyond = 0.0
    for stage, demand in zip(stages, load.stages, strict=True):
        call_s = stage.rows([shape], [head]).call_s
        if demand.calls_per_s > 0:
            work += demand.calls_per_s * call_s
            beyond += demand.calls_per_s * stage.tail(shape).call_s
        work[~np.isfinite(call_s)] = np.inf
    tail = np.full(max(0, replicas - most), beyond)
    used: Floats = np.concatenate([work, tail]) / np.arange(1, replicas + 1)
    return used
