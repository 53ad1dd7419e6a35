"""What retention policies miss, over the fewest misses that there can be (Belady's optimum).

    SCEPSY_DATA=../shared/data python -m benchmarks.retention    # JSON lines on stdout

Coding-agent sessions with exact block ids (callanjfox/kv-cache-tester on GitHub) go through the KV
cache of one replica, Llama-3.1-70B at TP 4, its weights subtracted. A fixed number of agents is
live at a time, so that their contexts need ``pressure`` times the cache. A session is cut where it
is away for more than an hour, or outgrows the LLM's context. Policies that must be taught are by
one half of the sessions; the figures are of the other half, in five orders of arrival.

A miss is a block of a prompt that must be computed; "recomputed" leaves out those that no cache
could have had. Blocks of 64 tokens are joined by fours to save time: ``SCEPSY_COARSE``.
"""

import gzip
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import erfc, exp, log, sqrt
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

from benchmarks.host import report
from benchmarks.retention_replay import (
    Misses,
    Oracle,
    Program,
    Step,
    Turn,
    live_programs,
    next_uses,
    replay,
    timeline,
)
from scepsy.model.execution import Call
from scepsy.policy.retain import Lru, Retention
from scepsy.policy.retain_return import EmpiricalReturns, ReturnTime
from scepsy.policy.retain_saga import WaLruTtl
from scepsy.policy.retain_value import ByValue, RecomputeCost
from scepsy.policy.retain_yardsticks import Belady, FixedTtl, PrefixLru
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.step_time import EngineSpec
from scepsy.traces.readers import claude_code
from scepsy.traces.readers.source import Naming

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
LLM, GPU, DEGREE = "llama-3.1-70b", "h100", 4
CONTEXT_TOKENS = 131_072
COARSE = int(os.environ.get("SCEPSY_COARSE", "4"))
AWAY_S = 3600.0
"""Who stays away for longer begins anew."""
SPLIT_SEED = 0
PRESSURES = (0.25, 0.5, 1.0, 2.0, 4.0)
SEEDS, CALLS = 5, 2500
TOLD_ENDS = {"value-ends-told", "value-taught-ends-told"}
"""Policies that are told when a program calls no more, as a framework can whose run is over."""
TTLS_S = (60.0, 300.0)
TOLD_DEVIATIONS = (0.25, 1.0)
"""Of the logarithm: right within a factor of 1.3, or of 2.7, two times in three."""


def recompute_cost(spec: EngineSpec) -> RecomputeCost:
    """Of one block in a full chunk, by what the step model says of short and long contexts."""
    tokens, far = spec.chunk_tokens, 100_000
    near_s, far_s = (
        spec.times.step_s(
            prefill_tokens=tokens, prefill_context_tokens=at, decodes=0, decode_context_tokens=0
        )
        for at in (0, far)
    )
    size = spec.block_tokens * COARSE
    return RecomputeCost(near_s * size / tokens, (far_s - near_s) * size / tokens * size / far)


def sessions(path: Path, coarse: int = COARSE) -> list[list[Program]]:
    """Agents of each session, cut where they stay away or outgrow the context."""
    parse = claude_code.FORMAT.parser(Naming())
    found: list[list[Program]] = []
    with gzip.open(path) as lines:
        for line in lines:
            stops = _stops(json.loads(line))
            agents: dict[str, list[Call]] = {}
            for call in parse(line):
                agents.setdefault(call.id.rpartition("/")[0], []).append(call)
            found.append([p for calls in agents.values() for p in _pieces(calls, stops, coarse)])
    seen = Counter(
        block
        for programs in found
        for block in {b for p in programs for turn in p.turns for b in turn.chain}
    )
    return [[_with_shared(p, seen) for p in programs] for programs in found]


def _with_shared(program: Program, seen: Counter[int]) -> Program:
    """Count what its calls begin with that other sessions have too."""
    chain = program.turns[0].chain
    shared = next((at for at, block in enumerate(chain) if seen[block] == 1), len(chain))
    return replace(program, shared=shared)


