"""Which shapes of a replica are worth profiling for a stage: those that fit and can matter."""

from collections.abc import Sequence
from dataclasses import dataclass

from scepsy.errors import InfeasibleError
from scepsy.profiles.silicon import engine_spec, tensor_parallels
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Workload

_FASTER = 0.8
"""A higher degree must bring the time of a lone call down to this part of the lower one's."""
_MAX_PARTS = 3
"""Fractions below 1 that are profiled for each degree."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One replica, on published silicon."""

    tensor_parallel: int
    gpu_fraction: float
    spec: EngineSpec


def profile_shapes(
    workload: Workload,
    llm: str,
    gpu_type: str,
    *,
    degrees: Sequence[int] | None = None,
    fractions: Sequence[float] | None = None,
) -> tuple[Shape, ...]:
    """Shapes that hold the LLM and the longest recorded call, by degree and fraction.

    Args:
        workload: the stage's recorded calls.
        llm: a name that ``find_llm`` knows; the recorded name may be another.
        gpu_type: on what.
        degrees: tensor parallel degrees to try. None: from the lowest that fits, as long as a lone
            call gets faster by it; two replicas do what a higher degree without that does.
        fractions: GPU fractions to try. None: some of the tenths that fit, with the least, the
            largest below 1, and 1; those between are interpolated.

    Raises:
        UnknownNameError: no such LLM or GPU type.
        MissingError: no step times are published for a degree that was asked for.
        InfeasibleError: nothing of it fits.
    """
    shapes: list[Shape] = []
    lone_s = float("inf")
    for degree in tensor_parallels(llm, gpu_type) if degrees is None else degrees:
        fitting = [
            shape
            for fraction in fractions or [tenths / 10 for tenths in range(1, 11)]
            if (shape := _fitting(workload, llm, gpu_type, degree, fraction)) is not None
        ]
        if not fitting:
            continue
        now_s = _lone_call_s(workload, fitting[-1].spec)
        if degrees is None and now_s > lone_s * _FASTER:
            break
        lone_s = now_s
        shapes += fitting if fractions else _spread(fitting)
    if not shapes:
        raise InfeasibleError(
            f"{workload.stage}: {llm} with calls of up to {workload.tokens_max} tokens "
            f"fits no shape on {gpu_type}",
            hint="try higher degrees or fractions, or a GPU type with more memory",
        )
    return tuple(shapes)


def _fitting(
    workload: Workload, llm: str, gpu_type: str, degree: int, fraction: float
) -> Shape | None:
    try:
        spec = engine_spec(llm, gpu_type, tensor_parallel=degree, gpu_fraction=fraction)
    except InfeasibleError:
        return None
    if workload.tokens_max > spec.kv_blocks * spec.block_tokens:
        return None
    return Shape(degree, fraction, spec)


def _lone_call_s(workload: Workload, spec: EngineSpec) -> float:
    calls = [call for segment in workload.segments for call in segment.calls]
    prompt_tokens = max(1, round(sum(call.prompt_tokens for call in calls) / len(calls)))
    output_tokens = round(sum(call.output_tokens for call in calls) / len(calls))
    prefill_s = spec.times.step_s(
        prefill_tokens=prompt_tokens,
        prefill_context_tokens=0,
        decodes=0,
        decode_context_tokens=0,
    )
    return prefill_s + spec.times.decode_run_s(
        decodes=1, decode_context_tokens=prompt_tokens, steps=max(0, output_tokens - 1)
    )


def _spread(fitting: Sequence[Shape]) -> list[Shape]:
    """The whole GPU, and at most ``_MAX_PARTS`` fractions below, with the least and the largest.

    Those are spread evenly in 1 / fraction, in which time is about linear; room for KV bends it
    most where it is short. The largest is among them because time jumps between it and the whole
    GPU, which nobody else is on: interpolating across the jump would be wrong.
    """
    parts = [shape for shape in fitting if shape.gpu_fraction < 1]
    whole = [shape for shape in fitting if shape.gpu_fraction == 1]
    if len(parts) <= _MAX_PARTS:
        return parts + whole
    low, high = 1 / parts[0].gpu_fraction, 1 / parts[-1].gpu_fraction
    wanted = [low + (high - low) * step / (_MAX_PARTS - 1) for step in range(_MAX_PARTS)]
    nearest = [min(parts, key=lambda s: abs(1 / s.gpu_fraction - at)) for at in wanted]
    unique = {id(shape): shape for shape in nearest}.values()
    return sorted(unique, key=lambda s: s.gpu_fraction) + whole
