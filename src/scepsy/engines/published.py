"""What emulated engines are, where nobody says: what is published of their LLMs and GPUs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.specs import offloading, published, specs_of

if TYPE_CHECKING:
    from scepsy.engines.emulated import EngineServerConfig


def specs_for(configs: "Sequence[EngineServerConfig]") -> list[EngineSpec]:
    """Of one engine, or of some that take turns: those given, or else the published ones.

    Raises:
        InputError: they can't take turns on the same GPUs.
        UnknownNameError: no such LLM or GPU type.
        MissingError: no step times are published for them.
        InfeasibleError: an LLM does not fit.
    """
    given = [config.spec for config in configs if config.spec is not None]
    if len(given) == len(configs):
        return given
    groups = [
        ReplicaGroup(
            llm=LlmName(config.llm),
            gpu_type=GpuTypeName(config.gpu_type),
            tensor_parallel=config.tensor_parallel,
            gpu_fraction=config.gpu_fraction,
        )
        for config in configs
    ]
    ordered = tuple(sorted(groups, key=lambda group: group.llm))
    turns = (tuple(group.llm for group in ordered),) if len(configs) > 1 else ()
    host_bytes = {LlmName(config.llm): config.host_bytes for config in configs}
    specs = specs_of(Allocation(ordered, turns), offloading(published, host_bytes))
    return [config.spec or specs[LlmName(config.llm)] for config in configs]
