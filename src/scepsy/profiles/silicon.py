"""What a replica can do, from published silicon data: step times and room for KV.

``docs/concepts/step-times.md`` says where the figures come from and how good they are. In short,
a step that computes n prompt tokens beside one token for each of b calls takes

    prefill(n, cached) + decode(b, context) - shared(n, b)

where the first two are tables, and what they share is the pass over the weights: with ``base(x)``
the least time that a step over x tokens takes, ``shared = base(n) + base(b) - base(n + b)``.

``base`` is convex, and both tables are made to never fall, which is why the sum never falls
either: more of anything never makes a step faster.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from scepsy.errors import InfeasibleError, InputError, MissingError
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.model.provenance import Provenance, worst
from scepsy.profiles.catalog import LlmSpec, find_gpu_type, find_llm, host_bytes_per_s
from scepsy.profiles.gpu_fraction import decode_slowdown, fraction_provenance, prefill_slowdown
from scepsy.profiles.line import Line, LineAtCounts
from scepsy.profiles.silicon_fit.accelerator import ACCELERATORS, find_accelerator
from scepsy.profiles.silicon_fit.architecture import find_architecture
from scepsy.profiles.silicon_fit.step_terms import Replica
from scepsy.profiles.silicon_fit.step_weights import (
    MEASURED_GPU_TYPES,
    OTHER_GPU_ERROR_FRACTION,
    OTHER_LLM_ERROR_FRACTION,
    SOURCE,
)
from scepsy.profiles.silicon_fit.steps import FittedStepTimes
from scepsy.profiles.step_table import StepTable, published_tables
from scepsy.profiles.step_time import EngineSpec
from scepsy.units import GIB, format_bytes

MEMORY_UTILIZATION = 0.92
"""Part of its GPU memory that an engine takes: vLLM's default ``gpu_memory_utilization``."""
OVERHEAD_BYTES = 2 * GIB
"""CUDA context, CUDA graphs and activations on each GPU. Assumed; vLLM takes 1 to 3 GiB."""
MIN_KV_TOKENS = 4096
"""KV tokens that a replica must have room for to be worth starting."""
FITTED_DEGREES = (1, 2, 4, 8)
"""Tensor parallel degrees that the fit has seen."""

_CONTEXT_STEPS_PER_OCTAVE = 2
_FAR = 64
"""How far beyond its table a step is thought to cost more and more, as multiples of its end."""


class TableStepTimes:
    """Step times interpolated in a step table, on a share of each GPU. See ``StepTimes``."""

    def __init__(
        self, table: StepTable, *, tensor_parallel: int = 1, gpu_fraction: float = 1.0
    ) -> None:
        slower = prefill_slowdown(gpu_fraction, tensor_parallel=tensor_parallel)
        prefill_s = _never_falling([[slower * s for s in row] for row in table.prefill_s])
        self._new_tokens, prefill_s = _continued(table.new_tokens, prefill_s)
        self._cached_tokens, columns = _continued(table.cached_tokens, _transposed(prefill_s))
        self._prefill_s = _never_falling(_transposed(columns))
        self._contexts = _context_grid(table)
        decode_s = _never_falling(
            [
                _decode_row(
                    table,
                    row,
                    self._contexts,
                    decode_slowdown(gpu_fraction, tensor_parallel=tensor_parallel, decodes=decodes),
                )
                for row, decodes in enumerate(table.decodes)
            ]
        )
        self._decodes, decode_s = _continued(table.decodes, decode_s)
        self._decode_s = _never_falling(decode_s)
        hull = _lower_hull(
            _first_column(table.new_tokens, self._prefill_s)
            + _first_column(table.decodes, self._decode_s)
        )
        self._base_s = LineAtCounts(Line(hull))
        self._decode_lines: dict[int, Line] = {}

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        """Seconds of one step."""
        if decodes <= 0:
            return self._prefill(prefill_tokens, prefill_context_tokens) if prefill_tokens else 0.0
        decode_s = self._decode_line(decodes).at(decode_context_tokens)
        if prefill_tokens <= 0:
            return decode_s
        base_s = self._base_s
        shared_s = base_s[prefill_tokens] + base_s[decodes] - base_s[prefill_tokens + decodes]
        prefill_s = self._prefill(prefill_tokens, prefill_context_tokens)
        return prefill_s + decode_s - max(0.0, shared_s)

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        """Seconds of ``steps`` pure decode steps in a row, each context growing by 1 token.

        The sum over the steps is the integral over their contexts from half a step before the
        first to half a step after the last: exact where step times grow linearly.
        """
        if decodes <= 0 or steps <= 0:
            return 0.0
        line = self._decode_line(decodes)
        first = decode_context_tokens - decodes / 2
        return (line.integral(first + steps * decodes) - line.integral(first)) / decodes

    def _prefill(self, new_tokens: int, cached_tokens: int) -> float:
        """Bilinear in the table."""
        rows, columns = self._new_tokens, self._cached_tokens
        i = bisect_right(rows, new_tokens, 1, len(rows) - 1)
        j = bisect_right(columns, cached_tokens, 1, len(columns) - 1)
        left = columns[j - 1]
        across = (cached_tokens - left) / (columns[j] - left)
        low, high = self._prefill_s[i - 1], self._prefill_s[i]
        low_s = low[j - 1] + across * (low[j] - low[j - 1])
        high_s = high[j - 1] + across * (high[j] - high[j - 1])
        top = rows[i - 1]
        return low_s + (new_tokens - top) / (rows[i] - top) * (high_s - low_s)

    def _decode_line(self, decodes: int) -> Line:
        """Time of a decode step of that many calls against their summed context. Remembered."""
        line = self._decode_lines.get(decodes)
        if line is None:
            rows = self._decodes
            i = bisect_right(rows, decodes, 1, len(rows) - 1)
            down = (decodes - rows[i - 1]) / (rows[i] - rows[i - 1])
            low, high = self._decode_s[i - 1], self._decode_s[i]
            values = [a + down * (b - a) for a, b in zip(low, high, strict=True)]
            line = Line(list(zip(self._contexts, values, strict=True)))
            self._decode_lines[decodes] = line
        return line


