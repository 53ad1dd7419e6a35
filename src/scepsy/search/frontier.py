"""Which groups may serve an LLM: what each costs, and what each gives.

The rest of the search sees only units, headroom and cost of each option, so it needs to know
nothing of profiles or workflows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import ReplicaGroup
from scepsy.model.workflow import LlmName, Stage
from scepsy.predict.pipeline import contribution_s, missing_profile
from scepsy.predict.surface import Floats, Ints, StageSurface
from scepsy.profiles.curve import ProfileSet
from scepsy.traces.demand import StageDemand, WorkflowDemand


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage asks of its LLM, and what its latency is worth."""

    stage: Stage
    calls_per_s: float
    worth: float
    """Seconds of the objective for each second of a call's latency."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Options:
    """Groups that may serve one LLM; arrays over them, sorted by units, then cost."""

    llm: LlmName
    gpu_type: GpuTypeName
    units_per_gpu: int
    tensor_parallel: Ints
    fraction_units: Ints
    """Units of each of its GPUs that a replica takes."""
    replicas: Ints
    units: Ints
    """Units that the group takes in all."""
    headroom: Floats
    """Factor by which all rates may grow until the group saturates."""
    cost_s: Floats
    """Part of the objective; infinite where the group does not sustain the load."""

    def __len__(self) -> int:
        return len(self.units)

    def group(self, at: int) -> ReplicaGroup:
        """One option as the group it stands for."""
        return ReplicaGroup(
            llm=self.llm,
            gpu_type=self.gpu_type,
            tensor_parallel=int(self.tensor_parallel[at]),
            replicas=int(self.replicas[at]),
            gpu_fraction=int(self.fraction_units[at]) / self.units_per_gpu,
        )

    def where(self, mask: npt.NDArray[np.bool_]) -> "Options":
        """Only the options that a mask over them keeps."""
        return Options(
            llm=self.llm,
            gpu_type=self.gpu_type,
            units_per_gpu=self.units_per_gpu,
            tensor_parallel=self.tensor_parallel[mask],
            fraction_units=self.fraction_units[mask],
            replicas=self.replicas[mask],
            units=self.units[mask],
            headroom=self.headroom[mask],
            cost_s=self.cost_s[mask],
        )

    def pareto(self) -> Ints:
        """(points,) the options that no other beats in units and cost, by rising units."""
        before = np.minimum.accumulate(np.concatenate([[np.inf], self.cost_s[:-1]]))
        return np.flatnonzero(self.cost_s < before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the options are chosen from: GPUs of one type, shared in equal units."""

    gpu_type: GpuTypeName
    budget_units: int
    """Units of all GPUs together."""
    units_per_gpu: int
    max_tensor_parallel: int
    """GPUs of the largest NVLink domain."""


def llm_loads(workflows: Sequence[WeightedWorkflow]) -> tuple[LlmLoad, ...]:
    """What the workflows ask of each LLM, sorted by its name; a shared LLM is there once."""
    stages: dict[LlmName, list[StageLoad]] = {}
    for workflow in workflows:
        for demand in workflow.demand.stages:
            stages.setdefault(demand.stage.llm, []).append(_stage_load(demand, workflow))
    return tuple(LlmLoad(llm, tuple(stages[llm])) for llm in sorted(stages))


def _stage_load(demand: StageDemand, workflow: WeightedWorkflow) -> StageLoad:
    return StageLoad(
        demand.stage,
        calls_per_s=workflow.rate_per_s * demand.calls_per_execution,
        worth=workflow.weight * contribution_s(demand, 1.0),
    )


def profiled_shapes(
    load: LlmLoad, profiles: ProfileSet, gpu_type: GpuTypeName
) -> tuple[tuple[int, float], ...]:
    """(tensor_parallel, gpu_fraction) that are profiled for every stage of an LLM.

    Raises:
        MissingError: there are none.
    """
    stages = [stage.stage for stage in load.stages]
    for stage in stages:
        if not profiles.shapes(load.llm, gpu_type, [stage]):
            raise missing_profile(stage, f"GPU type {gpu_type}")
    shapes = profiles.shapes(load.llm, gpu_type, stages)
    if not shapes:
        raise missing_profile(stages[0], f"a shape that all stages of `{load.llm}` have")
    return shapes


def options(load: LlmLoad, profiles: ProfileSet, room: Room) -> Options:
    """All groups of profiled shapes that fit the room; none if no shape does.

    Raises:
        MissingError: a stage of the LLM has no profile on the room's GPU type.
    """
    shapes = [
        shape
        for shape in profiled_shapes(load, profiles, room.gpu_type)
        if shape[0] <= room.max_tensor_parallel
        and shape_units(shape, room.units_per_gpu) in range(1, room.budget_units + 1)
    ]
    if not shapes:
        nothing, none = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Options(
            load.llm, room.gpu_type, room.units_per_gpu, *(nothing,) * 4, headroom=none, cost_s=none
        )
    units_each = [shape_units(shape, room.units_per_gpu) for shape in shapes]
    replicas = [np.arange(1, room.budget_units // units + 1) for units in units_each]
    degree = np.repeat([t for t, _ in shapes], [len(k) for k in replicas])
    fraction_units = np.repeat(units_each, [len(k) for k in replicas]) // degree
    count = np.concatenate(replicas)
    headroom, cost_s = _evaluate(load, profiles, room.gpu_type, shapes, replicas)
    units = degree * fraction_units * count
    order = np.lexsort((degree, count, cost_s, units))
    return Options(
        llm=load.llm,
        gpu_type=room.gpu_type,
        units_per_gpu=room.units_per_gpu,
        tensor_parallel=degree[order],
        fraction_units=fraction_units[order],
        replicas=count[order],
        units=units[order],
        headroom=headroom[order],
        cost_s=cost_s[order],
    )


def shape_units(shape: tuple[int, float], units_per_gpu: int) -> int:
    """Units that one replica takes on all its GPUs; 0 where its fraction is not whole units."""
    degree, fraction = shape
    units = round(fraction * units_per_gpu)
    return degree * units if abs(units - fraction * units_per_gpu) < 1e-6 else 0


def _evaluate(
    load: LlmLoad,
    profiles: ProfileSet,
    gpu_type: GpuTypeName,
    shapes: Sequence[tuple[int, float]],
    replicas: Sequence[Ints],
) -> tuple[Floats, Floats]:
    """(options,) headroom and cost."""
    rows = [
        StageSurface(profiles, stage.stage, gpu_type).rows(shapes, replicas)
        for stage in load.stages
    ]
    count = np.concatenate(replicas)
    utilization = np.zeros(len(count))
    for stage, row in zip(load.stages, rows, strict=True):
        if stage.calls_per_s > 0:
            utilization += stage.calls_per_s * row.call_s / count
    cost_s = np.zeros(len(count))
    for stage, row in zip(load.stages, rows, strict=True):
        if stage.worth > 0:
            cost_s += stage.worth * row.latency_s(utilization)
    cost_s[utilization >= 1] = np.inf
    with np.errstate(divide="ignore"):  # an LLM that is never called has endless headroom
        return 1 / utilization, cost_s
