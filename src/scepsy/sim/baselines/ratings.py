"""What a group of replicas would make of the load on its LLM, from the same profiles for all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.topology import largest_domain
from scepsy.search.frontier import LlmLoad
from scepsy.sim.baselines.base import Task, allocation_of

Shape = tuple[int, float]
"""(tensor_parallel, gpu_fraction)."""
_MOST_CHOICES = 256
"""Ways to give each LLM its own degree, beyond which only uniform ones are looked at."""


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


@dataclass(frozen=True, slots=True)
class Offer:
    """One configuration that a baseline may choose, with each LLM's group."""

    rated: tuple[Rated, ...]
    note: str
    """What was chosen, in words."""

    @property
    def allocation(self) -> Allocation:
        """All groups."""
        return allocation_of(rated.group for rated in self.rated)

    @property
    def utilization(self) -> float:
        """Of the fullest LLM."""
        return max(rated.utilization for rated in self.rated)

    @property
    def latency_s(self) -> float:
        """Mean latency of a call, summed over LLMs: what can be seen of each by itself."""
        return sum(rated.latency_s for rated in self.rated)


def shortlist(offers: Iterable[Offer], most: int) -> list[Offer]:
    """Distinct offers: so many of most throughput, and so many of least latency of calls."""
    distinct = list({offer.allocation: offer for offer in offers}.values())
    fullest = sorted(distinct, key=lambda offer: offer.utilization)[:most]
    fastest = sorted(distinct, key=lambda offer: offer.latency_s)[:most]
    return list(dict.fromkeys([*fullest, *fastest]))


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

    def degree_choices(self) -> Iterator[dict[LlmName, int]]:
        """Degrees of all LLMs on whole GPUs: all ways, or where they are many, uniform ones.

        There are none where an LLM fits on no whole GPUs.
        """
        each = [self.degrees(llm) for llm in self.llms]
        if prod(map(len, each)) <= _MOST_CHOICES:
            for chosen in product(*each):
                yield dict(zip(self.llms, chosen, strict=True))
            return
        for most in sorted({degree for own in each for degree in own}):
            yield {llm: self.degree_within(llm, most) or self.degrees(llm)[0] for llm in self.llms}

    def degree_within(self, llm: LlmName, most: int) -> int:
        """The largest degree on whole GPUs that is not above a number; 0 where there is none."""
        return max((degree for degree in self.degrees(llm) if degree <= most), default=0)

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


def computation(ratings: Ratings, llm: LlmName) -> float:
    """Whole GPUs that an LLM's load keeps busy, on its least degree; 0 where it fits on none."""
    degrees = ratings.degrees(llm)
    rated = ratings.whole(llm, degrees[0], 1) if degrees else None
    return rated.utilization * degrees[0] if rated else 0.0
