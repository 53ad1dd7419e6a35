"""What each replica of an allocation can do."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from scepsy.errors import InfeasibleError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.profiles.step_time import EngineSpec

SpecOf = Callable[[LlmName, GpuTypeName, int, float], EngineSpec]
"""A replica of an LLM on a GPU type with a tensor parallel degree and a GPU fraction.

Raises InfeasibleError where it does not fit and MissingError where no step times are known.
"""


def published(llm: LlmName, gpu_type: GpuTypeName, degree: int, fraction: float) -> EngineSpec:
    """What is published of them: a ``SpecOf``."""
    from scepsy.profiles.silicon import engine_spec  # noqa: PLC0415 - reads tables at import

    return engine_spec(llm, gpu_type, tensor_parallel=degree, gpu_fraction=fraction)


def specs_of(allocation: Allocation, spec_of: SpecOf) -> dict[LlmName, EngineSpec]:
    """The engine of each LLM.

    Raises:
        InfeasibleError: a group's weights do not fit its share of the GPUs.
        MissingError: no step times are known for a group.
    """
    return {
        group.llm: _spec(group, spec_of, takes_turns=bool(allocation.turns_of(group.llm)))
        for group in allocation.groups
    }


def check_calls_fit(specs: Mapping[LlmName, EngineSpec], longest: Mapping[LlmName, int]) -> None:
    """Hold that each LLM's longest call fits the KV cache of its engines.

    Args:
        specs: of the engines.
        longest: tokens of the longest call of each LLM, prompt and answer.

    Raises:
        InfeasibleError: one does not.
    """
    for llm, tokens in longest.items():
        room = specs[llm].kv_blocks * specs[llm].block_tokens
        if tokens > room:
            raise InfeasibleError(
                f"{llm}: a call of {tokens} tokens does not fit the KV cache of {room} tokens",
                hint="give the LLM more of the GPUs' memory, or a higher tensor parallel degree",
            )


def _spec(group: ReplicaGroup, spec_of: SpecOf, *, takes_turns: bool) -> EngineSpec:
    """An LLM that takes turns has the memory of its share, and at its turn the whole GPUs."""
    spec = spec_of(group.llm, group.gpu_type, group.tensor_parallel, group.gpu_fraction)
    if not takes_turns:
        return spec
    whole = spec_of(group.llm, group.gpu_type, group.tensor_parallel, 1.0)
    return replace(
        whole,
        kv_blocks=spec.kv_blocks,
        provenance=spec.provenance,
        error_fraction=spec.error_fraction,
    )
