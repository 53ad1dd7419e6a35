"""From a plan to what must run. Pure: nothing is started here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from scepsy.model.execution import ReplicaName
from scepsy.model.plan import PlacedReplica, Plan
from scepsy.model.workflow import LlmName
from scepsy.units import GIB

_NONE: Mapping[LlmName, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """The arguments of ``scepsy`` that start one replica, or several that take turns."""

    replica: ReplicaName
    llm: LlmName
    arguments: tuple[str, ...]
    beside: tuple[tuple[ReplicaName, LlmName], ...] = ()
    """Those that take turns with it, in the order in which the arguments name them."""


def emulated_engines(
    plan: Plan,
    *,
    speedup: float,
    scripts: Sequence[Path] = (),
    host_bytes: Mapping[LlmName, float] = _NONE,
) -> tuple[EngineCommand, ...]:
    """One emulated engine for each replica of the plan, each on a port that is free.

    Replicas that take turns have one process, which knows whose turn it is.

    Args:
        plan: whose replicas they are.
        speedup: times faster than the silicon that they stand for.
        scripts: files that decide what is answered.
        host_bytes: host memory that each replica of an LLM offloads KV to. Engines tell it the
            gateway.
    """
    together = {replica: each for each in plan.together for replica in each}
    everyone = dict.fromkeys(together.get(each, (each,)) for each in plan.placement.replicas)
    more = (f"--speedup={speedup:g}", "--port=0", *(f"--script={path}" for path in scripts))
    return tuple(_command(plan, each, host_bytes, more) for each in everyone)


def _command(
    plan: Plan,
    together: Sequence[PlacedReplica],
    host_bytes: Mapping[LlmName, float],
    more: Sequence[str],
) -> EngineCommand:
    first, *others = sorted(together, key=lambda replica: -len(replica.gpus))
    host_gib = {llm: f"{each_bytes / GIB:g}" for llm, each_bytes in host_bytes.items()}
    behind = {llm: f"+{gib}" for llm, gib in host_gib.items()}
    return EngineCommand(
        first.name,
        first.llm,
        (
            "engine",
            f"--model={first.llm}",
            f"--gpu={plan.allocation.group(first.llm).gpu_type}",
            f"--tp={len(first.gpus)}",
            f"--gpu-fraction={first.gpu_fraction:g}",
            *([f"--host-gib={host_gib[first.llm]}"] if first.llm in host_gib else []),
            *(
                f"--beside={r.llm}={len(r.gpus)}@{r.gpu_fraction:g}{behind.get(r.llm, '')}"
                for r in others
            ),
            *more,
        ),
        tuple((replica.name, replica.llm) for replica in others),
    )
