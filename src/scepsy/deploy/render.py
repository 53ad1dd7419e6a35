"""From a plan to what must run. Pure: nothing is started here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scepsy.model.execution import ReplicaName
from scepsy.model.plan import PlacedReplica, Plan
from scepsy.model.workflow import LlmName


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """The arguments of ``scepsy`` that start one replica, or several that take turns."""

    replica: ReplicaName
    llm: LlmName
    arguments: tuple[str, ...]
    beside: tuple[tuple[ReplicaName, LlmName], ...] = ()
    """Those that take turns with it, in the order in which the arguments name them."""


def emulated_engines(
    plan: Plan, *, speedup: float, scripts: Sequence[Path] = ()
) -> tuple[EngineCommand, ...]:
    """One emulated engine for each replica of the plan, each on a port that is free.

    Replicas that take turns have one process, which knows whose turn it is.
    """
    together = {replica: each for each in plan.together for replica in each}
    everyone = dict.fromkeys(together.get(each, (each,)) for each in plan.placement.replicas)
    return tuple(_command(plan, each, speedup, scripts) for each in everyone)


def _command(
    plan: Plan, together: Sequence[PlacedReplica], speedup: float, scripts: Sequence[Path]
) -> EngineCommand:
    first, *others = sorted(together, key=lambda replica: -len(replica.gpus))
    return EngineCommand(
        first.name,
        first.llm,
        (
            "engine",
            f"--model={first.llm}",
            f"--gpu={plan.allocation.group(first.llm).gpu_type}",
            f"--tp={len(first.gpus)}",
            f"--gpu-fraction={first.gpu_fraction:g}",
            *(f"--beside={r.llm}={len(r.gpus)}@{r.gpu_fraction:g}" for r in others),
            f"--speedup={speedup:g}",
            "--port=0",
            *(f"--script={path}" for path in scripts),
        ),
        tuple((replica.name, replica.llm) for replica in others),
    )
