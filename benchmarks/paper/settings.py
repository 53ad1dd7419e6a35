"""What is evaluated, and how much of it: in full, or quickly."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """A part of the evaluation."""

    MAIN = "main"
    """Every system at every rate."""
    SHARING = "sharing"
    """Systems that share GPUs, if that cost nothing beyond the share."""
    ABLATION = "ablation"
    """Ours without one of its parts."""
    WRONG = "wrong"
    """Ours planned from wrong profiles."""
    DRIFT = "drift"
    """Planned for other executions than those that come."""
    LARGE = "large"
    """On clusters of hundreds of GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSetting:
    """Workflows that share a cluster."""

    name: str
    title: str
    rates: Mapping[str, float]
    """Of the workflows, in proportion."""
    is_heavy: bool = False
    """An execution has hundreds of calls: fewer rates are looked at."""
    executions: int
    """Counted in one simulation on 4 GPUs, at least; on n GPUs sqrt(n / 4) times as many."""


WORKLOADS: Mapping[str, WorkloadSetting] = {
    each.name: each
    for each in (
        WorkloadSetting(
            name="rag_rerank",
            title="RAG + reranker",
            rates={"rag_rerank": 1.0},
            executions=200,
        ),
        WorkloadSetting(
            name="beam_search",
            title="beam search",
            rates={"beam_search": 1.0},
            is_heavy=True,
            executions=16,
        ),
        WorkloadSetting(
            name="chatdev",
            title="ChatDev",
            rates={"chatdev": 1.0},
            executions=60,
        ),
        WorkloadSetting(
            name="coding",
            title="coding sessions",
            rates={"coding": 1.0},
            executions=60,
        ),
        WorkloadSetting(
            name="both",
            title="both at once",
            rates={"beam_search": 1.0, "rag_rerank": 100.0},
            is_heavy=True,
            executions=1000,
        ),
    )
}
PUBLIC = ("chatdev", "coding")
"""Workflows taken from public recordings, which must be at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much of the evaluation is made."""

    name: str
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    parts: tuple[Part, ...] = tuple(Part)
    gpu: str = "h100"
    clusters: tuple[int, ...] = (4, 8, 16)
    large_clusters: tuple[int, ...] = (64, 512)
    recorded: Mapping[str, tuple[int, int]]
    """Executions of each example for training and for evaluation."""
    loads: tuple[float, ...]
    """Arrival rates, as parts of the capacity that the planner expects of its best plan."""
    heavy_loads: tuple[float, ...]
    """The same for heavy workloads."""
    few_loads: tuple[float, ...]
    """Those of the ablation, of wrong profiles, of drift; among all of the others."""
    large_loads: tuple[float, ...]
    seeds: tuple[int, ...]
    """Of evaluation: arrivals and order of executions."""
    tuning_seeds: tuple[int, int, int, int]
    """On which each system chooses its configuration: of all, of the best; ours of those again."""
    large_seeds: tuple[int, ...]
    large_size: float = 0.5
    """On counts of executions on large clusters."""
    side_cluster: int = 8
    """GPUs of ablation, wrong profiles and drift."""
    size: float = 1.0
    """On all counts of executions."""
    replicas: tuple[int, ...] = (1, 4)
    """That are profiled."""
    profiled_calls: int = 1000
    """Of one point of a profile, at least."""
    systems: tuple[str, ...] | None = None
    """All that there are when None."""


FULL = Setting(
    name="full",
    recorded={"beam_search": (30, 40), "rag_rerank": (80, 160)},
    loads=(0.1, 0.4, 0.7, 0.85, 1.0, 1.2),
    heavy_loads=(0.1, 0.4, 0.7, 0.9, 1.1),
    few_loads=(0.1, 0.4, 0.7),
    large_loads=(0.1, 0.7),
    seeds=(1, 2, 3, 4, 5),
    tuning_seeds=(101, 102, 103, 104),
    large_seeds=(1, 2),
)
QUICK = Setting(
    name="quick",
    workloads=("beam_search", "rag_rerank", "chatdev"),
    parts=(Part.MAIN,),
    clusters=(4,),
    large_clusters=(),
    recorded={"beam_search": (20, 30), "rag_rerank": (40, 80)},
    loads=(0.1, 0.4, 0.7, 1.0),
    heavy_loads=(0.1, 0.7),
    few_loads=(),
    large_loads=(),
    seeds=(1, 2),
    tuning_seeds=(101, 102, 103, 104),
    large_seeds=(),
    size=0.5,
)
TINY = Setting(
    name="tiny",
    workloads=("rag_rerank",),
    parts=(Part.MAIN,),
    clusters=(4,),
    large_clusters=(),
    recorded={"rag_rerank": (6, 6)},
    loads=(0.3,),
    heavy_loads=(),
    few_loads=(),
    large_loads=(),
    seeds=(1, 2),
    tuning_seeds=(101, 102, 103, 104),
    large_seeds=(),
    size=0.05,
    replicas=(1,),
    profiled_calls=50,
    systems=("ours", "even"),
)
SETTINGS: Mapping[str, Setting] = {each.name: each for each in (FULL, QUICK, TINY)}
