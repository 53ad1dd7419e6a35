"""How well the engine model foretells runs of real vLLM, from operator profiles of its GPU alone.

    SCEPSY_DATA=../shared/data python -m benchmarks.vllm_runs   # one JSON line on stdout
    python -m benchmarks.vllm_runs --data LLMServingSim         # a checkout of the public data

The data is that of LLMServingSim (casys-kaist/LLMServingSim): runs under ``bench/examples``, with
when each call came, was queued, and got its first and last token, and profiles of operators under
``profiler/perf``. Every run found is simulated; nothing is fitted to any. A run says which profile
it needs: the GPU type by ``config.json`` or its folder, the LLM and degrees by ``vllm/meta.json``.

What is compared is what LLMServingSim compares: TTFT and latency count from ``queued_ts``, when the
scheduler takes a call in, as ``arrival_time`` is on another clock. The scheduler does so between
two steps, and so does the model's. TTFT from ``arrival_time``, with the clocks aligned so that the
call that was queued soonest was queued at once, is given beside. Errors are simulated / measured
- 1 of a mean or percentile over all calls, and the mean of |simulated / measured - 1| of each call.
LLMServingSim's own, from ``validation/summary.txt``, are given beside where that is there.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from benchmarks.host import report
from scepsy.errors import InputError, MissingError, ScepsyError
from scepsy.profiles.operator_engine import BLOCK_TOKENS, VISIBLE, Room, operator_engine_spec
from scepsy.profiles.operator_profile import load_operator_profile
from scepsy.profiles.operator_times import Layout, Link
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine_ahead import EngineAhead
from scepsy.sim.engine_call import EngineCall, EngineEvent, EngineStatistics, Finished, FirstToken
from scepsy.sim.lockstep import LockstepGroup
from scepsy.units import GIB

DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data")) / "llmservingsim"
STATISTICS = {"mean": None, "p50": 50, "p90": 90, "p95": 95, "p99": 99}
TARGETS = {"mean": 0.05, "p99": 0.10}
"""Of TTFT and latency, in each run."""
BALANCE_S = 0.1
"""How often vLLM's coordinator tells its client how many calls each copy has."""
MAX_REQUESTS_BYTES = 256 * 1024**2
Times = dict[str, list[float]]
"""Of each call, in order: ``ttft``, ``tpot``, ``latency``, ``ttft_from_arrival`` (s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of vLLM, as recorded."""

    name: str
    gpu_type: str
    llm: str
    tensor_parallel: int
    data_parallel: int
    expert_parallel: int
    max_seqs: int
    chunk_tokens: int
    folder: Path
    kv_blocks: int | None
    room: Room
    link: Link