def _context_grid(table: StepTable) -> list[int]:
    """Summed contexts at which decode times are kept: 0, then half octaves over the table."""
    low = table.decodes[0] * table.context_tokens[0]
    high = table.decodes[-1] * table.context_tokens[-1]
    grid, step = [0], 0
    while grid[-1] < high:
        grid.append(round(low * 2 ** (step / _CONTEXT_STEPS_PER_OCTAVE)))
        step += 1
    return grid


def _decode_row(
    table: StepTable, row: int, contexts: Sequence[int], slowdown: float
) -> list[float]:
    """Times of a table's row at summed contexts; below its first context, that of the first."""
    line = Line(list(zip(table.context_tokens, table.decode_s[row], strict=True)))
    decodes, shortest = table.decodes[row], table.context_tokens[0]
    return [slowdown * line.at(max(context / decodes, shortest)) for context in contexts]


def _continued(axis: Sequence[int], rows: list[list[float]]) -> tuple[list[int], list[list[float]]]:
    """The rows with one far beyond the last, on the lines through the last two."""
    far = axis[-1] * _FAR
    steps = (far - axis[-1]) / (axis[-1] - axis[-2])
    row = [last + steps * (last - before) for before, last in zip(rows[-2], rows[-1], strict=True)]
    return [*axis, far], [*rows, row]


def _first_column(axis: Sequence[int], rows: list[list[float]]) -> list[tuple[int, float]]:
    """Times without cached tokens or context, where the table has them."""
    return [(x, row[0]) for x, row in zip(axis, rows, strict=False)]


