"""Step times from an operator profile: the sum over the layers of what a step gives them.

A step takes, on one GPU of those that share a layer,

    layers * (dense(tokens) + attention(...) + experts(...) + exchange(tokens)) + head(sequences)

``docs/concepts/simulator-accuracy.md`` says what is taken from where and what it misses.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import sqrt

from scepsy.errors import InputError
from scepsy.profiles.line import Line
from scepsy.profiles.operator_profile import OperatorProfile, Points
from scepsy.profiles.step_time import BatchShape

_ONCE = frozenset({"embedding", "final_layernorm"})
"""Dense layers that a model has once; it has all others in each of its layers."""
_TWICE = frozenset({"layernorm"})
"""Dense layers that each layer has twice: before attention, and before what follows it."""
_BF16 = 2
SKEW = 0.06
"""Skew of pure decode steps on GPU types that are not below, where the profile has none: the mean
of the six that were published (0.054 to 0.075, three LLMs at two degrees on one GPU type)."""
MULTIPROCESSORS = {"RTXPRO6000": 188, "RTX4090": 128}
"""Of the GPU types for which decodes of unequal length were measured; from NVIDIA's data sheets."""
_TAIL, _SPLIT, _SPLIT_SKEW = 0.2, 1.6, 0.03
"""In units of work (a decode's KV head) for each multiprocessor, of which FlashAttention 2 does not
split any once there are 1.6: skew is then 0.2 / units, as the longest is a tail of its own; 0.03
before. From the seven published sweeps, of which it leaves 2.3 to 4.0 % of attention time (the
profiles' own figures: 4.4 to 5.4 %)."""
_BOTH_WAYS = 2
"""How much faster a link is in gathering or scattering alone, when it carries both directions at
once, than in an all-reduce. LLMServingSim found so with NCCL on PCIe 5.0 (serving/__main__.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorModel:
    """What of an LLM's architecture the times depend on."""

    layers: int
    hidden: int
    """Width of what passes from layer to layer."""
    kv_heads: int
    vocabulary: int
    experts: int = 0
    """Experts in each layer; 0 where it has none."""
    experts_per_token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What joins the GPUs of a replica."""

    bytes_per_s: float
    """Of one GPU in a ring all-reduce, which sends and receives by turns."""
    latency_s: float
    """Of one hop, however little it carries."""

    def all_reduce_s(self, size_bytes: float, gpus: int) -> float:
        """Seconds until all GPUs have the sum: a ring that scatters, then gathers."""
        hop_s = self.latency_s + size_bytes / gpus / self.bytes_per_s
        return 2 * (gpus - 1) * hop_s

    def gather_s(self, part_bytes: float, gpus: int) -> float:
        """Seconds until all GPUs have each other's part, or have summed up their own."""
        hop_s = self.latency_s + part_bytes / (_BOTH_WAYS * self.bytes_per_s)
        return (gpus - 1) * hop_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model is spread over GPUs."""

    data_parallel: int = 1
    """Copies of attention among which experts are shared."""
    expert_parallel: int = 1
    """GPUs over which the experts are spread whole; 1: each GPU has a slice of every expert."""
    capture_tokens: int = 256
    """Steps of up to so many tokens run as CUDA graphs, for fixed numbers of tokens. vLLM: twice
    ``max_num_seqs``, at most 512."""


class OperatorStepTimes:
    """Step times of one replica. See ``BatchStepTimes``."""

    def __init__(
        self,
        profile: OperatorProfile,
        model: OperatorModel,
        layout: Layout | None = None,
        link: Link | None = None,
    ) -> None:
        """Prepare the sums.

        Raises:
            InputError: the profile lacks what the model has, or GPUs are joined by nothing.
        """
        self._profile, self._model = profile, model
        self._layout = layout or Layout()
        self._gpus = profile.tensor_parallel
        if bool(model.experts) != bool(profile.moe):
            raise InputError(f"{profile.llm}: either model and profile have experts, or neither")
        if link is None and max(self._gpus, self._layout.data_parallel) > 1:
            raise InputError(f"{profile.llm}: several GPUs need a link between them")
        self._link = link or Link(bytes_per_s=1.0, latency_s=0.0)
        times = {layer: _line(points) for layer, points in profile.dense.items()}
        self._each = [line for name, line in times.items() if name not in _ONCE]
        self._each += [line for name, line in times.items() if name in _TWICE]
        self._once = [line for name, line in times.items() if name in _ONCE]
        self._head = [_line(points) for points in profile.per_sequence.values()]
        self._experts = [(experts, _line(points)) for experts, points in profile.moe.items()]
        self._sizes = graph_sizes(self._layout.capture_tokens)
        self._dense_s, self._head_s = cache(self._dense), cache(self._per_sequence)
        self._decode_lines: dict[int, Line] = {}

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        """Seconds of one step, its prompt tokens in one chunk, its decodes of one length."""
        prefills = ((prefill_tokens, prefill_context_tokens),) if prefill_tokens > 0 else ()
        longest = -(-decode_context_tokens // decodes) if decodes else 0
        return self.batch_step_s(BatchShape(prefills, decodes, decode_context_tokens, longest))

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        """Seconds of so many pure decode steps, all of one length."""
        if decodes <= 0:
            return 0.0
        longest = -(-decode_context_tokens // decodes)
        return self.batch_run_s(BatchShape((), decodes, decode_context_tokens, longest), steps)

    def batch_step_s(self, batch: BatchShape) -> float:
        """Seconds of one step."""
        return self.group_step_s([batch])

    def batch_run_s(self, batch: BatchShape, steps: int) -> float:
        """Seconds of so many pure decode steps in a row: sums of attention are integrals."""
        decodes = batch.decodes
        if decodes <= 0 or steps <= 0:
            return 0.0
        line = self._decode_lines.get(decodes)
        if line is None:
            grid = self._profile.attention
            line = Line([(kv, grid.at(0, 0, decodes, kv)) for kv in grid.contexts])
            self._decode_lines[decodes] = line
        mean, longest = batch.decode_context_tokens / decodes, batch.longest_decode_tokens
        mean_s = line.integral(mean - 0.5 + steps) - line.integral(mean - 0.5)
        longest_s = line.integral(longest - 0.5 + steps) - line.integral(longest - 0.5)
        attention_s = mean_s + self._skew(decodes) * max(0.0, longest_s - mean_s)
        return steps * self._fixed_s([batch]) + self._model.layers * attention_s

    def group_step_s(self, batches: Sequence[BatchShape]) -> float:
        """Seconds of a step that copies of attention take together: each layer waits for all."""
        busy = [batch for batch in batches if batch.tokens]
        if not busy:
            return 0.0
        attention_s = max(self._attention_s(batch) for batch in busy)
        return self._fixed_s(batches) + self._model.layers * attention_s

    def _fixed_s(self, batches: Sequence[BatchShape]) -> float:
        """Seconds of all but attention."""
        most = max(batch.tokens for batch in batches)
        is_graph = most <= self._layout.capture_tokens
        padded = self._sizes[bisect_left(self._sizes, most)] if is_graph else most
        # In a graph each copy computes as many tokens as the largest; one without work computes 1.
        tokens = sum(padded if is_graph else max(1, batch.tokens) for batch in batches)
        once_s = self._dense_s(padded)
        head_s = max(self._head_s(batch.sequences) for batch in batches)
        return once_s + head_s + self._model.layers * self._spread_s(tokens, padded)

    def _dense(self, tokens: int) -> float:
        each_s = sum(line.at(tokens) for line in self._each)
        once_s = sum(line.at(tokens) for line in self._once)
        if self._gpus > 1:  # after attention, after what follows it, and after the embedding
            size_bytes = tokens * self._model.hidden * _BF16
            reduce_s = self._link.all_reduce_s(size_bytes, self._gpus)
            each_s, once_s = each_s + 2 * reduce_s, once_s + reduce_s
        return self._model.layers * each_s + once_s

    def _per_sequence(self, sequences: int) -> float:
        head_s = sum(line.at(sequences) for line in self._head)
        if self._gpus > 1:  # each has the logits of its part of the vocabulary
            part_bytes = sequences * self._model.vocabulary / self._gpus * _BF16
            head_s += self._link.gather_s(part_bytes, self._gpus)
        return head_s

    def _spread_s(self, tokens: int, largest: int) -> float:
        """Seconds of one layer's experts, and of bringing the tokens of all copies there and back.

        Args:
            tokens: of all copies.
            largest: of the copy that has most.
        """
        model, layout = self._model, self._layout
        if not model.experts:
            return 0.0
        here = layout.expert_parallel
        untouched = (1 - model.experts_per_token / model.experts) ** tokens
        active = model.experts / here * (1 - untouched)  # as if each token chose at random
        sliced = self._gpus if here == 1 else 1
        # All rows that were brought here pass the kernel, those of experts elsewhere as zeros.
        experts_s = self._experts_s(tokens, active) / sliced
        copies = layout.data_parallel
        if copies == 1:
            return experts_s
        there_bytes = largest * (model.hidden + model.experts) * _BF16
        back_bytes = largest * model.hidden * _BF16
        gather_s = self._link.gather_s
        return experts_s + gather_s(there_bytes, copies) + gather_s(back_bytes, copies)

    def _experts_s(self, tokens: float, active: float) -> float:
        lines = self._experts
        if active <= lines[0][0]:  # the time goes into reading their weights
            return lines[0][1].at(tokens) * active / lines[0][0]
        i = min(bisect_left([count for count, _ in lines], active), len(lines) - 1)
        (low, low_line), (high, high_line) = lines[i - 1], lines[i]
        low_s, high_s = low_line.at(tokens), high_line.at(tokens)
        return low_s + (active - low) / (high - low) * (high_s - low_s)

    def _skew(self, decodes: int) -> float:
        """How far decodes of unequal length are from those of mean to those of greatest length."""
        multiprocessors = MULTIPROCESSORS.get(self._profile.gpu_type)
        if multiprocessors is None:
            return SKEW if self._profile.skew is None else self._profile.skew
        units = decodes * max(1, self._model.kv_heads // self._gpus) / multiprocessors
        return _TAIL / units if units >= _SPLIT else _SPLIT_SKEW

    def _attention_s(self, batch: BatchShape) -> float:
        """Seconds of one layer's attention."""
        at = self._profile.attention.at
        decodes = batch.decodes
        mean = batch.decode_context_tokens / decodes if decodes else 0.0
        longest = max(mean, batch.longest_decode_tokens)
        chunk, context = _equal_chunk(batch.prefills)
        mean_s = at(chunk, context, decodes, mean)
        if decodes < 2 or longest <= mean:
            return mean_s
        longest_s = at(chunk, context, decodes, longest)
        if not chunk:
            return mean_s + self._skew(decodes) * max(0.0, longest_s - mean_s)
        # Beside prompts a decode is not split: the step lasts while the longest still reads.
        tail_s = at(chunk, context, 1, longest) - at(chunk, context, 1, mean)
        return mean_s + max(0.0, min(tail_s, longest_s - mean_s))


def graph_sizes(capture_tokens: int) -> list[int]:
    """The numbers of tokens for which vLLM captures CUDA graphs."""
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, capture_tokens + 1, 16)]
    return [size for size in sizes if size < capture_tokens] + [capture_tokens]


def _line(points: Points) -> Line:
    """A line that never falls: halfway between the most before a point and the least after it."""
    counts, times = zip(*points, strict=True)
    most = list(accumulate(times, max))
    least = list(accumulate(reversed(times), min))[::-1]
    flat = (counts[0] - 1, (most[0] + least[0]) / 2)  # less takes no less time
    return Line([flat, *((n, (a + b) / 2) for n, a, b in zip(counts, most, least, strict=True))])


def _equal_chunk(prefills: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """One chunk, and its tokens in KV, in which attention looks at as many pairs of tokens."""
    tokens = sum(new for new, _ in prefills)
    if len(prefills) < 2:
        return tokens, sum(context for _, context in prefills)
    context = sum(new * context for new, context in prefills) / tokens
    pairs = sum(new * (context + new / 2) for new, context in prefills)
    return sqrt(context**2 + 2 * pairs) - context, context
