"""What is simulated: a workload, replicas on a GPU type, and so many users at a time.

*Pressure* is what the KV blocks of all executions under way need, over what the replicas hold. A
block is needed from the start of the first call that uses it to the end of the last one, in an
execution that never waits for a GPU; what executions share is left out. The loop is closed: so many
users, each of whom starts the next execution when the last has ended. So the executions under way,
and with them the pressure, are the same whatever serves them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from heapq import heappop, heappush
from math import log, sqrt
from random import Random

from benchmarks.programs.sessions import LLM, Workload, workload
from scepsy.profiles.catalog import find_llm
from scepsy.profiles.silicon import engine_spec, with_host_memory
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Segment
from scepsy.sim.arrivals import Arrival, shuffled_rounds
from scepsy.sim.fleet import replica_names
from scepsy.sim.run import Fault
from scepsy.sim.script import Script
from scepsy.units import GIB

DEGREE = 4
CHUNK_TOKENS = 2048
COUNTED = 120
"""Executions, after one of each user that does not count."""

LOST_S = 300.0
"""For which a replica is lost, where one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One cell of the comparison."""

    workload: str
    gpu: str = "h100"
    replicas: int = 4
    pressure: float = 1.0
    half: str = "tuning"
    gap_cv: float | None = None
    """Coefficient of variation of gaps that are drawn anew; None: as recorded."""
    loses: bool = False
    """Whether a replica is lost for a time."""
    host_gib: float = 0.0
    """Of host memory for the KV of each replica, which engines offload to."""
    trouble: str | None = None
    """One of ``benchmarks.programs.trouble``."""

    @property
    def name(self) -> str:
        drawn = "" if self.gap_cv is None else f"-cv{self.gap_cv:g}"
        lost = "-loss" if self.loses else ""
        trouble = "" if self.trouble is None else f"-{self.trouble}"
        cell = f"{self.workload}-{self.gpu}-{self.replicas}-{self.pressure:g}"
        host = f"-host{self.host_gib:g}" if self.host_gib else ""
        return f"{cell}{host}{drawn}{lost}{trouble}"

    @property
    def executions(self) -> Workload:
        if self.gap_cv is None:
            return workload(self.workload, self.half)
        return with_gaps(self.workload, self.half, self.gap_cv)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The first replica is gone for a time."""
        if not self.loses:
            return ()
        at_s = self.trouble_s
        return (Fault(at_s, LLM, replica_names(LLM, 1)[0], at_s + LOST_S),)

    @property
    def trouble_s(self) -> float:
        """About when what counts begins to arrive."""
        return self.life_s * max(1.0, self.pressure)

    @property
    def life_s(self) -> float:
        """Of an execution that never waits, in the mean, its gaps as recorded."""
        return demand(self.workload, self.gpu, self.half).life_s

    @property
    def spec(self) -> EngineSpec:
        """One replica, its KV in blocks of the workload's size."""
        spec = spec_of(self.gpu, self.executions.block_tokens)
        if not self.host_gib:
            return spec
        host_bytes = self.host_gib * GIB
        return with_host_memory(spec, LLM, self.gpu, tensor_parallel=DEGREE, host_bytes=host_bytes)

    @property
    def users(self) -> int:
        kv_tokens = self.spec.kv_blocks * self.spec.block_tokens * self.replicas
        live_tokens = demand(self.workload, self.gpu, self.half).live_tokens
        return max(1, round(self.pressure * kv_tokens / live_tokens))


@dataclass(frozen=True, slots=True)
class Demand:
    """An execution that never waits, in the mean."""

    life_s: float
    live_tokens: float
    """Needed at a time, without what executions share."""


@cache
def spec_of(gpu: str, block_tokens: int) -> EngineSpec:
    spec = engine_spec(LLM, gpu, tensor_parallel=DEGREE)
    return replace(
        spec,
        kv_blocks=spec.kv_blocks * spec.block_tokens // block_tokens,
        block_tokens=block_tokens,
        chunk_tokens=CHUNK_TOKENS,
    )


def kv_bytes_per_token() -> int:
    return find_llm(LLM).replica_kv_bytes_per_token(DEGREE)


@cache
def with_gaps(name: str, half: str, variation: float) -> Workload:
    """All gaps drawn from one log-normal distribution, with the mean of those recorded."""
    found = workload(name, half)
    gaps_s = [call.after_s for s in found.scripts for call in s.segment.calls if call.waits_for]
    sigma = sqrt(log(1 + variation**2))
    location = log(sum(gaps_s) / len(gaps_s)) - sigma**2 / 2
    rng = Random(f"{name}/{half}/{variation}")

    def drawn(script: Script) -> Script:
        calls = tuple(
            replace(call, after_s=rng.lognormvariate(location, sigma)) if call.waits_for else call
            for call in script.segment.calls
        )
        return replace(script, segment=Segment(calls))

    return replace(found, scripts=tuple(map(drawn, found.scripts)))