def _transposed(rows: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _never_falling(rows: list[list[float]]) -> list[list[float]]:
    """Lower each value to the least of those at no smaller row and column.

    Measured tables fall here and there by some per cent. To lower the larger one keeps a long
    extrapolation at small batches from raising what was measured at large ones.
    """
    fixed = [list(row) for row in rows]
    for i in reversed(range(len(fixed))):
        for j in reversed(range(len(fixed[i]))):
            if i + 1 < len(fixed):
                fixed[i][j] = min(fixed[i][j], fixed[i + 1][j])
            if j + 1 < len(fixed[i]):
                fixed[i][j] = min(fixed[i][j], fixed[i][j + 1])
    return fixed


def _lower_hull(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The greatest convex function under the points, as its corners by x."""
    hull: list[tuple[int, float]] = []
    for x, y in sorted(points):
        if hull and hull[-1][0] == x:
            continue  # sorted by y too, so the lower one came first
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull


@cache
def engine_spec(
    llm: str, gpu_type: str, *, tensor_parallel: int, gpu_fraction: float = 1.0
) -> EngineSpec:
    """All that the engine model needs to know of one replica on published silicon.

    Args:
        llm: a name that ``find_llm`` knows.
        gpu_type: a name that ``find_gpu_type`` knows.
        tensor_parallel: one of ``tensor_parallels(llm, gpu_type)``, or 1, 2, 4 or 8.
        gpu_fraction: part of each GPU, compute and memory, in (0, 1].

    Raises:
        UnknownNameError: no such LLM or GPU type.
        InputError: the fraction is not in (0, 1].
        MissingError: no step times are published for this LLM, GPU type and degree, and the fit
            does not reach it.
        InfeasibleError: weights, overhead and KV for ``MIN_KV_TOKENS`` do not fit.
    """
    spec, gpu = find_llm(llm), find_gpu_type(gpu_type)
    if not 0 < gpu_fraction <= 1:
        raise InputError(f"gpu_fraction {gpu_fraction} is not in (0, 1]")
    table = published_tables(gpu.name).tables.get((spec.table, tensor_parallel))
    fitted = None if table else _replica(spec, gpu.name, tensor_parallel)
    kv_bytes = _kv_bytes(spec, gpu.memory_bytes, tensor_parallel, gpu_fraction)
    token_bytes = spec.replica_kv_bytes_per_token(tensor_parallel)
    if (short_bytes := MIN_KV_TOKENS * token_bytes - kv_bytes) > 0:
        raise InfeasibleError(
            f"{spec.name} at tensor parallel {tensor_parallel} does not fit on a GPU fraction of "
            f"{gpu_fraction:g} of {gpu.name}: {format_bytes(short_bytes / tensor_parallel)} short "
            "on each GPU",
            hint="take a larger fraction, a higher tensor parallel degree or a larger GPU",
        )
    share = "" if gpu_fraction == 1 else ", GPU share by a fit to MuxServe's A100 measurements"
    kv_blocks = int(kv_bytes // (token_bytes * BLOCK_TOKENS))
    of_share = fraction_provenance(gpu_fraction)
    if table is None:
        assert fitted is not None
        known = gpu.name in MEASURED_GPU_TYPES
        return EngineSpec(
            times=FittedStepTimes(fitted, gpu_fraction=gpu_fraction),
            kv_blocks=kv_blocks,
            provenance=worst((Provenance.EXTRAPOLATED if known else Provenance.ASSUMED, of_share)),
            source=f"{SOURCE}, for {spec.name} on {gpu.name}{share}",
            error_fraction=OTHER_LLM_ERROR_FRACTION if known else OTHER_GPU_ERROR_FRACTION,
        )
    of_table = table.source if spec.table == spec.hf_name else f"{table.source}, of {spec.table}"
    return EngineSpec(
        times=TableStepTimes(table, tensor_parallel=tensor_parallel, gpu_fraction=gpu_fraction),
        kv_blocks=kv_blocks,
        provenance=worst((table.provenance, spec.provenance, of_share)),
        source=of_table + share,
    )


def with_host_memory(
    spec: EngineSpec, llm: str, gpu_type: str, *, tensor_parallel: int, host_bytes: float
) -> EngineSpec:
    """A replica that offloads KV to so much host memory, each GPU its part over its own link.

    Raises:
        UnknownNameError: no such LLM or GPU type.
    """
    token_bytes = find_llm(llm).replica_kv_bytes_per_token(tensor_parallel)
    block_bytes = token_bytes * spec.block_tokens
    link_bytes_per_s = tensor_parallel * host_bytes_per_s(find_gpu_type(gpu_type).name)
    return replace(
        spec,
        host_blocks=int(host_bytes / block_bytes),
        host_block_s=block_bytes / link_bytes_per_s,
    )


def tensor_parallels(llm: str, gpu_type: str) -> tuple[int, ...]:
    """Tensor parallel degrees at which an LLM has step times for a GPU type and fits, rising.

    Those that are published; where none is, those that the fit reaches.

    Raises:
        UnknownNameError: no such LLM or GPU type.
    """
    spec, gpu = find_llm(llm), find_gpu_type(gpu_type)
    degrees = published_tables(gpu.name).tensor_parallels(spec.table)
    if not degrees and gpu.name in ACCELERATORS:
        degrees = FITTED_DEGREES
    return tuple(
        degree
        for degree in degrees
        if _kv_bytes(spec, gpu.memory_bytes, degree, 1.0)
        >= MIN_KV_TOKENS * spec.replica_kv_bytes_per_token(degree)
    )


def _kv_bytes(spec: LlmSpec, memory_bytes: int, tensor_parallel: int, gpu_fraction: float) -> float:
    """Memory left for KV over all GPUs of a replica; negative where not even weights fit."""
    each_bytes = gpu_fraction * memory_bytes * MEMORY_UTILIZATION - OVERHEAD_BYTES
    return tensor_parallel * each_bytes - spec.weight_bytes


def _replica(spec: LlmSpec, gpu_type: str, tensor_parallel: int) -> Replica:
    """What the fit needs to know, where it reaches."""
    if tensor_parallel not in FITTED_DEGREES or gpu_type not in ACCELERATORS:
        known = ", ".join(map(str, tensor_parallels(spec.hf_name, gpu_type)))
        raise MissingError(
            f"no step times of {spec.name} at tensor parallel {tensor_parallel} on {gpu_type}",
            hint=f"known degrees: {known}" if known else "take another GPU type",
        )
    return Replica(
        llm=spec.architecture or find_architecture(find_llm(spec.table).name),
        gpu=find_accelerator(gpu_type),
        precision=spec.precision,
        gpus=tensor_parallel,
    )
