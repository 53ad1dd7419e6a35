"""What the demo runs: sizes, rates and shapes, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class RecordedEngine:
    """An engine that answers while the workflows are recorded."""

    llm: str
    tensor_parallel: int
    gpu_fraction: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """All that decides what the demo does. Seconds and rates are those of the emulated system."""

    out: Path
    seed: int = 0
    gpu: str = "h100"
    recorded_speedup: float = 12.0
    """While recording few calls run at once, so time may run fast."""
    max_speedup: float = 10.0
    """Of a measured load: beyond it the clients' own time weighs too much."""
    calls_per_real_s: float = 160.0
    """What two cores carry with time to spare, clients, gateway and engines together. A load's
    speedup is set so that this is not exceeded, or this machine would be measured."""
    engines: tuple[RecordedEngine, ...] = (
        RecordedEngine("qwen3-32b", 2),
        RecordedEngine("qwen3-8b", 1),
        RecordedEngine("qwen3-embedding-0.6b", 1),
    )
    recorded_executions: int = 80
    """Of each workflow: two passes over the tasks."""
    recorded_concurrency: int = 6
    rates: Mapping[str, float] = field(
        default_factory=lambda: {"beam_search": 0.3, "rag_rerank": 0.6}
    )
    """Target: executions/s of each workflow."""
    load_fraction: float = 0.6
    """Part of a workflow's capacity at which its latency is compared."""
    full_fraction: float = 0.93
    """Part at which the number of executions in flight is taken that then saturates the plan."""
    measured_executions: Mapping[str, int] = field(
        default_factory=lambda: {"beam_search": 90, "rag_rerank": 240}
    )
    """Executions in each measured window: more where one is short."""

    @property
    def scripts(self) -> tuple[Path, ...]:
        """What the emulated engines answer to the workflows."""
        return tuple(EXAMPLES / name / "emulated.py" for name in self.rates)

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.out / name
