"""What a group of replicas would make of the load on its LLM, from the same profiles for all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.plan import ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.topology import largest_domain
from scepsy.search.frontier import LlmLoad
from scepsy.sim.baselines.base import Task

Shape = tuple[int, float]
"""(tensor_parallel, gpu_fraction)."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A group under its LLM's load."""

    group: ReplicaGroup
    utilization: float
    """Offered load over capacity; from 1 on the load is not sustained."""
    latency_s: float
    """Mean over calls of their latency; infinite where the load is not sustained."""
    cost_s: float
    """Seconds of the workflows' mean execution latency, by the pipeline; infinite likewise."""


class Ratings:
    """Rates groups, each once."""

    def __init__(self, task: Task, loads: Sequence[LlmLoad] | None = None) -> None:
        """For some loads; those of all workflows when None."""
        own = task.loads if loads is None else loads
        self.loads: Mapping[LlmName, LlmLoad] = {load.llm: load for load in own}
        self._task = task
        self._gpu_type = task.gpu_type
        self._widest = largest_domain(task.cluster)
        self._shapes: dict[LlmName, tuple[Shape, ...]] = {}
        self._rated: dict[tuple[LlmName, Shape, int], Rated | None] = {}

    @property
    def llms(self) -> tuple[LlmName, ...]:
        """All LLMs, by name."""
        return tuple(self.loads)

    def shapes(self, llm: LlmName) -> tuple[Shape, ...]:
        """Shapes that are profiled, fit an NVLink domain and hold the LLM; sorted."""
        if llm not in self._shapes:
            stages = [stage.stage for stage in self.loads[llm].stages]
            profiled = self._task.profiles.shapes(llm, self._gpu_type, stages)
            self._shapes[llm] = tuple(shape for shape in profiled if self._fits(llm, shape))
        return self._shapes[llm]

    def degrees(self, llm: LlmName) -> tuple[int, ...]:
        """Tensor parallel degrees that it has on whole GPUs, rising."""
        return tuple(degree for degree, fraction in self.shapes(llm) if fraction == 1)

    def rated(self, llm: LlmName, shape: Shape, replicas: int) -> Rated | None:
        """A group; None where nothing is known of so few replicas."""
        key = (llm, shape, replicas)
        if key not in self._rated:
            self._rated[key] = self._rate(*key)
        return self._rated[key]

    def whole(self, llm: LlmName, degree: int, replicas: int) -> Rated | None:
        """A group on whole GPUs."""
        return self.rated(llm, (degree, 1.0), replicas)

    def uniform_degrees(self) -> Iterator[dict[LlmName, int]]:
        """The degrees of all LLMs by each rule "so much tensor parallelism for everyone".

        An LLM that does not come in the degree has the next lower one, or its least. The first
        rule is the least for all. There are no rules where an LLM fits on no whole GPUs.
        """
        degrees = {llm: self.degrees(llm) for llm in self.llms}
        seen = set()
        for most in sorted({degree for own in degrees.values() for degree in own}):
            if not all(degrees.values()):
                return
            rule = {
                llm: max((d for d in own if d <= most), default=own[0])
                for llm, own in degrees.items()
            }
            if (key := tuple(rule.values())) not in seen:
                seen.add(key)
                yield rule

    def _fits(self, llm: LlmName, shape: Shape) -> bool:
        if shape[0] > self._widest:
            return False
        try:
            self._task.spec_of(llm, self._gpu_type, *shape)
        except (InfeasibleError, MissingError):
            return False
        return True

    def _rate(self, llm: LlmName, shape: Shape, replicas: int) -> Rated | None:
        curves = []
        stages = self.loads[llm].stages
        for stage in stages:
            curve = self._task.profiles.curve(stage.stage, self._gpu_type, *shape, replicas)
            if curve is None:
                return None
            curves.append(curve)
        busy = [s.calls_per_s / c.capacity_per_s for s, c in zip(stages, curves, strict=True)]
        utilization = sum(busy) / replicas
        latencies_s = [curve.latency_s(utilization) for curve in curves]
        calls_per_s = sum(stage.calls_per_s for stage in stages)
        pairs = list(zip(stages, latencies_s, strict=True))
        return Rated(
            ReplicaGroup(
                llm=llm,
                gpu_type=self._gpu_type,
                tensor_parallel=shape[0],
                gpu_fraction=shape[1],
                replicas=replicas,
            ),
            utilization,
            sum(stage.calls_per_s * s for stage, s in pairs if stage.calls_per_s) / calls_per_s
            if calls_per_s
            else 0.0,
            sum(stage.worth * s for stage, s in pairs if stage.worth),
        )
