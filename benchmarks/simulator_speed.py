"""Calls per second of the simulator, beside a native one, on the same calls and replicas.

The Mooncake conversation trace (kvcache-ai/Mooncake on GitHub; SCEPSY_DATA names the folder that
has it) on 8 replicas behind a prefix-aware router, block by block of 64 tokens, and the same by
``dynamo.replay`` 1.6.1 (a Rust simulator) with its KV router, run after run by turns. Both have
room for 16,384 blocks on each replica, as is that one's default; step times are each one's own.

Then 1,000 replicas and 1 million calls: copies of the trace side by side, at the load per replica
of the first part, in blocks of 512 tokens as the trace has them.

    python -m benchmarks.simulator_speed [small | large]
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge
from itertools import islice
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter

from benchmarks.host import report
from scepsy.collector import collect_rarely
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.route import PrefixAware
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.workload import Segment, WorkloadCall
from scepsy.sim.arrivals import Arrival, OpenLoop
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names
from scepsy.sim.run import Simulation
from scepsy.sim.script import Script

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
TRACE = DATA / "mooncake/conversation_trace.jsonl"
DYNAMO = Path(os.environ.get("SCEPSY_DYNAMO", ".venv/dynamo/bin/python"))
REPEATS = 5
TRACE_BLOCK_TOKENS = 512
KV_TOKENS = 16_384 * 64
LLM = LlmName("llama-3.1-8b")
STAGE = Stage(WorkflowName("conversation"), LLM)
LARGE_REPLICAS, LARGE_CALLS = 1_000, 1_000_000
WANTED_LARGE_S, WANTED_LARGE_GIB = 600, 8

REPLAY = """
import os, sys
os.environ["DYN_LOG"] = "error"
from time import perf_counter
from dynamo.replay import run_trace_replay
start = perf_counter()
found = run_trace_replay(sys.argv[1], num_workers=8, router_mode="kv_router",
                         trace_block_size=512, capture_per_request=False)
print(perf_counter() - start, found.summary["completed_requests"],
      found.summary["prefix_cache_reused_ratio"])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call of the trace."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    ids: tuple[int, ...]
    """Of the prompt's full blocks of 512 tokens."""


def rows() -> tuple[Row, ...]:
    with TRACE.open(encoding="utf-8") as lines:
        return tuple(
            Row(
                at_s=row["timestamp"] / 1e3,
                prompt_tokens=row["input_length"],
                output_tokens=max(1, row["output_length"]),
                ids=tuple(row["hash_ids"][: row["input_length"] // TRACE_BLOCK_TOKENS]),
            )
            for row in map(json.loads, lines)
        )


def script(row: Row, *, block_tokens: int, copy: int = 0) -> Script:
    """The call as an execution of its own; copies share nothing with each other."""
    parts = TRACE_BLOCK_TOKENS // block_tokens
    ids = tuple(((copy << 32) + block) * parts + part for block in row.ids for part in range(parts))
    call = WorkloadCall(
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        blocks=ids,
        prefix_blocks=len(ids),
        shared_blocks=len(ids),
    )
    return Script(Segment((call,)), (STAGE,), 0.0)


def fleet(replicas: int, block_tokens: int) -> Fleet:
    spec = replace(
        engine_spec(LLM, "h200", tensor_parallel=1),
        block_tokens=block_tokens,
        kv_blocks=KV_TOKENS // block_tokens,
    )
    group = ServedGroup(LLM, spec, replica_names(LLM, replicas))
    return Fleet([group], make_router=partial(PrefixAware, KV_TOKENS // block_tokens))


def simulate(arrivals: Iterator[Arrival], on: Fleet) -> dict[str, float]:
    """Run to the end; give seconds, calls, and the part of the prompt tokens that was cached."""
    start = perf_counter()
    calls = prompt_tokens = cached_tokens = 0
    for execution in Simulation(OpenLoop(arrivals), on).run():
        (call,) = execution.calls
        calls += 1
        prompt_tokens += call.prompt_tokens
        cached_tokens += call.cached_tokens
    return {
        "seconds": perf_counter() - start,
        "calls": calls,
        "prefix_hit": cached_tokens / prompt_tokens,
    }


def ours(trace: Sequence[Row]) -> dict[str, float]:
    arrivals = [Arrival(row.at_s, script(row, block_tokens=64)) for row in trace]
    return simulate(iter(arrivals), fleet(8, 64))


def theirs() -> dict[str, float]:
    done = subprocess.run(
        [str(DYNAMO), "-c", REPLAY, str(TRACE)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    seconds, calls, hit = map(float, done.stdout.split()[-3:])
    return {"seconds": seconds, "calls": calls, "prefix_hit": hit}


def large_arrivals(trace: Sequence[Row]) -> Iterator[Arrival]:
    """Copies of the trace side by side, each a little later than the one before."""
    copies = LARGE_REPLICAS // 8
    shift_s = trace[-1].at_s / len(trace) / copies

    def one(copy: int) -> Iterator[Arrival]:
        for row in trace:
            made = script(row, block_tokens=TRACE_BLOCK_TOKENS, copy=copy)
            yield Arrival(row.at_s + copy * shift_s, made)

    merged = merge(*map(one, range(copies)), key=lambda arrival: arrival.at_s)
    return islice(merged, LARGE_CALLS)


def small(trace: Sequence[Row]) -> dict[str, object]:
    runs: dict[str, list[dict[str, float]]] = {"scepsy": []}
    if DYNAMO.exists():
        runs["dynamo_replay"] = []
    for _ in range(REPEATS):
        runs["scepsy"].append(ours(trace))
        if "dynamo_replay" in runs:
            runs["dynamo_replay"].append(theirs())
    found: dict[str, object] = {
        name: {
            "calls_per_s": sorted(round(run["calls"] / run["seconds"]) for run in several),
            "prefix_hit": round(several[0]["prefix_hit"], 4),
        }
        for name, several in runs.items()
    }
    if "dynamo_replay" in runs:
        slowest = min(run["calls"] / run["seconds"] for run in runs["scepsy"])
        fastest = max(run["calls"] / run["seconds"] for run in runs["dynamo_replay"])
        found["slowest_of_ours_over_fastest_of_theirs"] = round(slowest / fastest, 2)
    return found


def large(trace: Sequence[Row]) -> dict[str, object]:
    run = simulate(large_arrivals(trace), fleet(LARGE_REPLICAS, TRACE_BLOCK_TOKENS))
    gib = getrusage(RUSAGE_SELF).ru_maxrss / 1024**2
    return {
        "replicas": LARGE_REPLICAS,
        "calls": run["calls"],
        "seconds": round(run["seconds"], 1),
        "max_gib": round(gib, 2),
        "prefix_hit": round(run["prefix_hit"], 4),
        "met": run["seconds"] <= WANTED_LARGE_S and gib <= WANTED_LARGE_GIB,
    }


if __name__ == "__main__":
    if not TRACE.exists():
        sys.exit(f"there is no {TRACE}: set SCEPSY_DATA to the folder that has mooncake/")
    parts = sys.argv[1:] or ["small", "large"]
    collect_rarely()  # as `scepsy simulate` does
    trace = rows()
    figures = {part: {"small": small, "large": large}[part](trace) for part in parts}
    report("simulator_speed", repeats=REPEATS, parts=figures)
