"""What the demo on real engines runs: sizes, loads and engines, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from examples.beam_search.workflow import BeamSearch, SearchConfig
from examples.coding_agent.workflow import AgentConfig, CodingAgent
from examples.workflow import ExampleWorkflow

FAST, SLOW = "smollm2-fast", "smollm2-slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuEngine:
    """One llama.cpp process with one thread: what stands for a GPU of this cluster."""

    llm: str
    gpu_type: str
    slots: int
    """Calls that it answers at a time."""
    batch_tokens: int
    """Prompt tokens that it computes at a time: the fewer, the slower."""


ENGINES = (
    CpuEngine(llm=FAST, gpu_type="cpu-fast", slots=4, batch_tokens=512),
    CpuEngine(llm=SLOW, gpu_type="cpu-slow", slots=1, batch_tokens=1),
)


def small_workflows() -> tuple[ExampleWorkflow, ...]:
    """Two examples, small enough for tens of tokens/s, with roles on both engines."""
    search = SearchConfig(expand=2, width=1, depth=2, step_max_tokens=24)
    agent = AgentConfig(attempts=1, plan_max_tokens=24, code_max_tokens=32, review_max_tokens=16)
    return (
        BeamSearch(config=search, models={"generator": FAST, "verifier": SLOW}),
        CodingAgent(config=agent, models={"planner": SLOW, "coder": FAST, "reviewer": FAST}),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RealSettings:
    """All that decides what the demo does. Seconds are real ones."""

    out: Path
    model: Path
    """A GGUF file; every engine serves it."""
    seed: int = 0
    recorded_executions: int = 10
    """Of each workflow."""
    recorded_concurrency: int = 4
    profiled_executions: int = 3
    """Recorded executions of each workflow that profiling replays."""
    profiled_loads: tuple[float, ...] = (0.5,)
    """One load near the target's: every further one would take a minute."""
    profiled_in_flight: int = 4
    """Calls kept in flight to find an engine's capacity."""
    saturating_executions: int = 6
    """Kept in flight to find a workflow's."""
    target_load: float = 0.5
    """Of the capacity, at most: both workflows together at their target rates."""
    target_executions: int = 10
    """Of each workflow while both run at their target rates, if that takes not too long."""
    target_s_max: float = 50.0
    saturated_s: float = 15.0
    """For which each workflow alone saturates the plan."""
    warm_up_s: float = 6.0
    workflows: Mapping[str, ExampleWorkflow] = field(
        default_factory=lambda: {each.name: each for each in small_workflows()}
    )

    def path(self, name: str) -> Path:
        """A file of this run."""
        return self.out / name
