"""From a plan to what must run. Pure: nothing is started here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Plan
from scepsy.model.workflow import LlmName


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """The arguments of ``scepsy`` that start one replica."""

    replica: ReplicaName
    llm: LlmName
    arguments: tuple[str, ...]


def emulated_engines(
    plan: Plan, *, speedup: float, scripts: Sequence[Path] = ()
) -> tuple[EngineCommand, ...]:
    """One emulated engine for each replica of the plan, each on a port that is free."""
    return tuple(
        EngineCommand(
            replica.name,
            replica.llm,
            (
                "engine",
                f"--model={replica.llm}",
                f"--gpu={plan.allocation.group(replica.llm).gpu_type}",
                f"--tp={len(replica.gpus)}",
                f"--gpu-fraction={replica.gpu_fraction:g}",
                f"--speedup={speedup:g}",
                "--port=0",
                *(f"--script={path}" for path in scripts),
            ),
        )
        for replica in plan.placement.replicas
    )
