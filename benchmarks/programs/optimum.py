"""What engines had to compute, over the least that they would have had to, with Belady's optimum.

The calls of a run are admitted again as they were, on the same replicas, at the same instants and
for as long; only what is forgotten differs. So it is what retention alone is worth: where calls go,
and how many run at a time, is as the system had it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.programs.scenario import prefill_s
from benchmarks.retention_replay import NEVER
from scepsy.model.execution import ReplicaName
from scepsy.policy.retain_yardsticks import Belady
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.kv_cache import KvCache

_ENDS, _STARTS = range(2)
"""The order of events at one instant."""


@dataclass(frozen=True, slots=True)
class Admission:
    """One call as an engine ran it."""

    replica: ReplicaName
    start_s: float
    end_s: float
    prompt_tokens: int
    cached_tokens: int
    blocks: int
    """That it held in the end."""
    prompt: tuple[int, ...]
    """Ids of the blocks that could be found cached."""
    chain: tuple[int, ...]
    """Those and the others that it left."""
    counts: bool


@dataclass(slots=True)
class Computed:
    """Of the calls that count."""

    tokens: int = 0
    seconds: float = 0.0

    def add(self, spec: EngineSpec, prompt_tokens: int, cached_tokens: int) -> None:
        self.tokens += prompt_tokens - cached_tokens
        self.seconds += prefill_s(spec, cached_tokens, prompt_tokens)


def over_optimum(admissions: Sequence[Admission], spec: EngineSpec) -> tuple[float, float]:
    """Tokens computed, and seconds that takes alone, over those of the optimum."""
    got, best = Computed(), Computed()
    for admission in admissions:
        if admission.counts:
            got.add(spec, admission.prompt_tokens, admission.cached_tokens)
    for name in sorted({admission.replica for admission in admissions}):
        _replay([each for each in admissions if each.replica == name], spec, best)
    return got.tokens / best.tokens, got.seconds / best.seconds


def _replay(admissions: Sequence[Admission], spec: EngineSpec, best: Computed) -> None:
    """Of one replica."""
    ordered = sorted(admissions, key=lambda each: each.start_s)
    uses = _next_uses(ordered)
    upcoming: dict[int, int] = {}
    cache = KvCache(spec.kv_blocks, None, Belady(_oracle(upcoming)))
    held: dict[int, tuple[list[int], int]] = {}
    events = [(each.start_s, _STARTS, at) for at, each in enumerate(ordered)]
    events += [(each.end_s, _ENDS, at) for at, each in enumerate(ordered)]
    for _, what, at in sorted(events):
        each = ordered[at]
        if what == _ENDS:
            if at in held:
                ids, private = held.pop(at)
                cache.release(ids, private)
            continue
        upcoming.update(uses[at])
        blocks = max(each.blocks, len(each.chain))
        hits = cache.hold(each.prompt, blocks)
        if hits is None:  # it held less when it began than it did in the end
            if each.counts:
                best.add(spec, each.prompt_tokens, each.cached_tokens)
            continue
        ids = [*each.prompt[:hits], *cache.share(each.chain[hits:])]
        held[at] = ids, blocks - len(ids)
        if each.counts:
            best.add(spec, each.prompt_tokens, hits * spec.block_tokens)


def _oracle(upcoming: dict[int, int]) -> Callable[[int], int]:
    def next_use(block: int) -> int:
        return upcoming.get(block, NEVER)

    return next_use


def _next_uses(ordered: Sequence[Admission]) -> list[dict[int, int]]:
    """For each start, the start that uses each block of its chain next."""
    later: dict[int, int] = {}
    found: list[dict[int, int]] = []
    for at in reversed(range(len(ordered))):
        found.append({block: later.get(block, NEVER) for block in ordered[at].chain})
        later.update(dict.fromkeys(ordered[at].prompt, at))
    found.reverse()
    return found
