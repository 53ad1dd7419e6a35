"""What each replica of an allocation can do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from scepsy.errors import InfeasibleError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.profiles.catalog import memory_move_s
from scepsy.profiles.step_time import EngineSpec

SpecOf = Callable[[LlmName, GpuTypeName, int, float], EngineSpec]
"""A replica of an LLM on a GPU type with a tensor parallel degree and a GPU fraction.

Raises InfeasibleError where it does not fit and MissingError where no step times are known.
"""


def published(llm: LlmName, gpu_type: GpuTypeName, degree: int, fraction: float) -> EngineSpec:
    """What is published of them: a ``SpecOf``."""
    from scepsy.profiles.silicon import engine_spec  # noqa: PLC0415 - reads tables at import

    return engine_spec(llm, gpu_type, tensor_parallel=degree, gpu_fraction=fraction)


def offloading(spec_of: SpecOf, host_bytes: Mapping[LlmName, float]) -> SpecOf:
    """As ``spec_of``, with so much host memory for the KV of each replica of some LLMs.

    The ``SpecOf`` raises UnknownNameError for such an LLM, or its GPU type, that is not known.
    """

    def of(llm: LlmName, gpu_type: GpuTypeName, degree: int, fraction: float) -> EngineSpec:
        spec = spec_of(llm, gpu_type, degree, fraction)
        of_llm_bytes = host_bytes.get(llm, 0.0)
        if not of_llm_bytes:
            return spec
        from scepsy.profiles.silicon import with_host_memory  # noqa: PLC0415 - reads tables

        return with_host_memory(
            spec, llm, gpu_type, tensor_parallel=degree, host_bytes=of_llm_bytes
        )

    return of


def specs_of(allocation: Allocation, spec_of: SpecOf) -> dict[LlmName, EngineSpec]:
    """The engine of each LLM.

    Raises:
        InfeasibleError: a group's weights do not fit its share of the GPUs.
        MissingError: no step times are known for a group.
    """
    found = {
        g.llm: spec_of(g.llm, g.gpu_type, g.tensor_parallel, g.gpu_fraction)
        for g in allocation.groups
    }
    for llms in allocation.turns:
        together = [allocation.group(llm) for llm in llms]
        found.update(_by_turns(together, {llm: found[llm] for llm in llms}, spec_of))
    return found


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


def _by_turns(
    groups: Sequence[ReplicaGroup], shares: Mapping[LlmName, EngineSpec], spec_of: SpecOf
) -> dict[LlmName, EngineSpec]:
    """At its turn an LLM has the whole GPUs, and for KV all that no weights take.

    Args:
        groups: those that take turns.
        shares: their engines on their parts of the memory.
        spec_of: gives those on all of it.
    """
    wholes = {g.llm: spec_of(g.llm, g.gpu_type, g.tensor_parallel, 1.0) for g in groups}
    # KV blocks grow with the part of the memory, once that holds the weights.
    sizes = {
        g.llm: (1 - g.gpu_fraction) / more
        for g in groups
        if (more := wholes[g.llm].kv_blocks - shares[g.llm].kv_blocks) > 0
    }
    room = 1 - sum(1 - size * wholes[llm].kv_blocks for llm, size in sizes.items())
    return {
        g.llm: replace(
            wholes[g.llm],
            kv_blocks=int(room / size) if (size := sizes.get(g.llm)) else shares[g.llm].kv_blocks,
            host_block_s=sizes.get(g.llm, 0.0) * memory_move_s(g.gpu_type),
            provenance=shares[g.llm].provenance,
            error_fraction=shares[g.llm].error_fraction,
        )
        for g in groups
    }
