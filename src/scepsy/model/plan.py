"""What to do, and what is expected of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.errors import InputError
from scepsy.model.cluster import Cluster, GpuId, GpuTypeName
from scepsy.model.execution import ReplicaName
from scepsy.model.provenance import Provenance
from scepsy.model.slo import Slo
from scepsy.model.workflow import LlmName, Stage, WorkflowName

_LEAST_TAKING_TURNS = 2
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class WorkflowRate:
    """Executions of a workflow that arrive per second."""

    workflow: WorkflowName
    rate_per_s: float

    def __post_init__(self) -> None:
        if not 0 < self.rate_per_s < float("inf"):
            raise InputError(f"{self.workflow}: the rate must be > 0 per second")


@dataclass(frozen=True, slots=True)
class WorkflowWeight:
    """How much a second of a workflow's mean latency counts against one of another's."""

    workflow: WorkflowName
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"{self.workflow}: the weight must be > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """Identical replicas that serve one LLM."""

    llm: LlmName
    gpu_type: GpuTypeName
    tensor_parallel: int
    """GPUs that one replica's weights are sharded over."""
    replicas: int = 1
    gpu_fraction: float = 1.0
    """Part of each of those GPUs, compute and memory, that the replica may use, in (0, 1]; of LLMs
    that take turns (see ``Allocation.turns``) the part of the memory alone."""

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1 or self.replicas < 1:
            raise InputError(f"{self.llm}: tensor_parallel and replicas must be >= 1")
        if not 0 < self.gpu_fraction <= 1:
            raise InputError(f"{self.llm}: gpu_fraction {self.gpu_fraction} is not in (0, 1]")

    @property
    def gpus(self) -> float:
        """GPUs the whole group takes. May be fractional."""
        return self.replicas * self.tensor_parallel * self.gpu_fraction


@dataclass(frozen=True, slots=True)
class Allocation:
    """How many replicas of what degree and fraction each LLM gets; no GPU is named yet."""

    groups: tuple[ReplicaGroup, ...]
    """One for each LLM, sorted by its name."""
    turns: tuple[tuple[LlmName, ...], ...] = ()
    """LLMs that take turns: a replica of each sits on the same whole GPUs, or the first of them,
    and those that have something to compute do so one after the other. Sorted, as are the LLMs of
    each."""

    def __post_init__(self) -> None:
        names = [group.llm for group in self.groups]
        if names != sorted(set(names)):
            raise InputError("an allocation has one group for each LLM, sorted by name")
        for llms in self.turns:
            self._check_turns(llms)
        taking = [llm for llms in self.turns for llm in llms]
        if len(taking) != len(set(taking)) or self.turns != tuple(sorted(self.turns)):
            raise InputError("an LLM takes turns with one set of others; sets are sorted")

    def _check_turns(self, llms: tuple[LlmName, ...]) -> None:
        groups = [group for group in self.groups if group.llm in llms]
        if tuple(group.llm for group in groups) != llms or len(llms) < _LEAST_TAKING_TURNS:
            raise InputError(f"to take turns needs two LLMs of the plan, sorted: {llms}")
        if len({(group.gpu_type, group.replicas) for group in groups}) > 1:
            raise InputError(f"{', '.join(llms)} take turns, but not on the same GPUs")
        memory = sum(group.gpu_fraction for group in groups)
        if memory > 1 + _SLACK:
            raise InputError(f"{', '.join(llms)} take turns on {memory:g} of the GPUs' memory")

    @property
    def gpus(self) -> float:
        """GPUs that all groups take together."""
        alone = sum(group.gpus for group in self.groups if not self.turns_of(group.llm))
        widest = (self.widest(llms) for llms in self.turns)
        return alone + sum(group.replicas * group.tensor_parallel for group in widest)

    def group(self, llm: LlmName) -> ReplicaGroup:
        """The group that serves an LLM, which the allocation must have."""
        return next(group for group in self.groups if group.llm == llm)

    def widest(self, llms: tuple[LlmName, ...]) -> ReplicaGroup:
        """Of LLMs that take turns the one whose replicas sit on all of their GPUs."""
        return max(map(self.group, llms), key=lambda group: group.tensor_parallel)

    def turns_of(self, llm: LlmName) -> tuple[LlmName, ...]:
        """The LLMs that an LLM takes turns with, itself among them; none where it does not."""
        return next((llms for llms in self.turns if llm in llms), ())


