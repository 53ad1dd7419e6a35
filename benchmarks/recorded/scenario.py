"""Recorded workflows on a plan, and what is predicted for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Execution
from scepsy.model.plan import Allocation, Prediction, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.predict import critical_path, pipeline
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileKey, ProfileSet
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import poisson_arrivals, stage_workload
from scepsy.sim.arrivals import Stream
from scepsy.sim.profile import profile_workload
from scepsy.sim.script import scripts
from scepsy.traces.demand import demand

LOADS = (0.2, 0.4, 0.6, 0.8)
PROFILED = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9)
Groups = Sequence[tuple[str, str, int, float, int]]
"""LLM, GPU type, tensor parallel degree, GPU fraction, replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Workflows on a plan."""

    name: str
    executions: Mapping[WorkflowName, Sequence[Execution]]
    rates: Mapping[WorkflowName, float]
    """In proportion."""
    groups: Groups
    profiled_calls: int

    @property
    def allocation(self) -> Allocation:
        return Allocation(
            tuple(
                ReplicaGroup(
                    llm=LlmName(llm),
                    gpu_type=GpuTypeName(gpu),
                    tensor_parallel=degree,
                    gpu_fraction=fraction,
                    replicas=replicas,
                )
                for llm, gpu, degree, fraction, replicas in self.groups
            )
        )

    @property
    def specs(self) -> Mapping[LlmName, EngineSpec]:
        return {
            LlmName(llm): engine_spec(llm, gpu, tensor_parallel=degree, gpu_fraction=fraction)
            for llm, gpu, degree, fraction, _ in self.groups
        }

    def profiles(self) -> ProfileSet:
        """The stages on just the plan's shapes: no error of interpolation between shapes."""
        curves = []
        for executions in self.executions.values():
            for stage in sorted({call.stage for each in executions for call in each.calls}):
                group = self.allocation.group(stage.llm)
                workload = stage_workload(executions, stage)
                arrivals = poisson_arrivals(workload, min_calls=self.profiled_calls, seed=0)
                key = ProfileKey(
                    stage=stage,
                    gpu_type=group.gpu_type,
                    tensor_parallel=group.tensor_parallel,
                    gpu_fraction=group.gpu_fraction,
                    replicas=group.replicas,
                )
                curves.append(
                    profile_workload(
                        workload, arrivals, self.specs[stage.llm], key, utilizations=PROFILED
                    )
                )
        return ProfileSet(tuple(curves))

    def rated(self, factor: float) -> list[RatedWorkflow]:
        return [
            RatedWorkflow(demand(executions), WorkflowRate(name, self.rates[name] * factor))
            for name, executions in self.executions.items()
        ]

    def factor_at_capacity(self, profiles: ProfileSet) -> float:
        """By how much the rates may grow until an LLM is full."""
        unit = pipeline.predict(self.rated(1.0), self.allocation, profiles).workflows[0]
        return unit.capacity_per_s / unit.rate_per_s

    def rounds(self, rounds: int) -> int:
        """Executions over all workflows in which each recorded one comes at least so often."""
        largest = max(len(self.executions[name]) / rate for name, rate in self.rates.items())
        return round(rounds * largest * sum(self.rates.values()))

    def streams(self, rated: Sequence[RatedWorkflow]) -> list[Stream]:
        """The workflows as they arrive at their rates."""
        return [
            Stream(
                scripts=scripts(self.executions[each.rate.workflow]),
                rate_per_s=each.rate.rate_per_s,
            )
            for each in rated
        ]


def predictions(
    rated: Sequence[RatedWorkflow], allocation: Allocation, profiles: ProfileSet
) -> list[Prediction]:
    return [each.predict(rated, allocation, profiles) for each in (critical_path, pipeline)]
