"""Prompt tokens found cached, beside dynamo.replay: python -m benchmarks.programs.prefix_reuse

50 coding sessions (callanjfox/kv-cache-tester; SCEPSY_DATA names the folder that has claude_code/)
on 8 workers: by ``dynamo.replay`` 1.6.1 with each of its routers, and by the simulator with each
system that is named. All get the same calls, block by block of 64 tokens; each call waits for what
it waited for in the recording, and then for its recorded gap. Answers are not found cached, as
dynamo.replay makes them up. Workers hold as many KV blocks and calls, and compute as many tokens a
step. Step times are those of Llama-3.1-70B at tensor parallel 4 on the H100: dynamo.replay gets
them as a table, of prompts by new tokens at the mean context, of answers by KV in use and context.
Sessions begin at instants drawn from the seed. ``--own-times`` leaves it its own step times.

``make bench`` installs dynamo.replay in an environment of its own; SCEPSY_DYNAMO names another.
"""

import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.host import report
from benchmarks.programs import sessions
from benchmarks.programs.scenario import spec_of
from benchmarks.programs.sessions import LLM
from benchmarks.programs.systems import System, find_system
from benchmarks.simulator_speed import DYNAMO
from scepsy.errors import MissingError
from scepsy.model.workflow import WorkflowName
from scepsy.profiles.step_time import EngineSpec, StepTimes
from scepsy.profiles.workload import block_counts, segment
from scepsy.sim.arrivals import Arrival, OpenLoop
from scepsy.sim.run import Simulation
from scepsy.sim.script import Script
from scepsy.traces.readers import claude_code
from scepsy.traces.readers.source import Naming

VERSION = "1.6.1"
SESSIONS, WORKERS, WITHIN_S = 50, 8, 3600.0
BLOCK_TOKENS, KV_BLOCKS, MAX_SEQS, CHUNK_TOKENS = 64, 16_384, 256, 8_192
"""As dynamo.replay has them where nothing is said."""
ROUTERS = ("round_robin", "kv_router")