@dataclass(frozen=True, slots=True)
class PlacedReplica:
    """One replica and the GPUs it takes a fraction of."""

    name: ReplicaName
    llm: LlmName
    gpus: tuple[GpuId, ...]
    gpu_fraction: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Which GPUs each replica of an allocation sits on."""

    replicas: tuple[PlacedReplica, ...]

    @property
    def used(self) -> Mapping[GpuId, float]:
        """Fraction taken of each GPU that is touched."""
        used: dict[GpuId, float] = {}
        for replica in self.replicas:
            for gpu in replica.gpus:
                used[gpu] = used.get(gpu, 0.0) + replica.gpu_fraction
        return used

    @property
    def part_free(self) -> tuple[GpuId, ...]:
        """GPUs that are touched and have a fraction left that nobody uses."""
        return tuple(gpu for gpu, fraction in self.used.items() if fraction < 1 - 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePrediction:
    """What is expected of one stage."""

    stage: Stage
    utilization: float
    """Offered load of its LLM's replicas over their capacity, all workflows counted."""
    call_s: float
    """Mean latency of one call."""
    contribution_s: float
    """Part of the mean execution latency: calls x latency / fan-out, or on the critical path."""
    provenance: Provenance
    error_fraction: float | None = None
    """The true contribution is thought to lie within this part of it to either side, nine times
    out of ten; None where nobody said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowPrediction:
    """What is expected of one workflow at its rate."""

    workflow: WorkflowName
    rate_per_s: float
    execution_s_mean: float
    execution_s_p50: float
    execution_s_p95: float
    execution_s_p99: float
    gap_s_mean: float
    """Part of the mean in which no LLM call runs: tools and the framework."""
    capacity_per_s: float
    """Highest rate of this workflow if all workflows of the plan grow in proportion."""
    capacity_alone_per_s: float
    """Highest rate of this workflow with no other workflow beside it."""
    bottleneck: LlmName
    """The LLM that saturates first when all grow in proportion."""
    bottleneck_alone: LlmName
    """The LLM that saturates first with no other workflow beside it."""
    stages: tuple[StagePrediction, ...]
    error_fraction: float | None = None
    """Of the mean execution latency, as a stage's."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of a plan, and who says so."""

    predictor: str
    workflows: tuple[WorkflowPrediction, ...]

    def workflow(self, name: WorkflowName) -> WorkflowPrediction:
        """The prediction for a workflow, which the plan must have."""
        return next(w for w in self.workflows if w.workflow == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Allocation, placement and what is predicted of them, for one cluster and target."""

    cluster: Cluster
    rates: tuple[WorkflowRate, ...]
    slo: Slo | None
    allocation: Allocation
    placement: Placement
    prediction: Prediction
    route: str = "least-loaded"
    """Name of the routing policy that the gateway runs."""
    objective_s: float | None = None
    """Weighted mean execution latency that is predicted; None where no search was made."""
    bound_s: float | None = None
    """The least that any allocation within the GPUs could have, placeable and within the SLO or
    not, by the same prediction; None where no search was made."""
    passed_over: int = 0
    """Better allocations that could not be placed, or missed the SLO."""

    @property
    def together(self) -> tuple[tuple[PlacedReplica, ...], ...]:
        """Replicas that take turns on the same GPUs: as placed, those of each GPUs together."""
        found: dict[tuple[LlmName, ...], dict[GpuId, list[PlacedReplica]]] = {}
        for replica in self.placement.replicas:
            if llms := self.allocation.turns_of(replica.llm):
                found.setdefault(llms, {}).setdefault(replica.gpus[0], []).append(replica)
        return tuple(tuple(each) for on_gpu in found.values() for each in on_gpu.values())