def _stops(session: dict[str, Any]) -> dict[str, str]:
    """Why each call stopped, by the end of its id."""
    main = [r for r in session["requests"] if r["type"] != "subagent"]
    stops = {f"{session['id']}/{at}": r["stop"] for at, r in enumerate(main)}
    agents = [r for r in session["requests"] if r["type"] == "subagent"]
    for number, agent in enumerate(agents, start=1):
        for at, r in enumerate(agent["requests"]):
            stops[f"{session['id']}/subagent-{number}/{at}"] = r["stop"]
    return stops


def _pieces(calls: Sequence[Call], stops: dict[str, str], coarse: int) -> Iterator[Program]:
    turns: list[Turn] = []
    before: Call | None = None
    name = calls[0].id

    def piece() -> Iterator[Program]:
        if turns:
            yield Program(name, tuple(turns))
            turns.clear()

    for call in calls:
        gap_s = max(0.0, call.start_s - before.end_s) if before else 0.0
        before = call
        if call.prompt_tokens + call.output_tokens > CONTEXT_TOKENS:
            yield from piece()
            continue
        if gap_s > AWAY_S:
            yield from piece()
        if not turns:
            name = call.id
        tokens = coarse * call.block_tokens
        blocks = -(-(call.prompt_tokens + call.output_tokens) // tokens)
        last = coarse - 1  # of each run of blocks, the last tells which they all are
        chain = call.prefix_blocks[last : call.prompt_tokens // call.block_tokens : coarse]
        kind = stops[call.id.partition("/")[2]]
        held_s = call.end_s - call.start_s
        turns.append(Turn(gap_s, held_s, chain, blocks, kind, call.output_tokens))
    yield from piece()


def halves(found: Sequence[list[Program]]) -> tuple[list[Program], list[Program]]:
    """For choosing parameters, and for reporting."""
    order = list(found)
    Random(SPLIT_SEED).shuffle(order)
    half = len(order) // 2
    return (
        [p for session in order[:half] for p in session],
        [p for session in order[half:] for p in session],
    )


class Told:
    """Returns as a client might announce them: right but for a factor, and whether at all."""

    def __init__(self, steps: Sequence[Step], deviation: float, seed: int) -> None:
        self._coming: dict[str, deque[float]] = {}
        for step in steps:
            if step.what == "arrives":
                self._coming.setdefault(step.name, deque()).append(step.at_s)
        self._deviation, self._rng = deviation, Random(seed)

    def ended(self, now_s: float, program: str, _kind: str) -> ReturnTime:
        coming = self._coming.get(program)
        if not coming:
            return ToldWait(now_s, float("inf"), self._deviation)
        said_s = max(0.1, coming[0] - now_s) * exp(self._rng.gauss(0.0, self._deviation))
        return ToldWait(now_s, said_s, self._deviation)

    def over(self, now_s: float, program: str) -> None:
        """It was known."""

    def arrived(self, now_s: float, program: str) -> None:
        coming = self._coming[program]
        while coming and coming[0] <= now_s:
            coming.popleft()


class ToldWait:
    """Log-normal around what was said."""

    def __init__(self, since_s: float, said_s: float, deviation: float) -> None:
        self._since_s, self._said_s, self._deviation = since_s, said_s, deviation

    def probability(self, now_s: float, until_s: float) -> float:
        now, until = self._longer(now_s - self._since_s), self._longer(until_s - self._since_s)
        return 1.0 - until / now if now else 1.0

    def _longer(self, age_s: float) -> float:
        if self._said_s == float("inf") or age_s <= 0.0:
            return 1.0
        return 0.5 * erfc(log(age_s / self._said_s) / self._deviation / sqrt(2.0))


def learned_from(programs: Iterable[Program]) -> EmpiricalReturns:
    """What the sessions set apart for that teach, before the first reported one comes."""
    learned = EmpiricalReturns()
    now_s = 0.0
    for program in programs:
        for at, turn in enumerate(program.turns):
            if at:
                now_s += turn.gap_s
                learned.arrived(now_s, program.name)
            learned.ended(now_s, program.name, turn.kind)
        now_s += AWAY_S
    return learned


def policies(
    size: int, cost: RecomputeCost, steps: Sequence[Step], taught: Sequence[Program], seed: int
) -> dict[str, Callable[[], Retention]]:
    return {
        "lru": Lru,
        "prefix-lru": PrefixLru,
        **{f"ttl-{ttl_s:g}s": partial(FixedTtl, ttl_s) for ttl_s in TTLS_S},
        "wa-lru-ttl": lambda: WaLruTtl(size),
        "value": ByValue,
        "value-ends-told": ByValue,
        "value-taught-ends-told": lambda: ByValue(learned_from(taught)),
        "value-by-seconds": lambda: ByValue(cost=cost),
        "value-taught": lambda: ByValue(learned_from(taught)),
        **{
            f"value-told-{deviation:g}": partial(lambda d: ByValue(Told(steps, d, seed)), deviation)
            for deviation in TOLD_DEVIATIONS
        },
    }


def figures(got: Misses, best: Misses) -> dict[str, float]:
    again = best.blocks - best.first_blocks
    again_s = best.seconds - best.first_seconds
    return {
        "misses_over_belady": got.blocks / best.blocks,
        "seconds_over_belady": got.seconds / best.seconds,
        "recomputed_over_belady": (got.blocks - got.first_blocks) / again if again else 1.0,
        "recomputed_seconds_over_belady": (
            (got.seconds - got.first_seconds) / again_s if again_s else 1.0
        ),
        "hit_fraction": 1.0 - got.blocks / got.asked_blocks,
        "us_per_block_chosen": got.decision_ns / max(1, got.decisions) / 1e3,
    }


def replayed(programs: Sequence[Program], taught: Sequence[Program], spec: EngineSpec) -> None:
    size, cost = spec.kv_blocks // COARSE, recompute_cost(spec)
    overall: dict[str, list[dict[str, float]]] = {}
    for pressure in PRESSURES:
        live = live_programs(programs, size, pressure)
        found: dict[str, list[dict[str, float]]] = {}
        for seed in range(SEEDS):
            steps = timeline(programs, live=live, cache_blocks=size, calls=CALLS, seed=seed)
            run = partial(replay, steps, cache_blocks=size, cost=cost, skip=CALLS // 5, timed=True)
            oracle = Oracle(next_uses(steps))
            best = run(Belady(oracle), oracle=oracle)
            found.setdefault("belady", []).append(figures(best, best))
            for name, make in policies(size, cost, steps, taught, seed).items():
                got = run(make(), told_ends=name in TOLD_ENDS)
                found.setdefault(name, []).append(figures(got, best))
        for name, rows in found.items():
            overall.setdefault(name, []).extend(rows)
            tell(rows, pressure=pressure, live=live, policy=name)
    for name, rows in overall.items():
        tell(rows, pressure=None, live=None, policy=name)


def tell(
    rows: Sequence[dict[str, float]], *, pressure: float | None, live: int | None, policy: str
) -> None:
    """Means over the seeds; without a pressure, over all of them."""
    spread = [row["misses_over_belady"] for row in rows]
    shown = {key: round(mean(row[key] for row in rows), 4) for key in rows[0]}
    report(
        "retention",
        repeats=len(rows),
        gpu=GPU,
        pressure=pressure,
        live_programs=live,
        policy=policy,
        standard_error=round(stdev(spread) / sqrt(len(spread)), 4),
        **dict[str, Any](shown),
    )


def main() -> None:
    spec = engine_spec(LLM, GPU, tensor_parallel=DEGREE)
    taught, reported = halves(sessions(DATA / "claude_code" / "sessions.jsonl.gz"))
    replayed(reported, taught, spec)


if __name__ == "__main__":
    main()