REPLAY = """
import json, os, sys
os.environ["DYN_LOG"] = "error"
from dynamo.replay import run_trace_replay
trace, router, workers, engine = sys.argv[1:]
found = run_trace_replay(trace, trace_format="agentic_mooncake", execution_model="any",
                         num_workers=int(workers), router_mode=router,
                         extra_engine_args=json.loads(engine))
print(json.dumps({name: value for name, value in found.summary.items()
                  if isinstance(value, (int, float))}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """Of all calls."""

    calls: int
    cached_fraction: float
    """Of prompt tokens."""
    ttft_s: float
    """In the mean."""


def recorded(data: Path, seed: int) -> tuple[Script, ...]:
    """The first sessions, whole, from instants within a time on."""
    parse = claude_code.FORMAT.parser(Naming(workflow=WorkflowName("coding"), llm=LLM))
    with gzip.open(data / "claude_code" / "sessions.jsonl.gz") as lines:
        found = [
            [replace(call, output_tokens=max(1, call.output_tokens)) for call in parse(line)]
            for line, _ in zip(lines, range(SESSIONS), strict=False)
        ]
    seen, rng = block_counts(found), Random(seed)
    return tuple(
        Script(
            segment(calls, seen),
            tuple(call.stage for call in calls),
            0.0,
            start_s=rng.uniform(0.0, WITHIN_S),
        )
        for calls in found
    )


def rows(scripts: Sequence[Script]) -> Iterator[Mapping[str, object]]:
    """As an agentic Mooncake trace, version 2: a header, then the calls."""
    yield {
        "schema": "dynamo.agentic_mooncake",
        "version": 2,
        "block_size": BLOCK_TOKENS,
        "hash_id_scope": "local",
        "source": {"format": "claude-code", "digest": str(len(scripts))},
    }
    ids: dict[int, int] = {}
    ends = 0
    for number, script in enumerate(scripts):
        for at, call in enumerate(script.segment.calls):
            blocks, _ = call.copy_blocks(number + 1)
            tokens = max(1, call.prompt_tokens)
            known = [ids.setdefault(block, 2 * len(ids)) for block in blocks]
            if len(known) * BLOCK_TOKENS < tokens:  # what fills no block is nobody else's
                ends += 1
                known.append(2 * ends - 1)
            begins_ms = 0.0 if call.waits_for else 1e3 * (script.start_s + call.after_s)
            yield {
                "request_id": f"{number}-{at}",
                "play_id": str(number),
                "session_id": str(number),
                "model": "any",
                "input_length": tokens,
                "output_length": call.output_tokens,
                "hash_ids": known,
                "not_before_ms": begins_ms,
                "dependencies": [
                    {
                        "request_id": f"{number}-{other}",
                        "trigger": "completion",
                        "delay_ms": 1e3 * call.after_s,
                        "relation": "sequence",
                    }
                    for other in call.waits_for
                ],
            }


def write_times(path: Path, times: StepTimes, context_tokens: int) -> None:
    """Step times as a table that dynamo.replay interpolates."""
    new = np.unique(np.geomspace(1, CHUNK_TOKENS, 40).astype(int))
    in_use = np.geomspace(1, KV_BLOCKS * BLOCK_TOKENS, 30)
    context = np.geomspace(1, 2 * context_tokens, 30)

    def step_ms(tokens: int, beside: int, decodes: int, held: float) -> float:
        return 1e3 * times.step_s(
            prefill_tokens=tokens,
            prefill_context_tokens=beside,
            decodes=decodes,
            decode_context_tokens=int(held),
        )

    np.savez(
        path,
        prefill_isl=new.astype(float),
        prefill_ttft_ms=np.array([step_ms(int(n), context_tokens, 0, 0) for n in new]),
        decode_active_kv_tokens=in_use,
        decode_context_length=context,
        decode_itl=np.array(
            [[step_ms(0, 0, max(1, round(kv / each)), kv) for each in context] for kv in in_use]
        ),
    )


def theirs(trace: Path, router: str, kv_blocks: int, times: Path | None) -> Reuse:
    """By dynamo.replay."""
    engine: dict[str, object] = {
        "num_gpu_blocks": kv_blocks,
        "block_size": BLOCK_TOKENS,
        "max_num_seqs": MAX_SEQS,
        "max_num_batched_tokens": CHUNK_TOKENS,
    }
    if times is not None:
        config = {"path": str(times)}
        timing = {"type": "external", "provider": "dynamo_profile", "config": config}
        engine["timing_model"] = timing
    done = subprocess.run(
        [DYNAMO, "-c", REPLAY, trace, router, str(WORKERS), json.dumps({"engine": engine})],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Reuse(
        calls=round(found["completed_requests"]),
        cached_fraction=found["prefix_cache_reused_ratio"],
        ttft_s=found["mean_ttft_ms"] / 1e3,
    )


def spec(kv_blocks: int) -> EngineSpec:
    return replace(
        spec_of("h100", BLOCK_TOKENS),
        kv_blocks=kv_blocks,
        max_seqs=MAX_SEQS,
        chunk_tokens=CHUNK_TOKENS,
    )


def ours(scripts: Sequence[Script], system: System, on: EngineSpec) -> Reuse:
    """By the simulator."""
    fleet = system.fleet(LLM, on, WORKERS)
    arrivals = sorted((script.start_s, at) for at, script in enumerate(scripts))
    source = OpenLoop(iter([Arrival(start_s, scripts[at]) for start_s, at in arrivals]))
    simulation = Simulation(source, fleet, order=system.order, on_over=fleet.over)
    calls = [call for execution in simulation.run() for call in execution.calls]
    prompt_tokens = sum(call.prompt_tokens for call in calls)
    return Reuse(
        calls=len(calls),
        cached_fraction=sum(call.cached_tokens for call in calls) / prompt_tokens,
        ttft_s=sum(call.ttft_s for call in calls) / len(calls),
    )


def mean_prompt_tokens(scripts: Sequence[Script]) -> int:
    tokens = [call.prompt_tokens for script in scripts for call in script.segment.calls]
    return sum(tokens) // len(tokens)


def most(scripts: Sequence[Script]) -> float:
    """Of prompt tokens, the part whose blocks an earlier call had."""
    calls = sorted(
        (script.start_s + start_s, number, at)
        for number, script in enumerate(scripts)
        for at, (start_s, _) in enumerate(script.segment.times_s(1.0))
    )
    seen: set[int] = set()
    cached = tokens = 0
    for _, number, at in calls:
        call = scripts[number].segment.calls[at]
        blocks, _ = call.copy_blocks(number + 1)
        hits = next((n for n, block in enumerate(blocks) if block not in seen), len(blocks))
        tokens += max(1, call.prompt_tokens)
        cached += BLOCK_TOKENS * min(hits, (call.prompt_tokens - 1) // BLOCK_TOKENS)
        seen.update(blocks)
    return cached / tokens


def compare(
    scripts: Sequence[Script], systems: Sequence[str], kv_blocks: int, *, own_times: bool
) -> dict[str, Reuse]:
    """By name of what served."""
    on = spec(kv_blocks)
    found: dict[str, Reuse] = {}
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "sessions.jsonl"
        trace.write_text("\n".join(map(json.dumps, rows(scripts))))
        times = None if own_times else Path(folder) / "times.npz"
        if times is not None:
            write_times(times, on.times, mean_prompt_tokens(scripts))
        for router in ROUTERS:
            found[f"dynamo.replay {router}"] = theirs(trace, router, kv_blocks, times)
    return found | {name: ours(scripts, find_system(name), on) for name in systems}


def table(found: Mapping[str, Reuse], best: float) -> str:
    lines = ["| system | calls | prompt tokens cached | mean TTFT (s) |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {each.calls:,} | {each.cached_fraction:.2%} | {each.ttft_s:.2f} |"
        for name, each in found.items()
    ]
    return "\n".join([*lines, f"| (all that an earlier call had) | | {best:.2%} | |"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs.prefix_reuse")
    parser.add_argument("--systems", default="dynamo,ours")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--kv-blocks", type=int, default=KV_BLOCKS, help="of one worker")
    parser.add_argument("--own-times", action="store_true", help="of dynamo.replay's engines")
    options = parser.parse_args()
    if not DYNAMO.exists():
        raise MissingError(f"there is no {DYNAMO}", hint="run `make bench`, or set SCEPSY_DYNAMO")
    for seed in range(options.seeds):
        scripts = recorded(sessions.DATA, seed)
        systems = options.systems.split(",")
        found = compare(scripts, systems, options.kv_blocks, own_times=options.own_times)
        best = most(scripts)
        print(f"\n{table(found, best)}\n", file=sys.stderr)
        report(
            "prefix_reuse",
            repeats=1,
            seed=seed,
            sessions=len(scripts),
            workers=WORKERS,
            kv_blocks=options.kv_blocks,
            own_times=options.own_times,
            most_cached_fraction=round(best, 4),
            found={name: asdict(each) for name, each in found.items()},
            dynamo_replay=VERSION,
        )


if __name__ == "__main__":
    main()
