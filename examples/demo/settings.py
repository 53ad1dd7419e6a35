"""What the demo runs: sizes, rates and shapes, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from examples.rag_rerank.workflow import RagConfig, RagRerank
from examples.registry import WORKFLOWS
from examples.workflow import ExampleWorkflow

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
    speedup: float = 3.5
    """Of engines, gateway and load, while recording and while measuring. The clients' own time is
    emulated time too, so more would weigh it too much, and more calls/s than two cores carry
    would measure this machine."""
    engines: tuple[RecordedEngine, ...] = (
        RecordedEngine("qwen3-32b", 2),
        RecordedEngine("qwen3-8b", 1),
        RecordedEngine("qwen3-embedding-0.6b", 1),
    )
    recorded_executions: int = 80
    """Of each workflow: two passes over the tasks."""
    recorded_concurrency: int = 24
    rates: Mapping[str, float] = field(
        default_factory=lambda: {"beam_search": 0.7, "rag_rerank": 2.5}
    )
    """Target: executions/s of each workflow."""
    load_fraction: float = 0.6
    """Part of a workflow's capacity at which its latency is compared."""
    full_fraction: float = 0.93
    """Part at which the number of executions in flight is taken that then saturates the plan."""
    offered_executions: Mapping[str, int] = field(
        default_factory=lambda: {"beam_search": 56, "rag_rerank": 200}
    )
    """Executions in each window at a rate: more where one is short."""
    saturating_executions: Mapping[str, int] = field(
        default_factory=lambda: {"beam_search": 100, "rag_rerank": 320}
    )
    """Executions that end in each window at capacity."""

    @property
    def workflows(self) -> Mapping[str, ExampleWorkflow]:
        """The workflows, set up for many executions at a time: answers are not streamed."""
        known = {
            **WORKFLOWS,
            "rag_rerank": RagRerank(config=RagConfig(stream=False)),
        }
        return {name: known[name] for name in self.rates}

    @property
    def scripts(self) -> tuple[Path, ...]:
        """What the emulated engines answer to the workflows."""
        return tuple(EXAMPLES / name / "emulated.py" for name in self.rates)

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.out / name
