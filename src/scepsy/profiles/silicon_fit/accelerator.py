"""The GPU types that were measured, and the A100: peak rates from data sheets, without sparsity.

Bandwidths as in the system files of aiconfigurator-core 0.12.0 (ai-dynamo/aiconfigurator). All are
peaks: what of them is reached is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scepsy.errors import UnknownNameError
from scepsy.profiles.silicon_fit.configuration import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU."""

    name: str
    generation: str
    memory_bytes: float
    memory_bytes_per_s: float
    nvlink_bytes_per_s: float
    """One way, per GPU."""
    bf16_flops_per_s: float
    fp8_flops_per_s: float
    """That of BF16 where the GPU has no FP8: weights are unpacked."""
    fp4_flops_per_s: float
    """That of FP8 where the GPU has no FP4."""

    def flops_per_s(self, precision: Precision) -> float:
        """Peak of the matrix units with weights of that precision; INT4 is unpacked to BF16."""
        return {Precision.FP8: self.fp8_flops_per_s, Precision.FP4: self.fp4_flops_per_s}.get(
            precision, self.bf16_flops_per_s
        )


def _hopper(name: str, memory_gb: float, memory_tb_per_s: float) -> Accelerator:
    return Accelerator(
        name=name,
        generation="hopper",
        memory_bytes=memory_gb * 1e9,
        memory_bytes_per_s=memory_tb_per_s * 1e12,
        nvlink_bytes_per_s=450e9,
        bf16_flops_per_s=989e12,
        fp8_flops_per_s=1979e12,
        fp4_flops_per_s=1979e12,
    )


def _blackwell(name: str, memory_gb: float, fp4_pflops: float = 9.0) -> Accelerator:
    return Accelerator(
        name=name,
        generation="blackwell",
        memory_bytes=memory_gb * 1e9,
        memory_bytes_per_s=8e12,
        nvlink_bytes_per_s=900e9,
        bf16_flops_per_s=2250e12,
        fp8_flops_per_s=4500e12,
        fp4_flops_per_s=fp4_pflops * 1e15,
    )


ACCELERATORS: Mapping[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator(
            name="a100",
            generation="ampere",
            memory_bytes=80e9,
            memory_bytes_per_s=2.039e12,
            nvlink_bytes_per_s=300e9,
            bf16_flops_per_s=312e12,
            fp8_flops_per_s=312e12,
            fp4_flops_per_s=312e12,
        ),
        _hopper("h100", 80, 3.35),
        _hopper("h200", 141, 4.8),
        _blackwell("b200", 180),
        _blackwell("b300", 270, fp4_pflops=13.5),
        _blackwell("gb200", 186),
    )
}
"""By name; all SXM, GB200 in its NVLink rack."""


def find_accelerator(name: str) -> Accelerator:
    """The GPU type of a name.

    Raises:
        UnknownNameError: none is called that.
    """
    if name not in ACCELERATORS:
        raise UnknownNameError("GPU type", name, ACCELERATORS)
    return ACCELERATORS[name]