def load_run(folder: Path) -> Run:
    """A run's description.

    Raises:
        InputError: a file can't be read, or lacks something.
    """
    try:
        meta = json.loads((folder / "vllm" / "meta.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        one = config["nodes"][0]["instances"][0]
        engine, memory = meta["engine_kwargs"], one["npu_mem"]
        degrees = int(engine["tensor_parallel_size"]), int(engine["data_parallel_size"])
        resolved, hardware = meta.get("kv_cache") or {}, meta.get("hardware") or {}
        blocks, size = resolved.get("num_gpu_blocks"), resolved.get("block_size") or BLOCK_TOKENS
        visible_bytes = hardware.get("device_total_memory_bytes")
        return Run(
            name=f"{folder.parent.name}/{folder.name}",
            gpu_type=one.get("hardware", folder.parent.name),
            llm=meta["model"],
            tensor_parallel=degrees[0],
            data_parallel=degrees[1],
            expert_parallel=degrees[0] * degrees[1] if engine["enable_expert_parallel"] else 1,
            max_seqs=int(engine["max_num_seqs"]),
            chunk_tokens=int(engine["max_num_batched_tokens"]),
            folder=folder,
            # vLLM gives the blocks of all copies, summed.
            kv_blocks=int(blocks) * int(size) // BLOCK_TOKENS // degrees[1] if blocks else None,
            room=Room(
                memory_bytes=float(visible_bytes or memory["mem_size"] * VISIBLE * GIB),
                utilization=float(resolved.get("gpu_memory_utilization") or memory["mem_util"]),
            ),
            link=Link(
                bytes_per_s=float(config["link_bw"]) * 1e9,
                latency_s=float(config["link_latency"]) * 1e-9,
            ),
        )
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read the run in {folder}: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a run; instants in s on the engine's clock."""

    arrived_s: float
    queued_s: float
    first_s: float
    last_s: float
    prompt_tokens: int
    output_tokens: int


def load_requests(folder: Path) -> list[Request]:
    """The calls of a run, as they came.

    Raises:
        InputError: the file can't be read, or a row lacks something.
    """
    path = folder / "vllm" / "requests.jsonl"
    try:
        if path.stat().st_size > MAX_REQUESTS_BYTES:
            raise InputError(f"{path} has more than {MAX_REQUESTS_BYTES} bytes")
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        apart_s = min(row["queued_ts"] - row["arrival_time"] for row in rows)
        requests = [
            Request(
                arrived_s=row["arrival_time"] + apart_s,
                queued_s=row["queued_ts"],
                first_s=row["first_token_ts"],
                last_s=row["last_token_ts"],
                prompt_tokens=row["input_toks"],
                output_tokens=row["output_toks"],
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: {error!r}") from None
    return sorted(requests, key=lambda request: request.arrived_s)


def engine_of(run: Run, data: Path) -> EngineSpec:
    """The engine that a run used, by its profile.

    Raises:
        ScepsyError: there is no such profile, or it does not suit.
    """
    has_shared_experts = run.expert_parallel > 1
    return operator_engine_spec(
        load_operator_profile(
            data / "profiler" / "perf" / run.gpu_type / run.llm / "bf16", run.tensor_parallel
        ),
        room=run.room,
        max_seqs=run.max_seqs,
        chunk_tokens=run.chunk_tokens,
        layout=Layout(
            data_parallel=run.data_parallel if has_shared_experts else 1,
            expert_parallel=run.expert_parallel,
            capture_tokens=min(2 * run.max_seqs, 512),
        ),
        link=run.link,
        kv_blocks=run.kv_blocks,
    )


class Served(Protocol):
    """What runs the copies of an engine."""

    def advance(self, now_s: float) -> list[EngineEvent]: ...
    def step_end_s(self, copy: int) -> float: ...
    def submit(self, now_s: float, copy: int, call: EngineCall) -> None: ...
    def statistics(self) -> tuple[EngineStatistics, ...]: ...


class Independent:
    """Copies that share nothing."""

    def __init__(self, spec: EngineSpec, copies: int) -> None:
        self._copies = [EngineAhead(spec) for _ in range(copies)]

    def advance(self, now_s: float) -> list[EngineEvent]:
        return [event for copy in self._copies for event in copy.advance(now_s)]

    def step_end_s(self, copy: int) -> float:
        return self._copies[copy].next_token_s()

    def submit(self, now_s: float, copy: int, call: EngineCall) -> None:
        self._copies[copy].submit(now_s, call)

    def statistics(self) -> tuple[EngineStatistics, ...]:
        return tuple(copy.statistics() for copy in self._copies)


class Together(LockstepGroup):
    """Copies that share experts."""

    def step_end_s(self, copy: int) -> float:  # noqa: ARG002  (all have the same)
        return self.next_event_s()


class Balancer:
    """vLLM's choice among copies: fewest calls, those that wait counted four times.

    It knows the counts that the coordinator last told, and the calls that it sent since.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._told_s = 0.0
        self._scores = [0 for _ in served.statistics()]

    def choose(self, now_s: float) -> int:
        """Where a call goes that comes now."""
        if now_s - self._told_s >= BALANCE_S:
            self._told_s += (now_s - self._told_s) // BALANCE_S * BALANCE_S
            told = self._served.statistics()
            self._scores = [4 * one.waiting + one.running for one in told]
        copy = min(range(len(self._scores)), key=self._scores.__getitem__)
        self._scores[copy] += 4
        return copy


def simulate(spec: EngineSpec, run: Run, requests: Sequence[Request]) -> Times:
    """What the calls of a run take in the engine model, which knows their lengths and arrivals."""
    is_shared = run.data_parallel > 1 and run.expert_parallel > 1
    served: Served = (Together if is_shared else Independent)(spec, run.data_parallel)
    balancer = Balancer(served)
    first, last, queued = ([0.0] * len(requests) for _ in range(3))

    def record(events: Iterable[EngineEvent]) -> None:
        for event in events:
            if isinstance(event, FirstToken):
                first[int(event.call_id)] = event.at_s
            elif isinstance(event, Finished):
                last[int(event.call_id)] = event.at_s

    start_s, next_block = requests[0].arrived_s, 0
    for index, request in enumerate(requests):
        now_s = request.arrived_s - start_s
        record(served.advance(now_s))
        copy = balancer.choose(now_s)
        end_s = served.step_end_s(copy)
        queued[index] = now_s if end_s == float("inf") else end_s
        # Blocks of its own, so that a call that is preempted finds what is left of them.
        prompt = request.prompt_tokens // BLOCK_TOKENS
        blocks = (request.prompt_tokens + request.output_tokens) // BLOCK_TOKENS
        ids = tuple(range(next_block, next_block + blocks))
        next_block += blocks
        call = EngineCall(
            id=str(index),
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            prefix_blocks=ids[:prompt],
            output_blocks=ids[prompt:],
        )
        served.submit(now_s, copy, call)
    record(served.advance(float("1e9")))
    arrived = [request.arrived_s - start_s for request in requests]
    return _times(requests, arrived, queued, first, last)


def measured(requests: Sequence[Request]) -> Times:
    """What the calls of a run took."""
    return _times(
        requests,
        [request.arrived_s for request in requests],
        [request.queued_s for request in requests],
        [request.first_s for request in requests],
        [request.last_s for request in requests],
    )


def _times(
    requests: Sequence[Request],
    arrived: Sequence[float],
    queued: Sequence[float],
    first: Sequence[float],
    last: Sequence[float],
) -> Times:
    tokens = [request.output_tokens for request in requests]
    return {
        "ttft": [f - q for f, q in zip(first, queued, strict=True)],
        "tpot": [(b - a) / (n - 1) for a, b, n in zip(first, last, tokens, strict=True) if n > 1],
        "latency": [b - q for b, q in zip(last, queued, strict=True)],
        "ttft_from_arrival": [f - a for f, a in zip(first, arrived, strict=True)],
    }


def errors(simulated: Sequence[float], real: Sequence[float]) -> dict[str, float]:
    """Of each statistic; and of the single calls."""
    found = {}
    for name, q in STATISTICS.items():
        ours, theirs = (
            float(np.mean(x) if q is None else np.percentile(x, q)) for x in (simulated, real)
        )
        found[name] = round(ours / theirs - 1, 4)
    each = np.abs(np.array(simulated) / np.array(real) - 1)
    return found | {"each_call": round(float(each.mean()), 4)}


_METRIC = {"TTFT": "ttft", "TPOT": "tpot", "Latency": "latency"}
_STATISTIC = {"Mean": "mean", "Median": "p50", "P90": "p90", "P95": "p95", "P99": "p99"}
_ROW = re.compile(r"^(TTFT|TPOT|Latency) (Mean|Median|P90|P95|P99)\s.*\s([-+]?[\d.]+)%$", re.M)


def their_errors(folder: Path) -> dict[str, dict[str, float]]:
    """LLMServingSim's own; empty where it did not say."""
    path = folder / "validation" / "summary.txt"
    found: dict[str, dict[str, float]] = {}
    if path.exists():
        for metric, statistic, percent in _ROW.findall(path.read_text()):
            row = found.setdefault(_METRIC[metric], {})
            row[_STATISTIC[statistic]] = round(float(percent) / 100, 4)
    return found


def compare(folder: Path, data: Path) -> dict[str, Any]:
    """One run, simulated."""
    run, requests = load_run(folder), load_requests(folder)
    spec = engine_of(run, data)
    start = perf_counter()
    ours = simulate(spec, run, requests)
    took_s = perf_counter() - start
    real = measured(requests)
    found = {name: errors(ours[name], real[name]) for name in real}
    checked = ("ttft", "latency")
    return {
        "run": run.name,
        "calls": len(requests),
        "tensor_parallel": run.tensor_parallel,
        "data_parallel": run.data_parallel,
        "expert_parallel": run.expert_parallel,
        "kv_blocks": spec.kv_blocks,
        "measured_mean_s": {name: round(float(np.mean(x)), 4) for name, x in real.items()},
        "errors": found,
        "llmservingsim": their_errors(folder),
        "meets_targets": all(
            abs(found[name][statistic]) <= limit
            for name in checked
            for statistic, limit in TARGETS.items()
        ),
        "simulated_in_s": round(took_s, 2),
    }


def print_table(runs: Sequence[Mapping[str, Any]]) -> None:
    """Markdown on stderr: ours, and LLMServingSim's behind a stroke."""
    names = list(STATISTICS)
    print(f"\n| run | | {' | '.join(names)} | each call |", file=sys.stderr)
    print("|---" * (len(names) + 3) + "|", file=sys.stderr)
    for run in runs:
        for metric, ours in run["errors"].items():
            theirs = run["llmservingsim"].get(metric, {})
            cells = [
                f"{100 * ours[name]:+.1f} %"
                + (f" / {100 * theirs[name]:+.1f} %" if name in theirs else "")
                for name in names
            ]
            row = " | ".join([run["run"], metric, *cells, f"{100 * ours['each_call']:.1f} %"])
            print(f"| {row} |", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()
    try:
        folders = sorted(
            path.parents[1] for path in options.data.glob("bench/examples/*/*/vllm/meta.json")
        )
        if not folders:
            raise MissingError(
                f"no runs under {options.data}/bench/examples",
                hint="name a checkout of casys-kaist/LLMServingSim by --data",
            )
        runs = [compare(folder, options.data) for folder in folders]
    except ScepsyError as exc:
        sys.exit(f"{exc}; {exc.hint}" if exc.hint else str(exc))
    print_table(runs)
    report(
        "vllm_runs",
        repeats=1,
        targets=TARGETS,
        meets_targets=all(run["meets_targets"] for run in runs),
        runs=runs,
    )


if __name__ == "__main__":
    main()