@cache
def demand(name: str, gpu: str, half: str) -> Demand:
    found = workload(name, half)
    spec = spec_of(gpu, found.block_tokens)
    lives = [life(script, spec) for script in found.scripts]
    life_s = sum(each.life_s for each in lives)
    return Demand(life_s / len(lives), sum(each.needed_token_s for each in lives) / life_s)


def prefill_s(spec: EngineSpec, cached: int, prompt: int) -> float:
    """Seconds to compute a prompt of which so many tokens are cached, nothing else in the way."""
    total_s, at = 0.0, cached
    while at < prompt:
        tokens = min(spec.chunk_tokens, prompt - at)
        total_s += spec.times.step_s(
            prefill_tokens=tokens, prefill_context_tokens=at, decodes=0, decode_context_tokens=0
        )
        at += tokens
    return total_s


@dataclass(frozen=True, slots=True)
class Life:
    """An execution that never waits."""

    life_s: float
    needed_token_s: float
    """KV times seconds."""
    gpu_s: float
    """Of a replica that decodes so many calls at a time."""


def life(script: Script, spec: EngineSpec, decodes: int = 1) -> Life:
    """Of an execution whose calls decode beside others, so many in all."""
    seen: set[int] = set()
    began: dict[int, float] = {}
    over: dict[int, float] = {}
    ends: list[float] = []
    gpu_s = 0.0
    for call in script.segment.calls:
        start_s = max((ends[at] for at in call.waits_for), default=0.0) + call.after_s
        hits = call.shared_blocks
        while hits < call.prefix_blocks and call.blocks[hits] in seen:
            hits += 1
        hits = min(hits, (call.prompt_tokens - 1) // spec.block_tokens)
        seen.update(call.blocks)
        computed_s = prefill_s(spec, hits * spec.block_tokens, call.prompt_tokens)
        decoded_s = spec.times.decode_run_s(
            decodes=decodes,
            decode_context_tokens=decodes * call.prompt_tokens,
            steps=call.output_tokens - 1,
        )
        end_s = start_s + computed_s + decoded_s
        gpu_s += computed_s + decoded_s / decodes
        ends.append(end_s)
        for block in call.blocks[call.shared_blocks :]:
            began.setdefault(block, start_s)
            over[block] = max(over.get(block, 0.0), end_s)
    needed = sum(over[block] - began[block] for block in began) * spec.block_tokens
    return Life(max(ends), needed, gpu_s)


class Users:
    """A closed loop whose users begin one after the other within a time, in a random order."""

    def __init__(self, scripts: Sequence[Script], *, users: int, within_s: float, seed: int):
        rng = Random(seed)
        self._ready = sorted(rng.uniform(0.0, within_s) for _ in range(users))  # a heap
        self._order = shuffled_rounds(scripts, rng)
        self.taken: list[Script] = []

    @property
    def next_s(self) -> float:
        return self._ready[0] if self._ready else float("inf")

    def take(self) -> Arrival:
        self.taken.append(next(self._order))
        return Arrival(heappop(self._ready), self.taken[-1])

    def ended(self, now_s: float) -> None:
        heappush(self._ready, now_s)


WORKLOADS = ("coding", "swe", "chat")
PRESSURES = (0.25, 0.5, 1.0, 2.0, 4.0)


def grid(
    *,
    workloads: Sequence[str] = WORKLOADS,
    gpus: Sequence[str] = ("h100",),
    replicas: Sequence[int] = (4,),
    pressures: Sequence[float] = PRESSURES,
    half: str = "tuning",
    gap_cvs: Sequence[float | None] = (None,),
    loses: bool = False,
    host_gib: Sequence[float] = (0.0,),
) -> Mapping[str, Scenario]:
    """Every combination, by name."""
    found = (
        Scenario(
            workload=name,
            gpu=gpu,
            replicas=count,
            pressure=pressure,
            half=half,
            gap_cv=gap_cv,
            loses=loses,
            host_gib=gib,
        )
        for gib in host_gib
        for gap_cv in gap_cvs
        for name in workloads
        for gpu in gpus
        for count in replicas
        for pressure in pressures
    )
    return {each.name: each for each in found}
