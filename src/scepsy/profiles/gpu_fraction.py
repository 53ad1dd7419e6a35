"""How much slower a step is on part of a GPU: a model, fitted to another machine. All assumed.

An LLM that gets the share f of each GPU's multiprocessors (CUDA MPS) takes

    1 + a (1 / f - 1)

times as long, where ``a`` is the part of the time that scales with the multiprocessors; the rest
waits for memory or for the other GPUs. The parts are fitted to MuxServe's measurements of Llama
7B to 65B on A100s at f = 0.3 to 1 and tensor parallel degrees 1 to 8 [1], each run alone:

- prefill of at least 1,024 tokens: ``a`` falls from 0.69 (TP 1) to 0.46 (TP 8). The mean error is
  2.5 % at TP 1 to 4.7 % at TP 8, 95 % of rows are within 5.3 % to 15.5 %.
- decode: 0.18 for up to 64 calls, then rising to prefill's part at 256 calls, where compute binds
  it too. Fitted at TP 1, where it is off by 3.8 % in the mean and 21 % at most. At higher degrees
  the measured steps waited for the host, which today's engines avoid; there the model is slower
  than the measurements, by 7 % (TP 2) to 12 % (TP 8) in the median.

Whoever shares a GPU also shares its memory bandwidth and caches, and [1] has no such runs. One was
seen on an H200: an embedder beside a 30B generator under MPS cost the generator 16.5 % of its
throughput. So every step on less than a whole GPU is slower by 1 / (1 - 0.165), whatever the
neighbours do: too slow beside an idle neighbour, perhaps too fast beside a busy one.

LLMs can also take turns on whole GPUs: without MPS the driver lets those that have work compute
one after the other, in slices of milliseconds, and an LLM that is alone at work has all of the
GPU. In the same measurement this cost the generator 7.8 % of its throughput, the embedder's own
work included. So GPUs on which several LLMs have work lose that part of their time, which is
rather too much.

[1] hao-ai-lab/MuxServe on GitHub; repeat the fit with ``tools/fit_gpu_fraction.py``.
"""

from scepsy.errors import InputError
from scepsy.model.provenance import Provenance

PREFILL_PART = {1: 0.69, 2: 0.62, 4: 0.56, 8: 0.46}
"""Part of a prefill step that scales with the GPU share, by tensor parallel degree."""
DECODE_PART = 0.18
"""Part of a decode step that scales with the GPU share, at small batches."""
MEMORY_BOUND_DECODES = 64
"""Calls up to which a decode step is bound by memory alone."""
COMPUTE_BOUND_DECODES = 256
"""Calls from which a decode step scales with the share as a prefill step does."""
CO_RUN_PENALTY = 1 / (1 - 0.165)
"""Time of a step beside others on the GPU over its time without them."""

TURN_COST_FRACTION = 0.078
"""Part of the time of GPUs that is lost while several LLMs take turns on them. Assumed."""


def prefill_slowdown(gpu_fraction: float, *, tensor_parallel: int) -> float:
    """Time of a prefill step on a share of each GPU over its time on whole ones, >= 1.

    Raises:
        InputError: the share is not in (0, 1].
    """
    return _slowdown(gpu_fraction, _prefill_part(tensor_parallel))


def decode_slowdown(gpu_fraction: float, *, tensor_parallel: int, decodes: int) -> float:
    """Time of a decode step on a share of each GPU over its time on whole ones, >= 1.

    Raises:
        InputError: the share is not in (0, 1].
    """
    compute = (decodes - MEMORY_BOUND_DECODES) / (COMPUTE_BOUND_DECODES - MEMORY_BOUND_DECODES)
    weight = min(1.0, max(0.0, compute))
    part = DECODE_PART + weight * (_prefill_part(tensor_parallel) - DECODE_PART)
    return _slowdown(gpu_fraction, part)


def fraction_provenance(gpu_fraction: float) -> Provenance:
    """Assumed on part of a GPU; on whole ones nothing is added to what was measured."""
    return Provenance.MEASURED if gpu_fraction == 1 else Provenance.ASSUMED


def _prefill_part(tensor_parallel: int) -> float:
    """The part at the largest fitted degree that is not above the one asked for."""
    return PREFILL_PART[max(degree for degree in PREFILL_PART if degree <= max(1, tensor_parallel))]


def _slowdown(gpu_fraction: float, part: float) -> float:
    if not 0 < gpu_fraction <= 1:
        raise InputError(f"gpu_fraction {gpu_fraction} is not in (0, 1]")
    if gpu_fraction == 1:
        return 1.0
    return CO_RUN_PENALTY * (1 + part * (1 / gpu_fraction - 1))
