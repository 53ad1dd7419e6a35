"""Retention policies inside the simulated engine: what fewer misses are worth in time.

    SCEPSY_DATA=../shared/data python -m benchmarks.retention_in_engine   # JSON lines on stdout

The sessions, split and pressure of ``benchmarks.retention``, through one simulated replica: calls
take what the engine model says, a miss costs prefill time, and the next call follows after the
recorded gap. All policies see the same sessions in the same order. ``host`` adds 256 GiB of host
memory over a link of 50 GB/s. Every simulated replica sees so many calls; a fifth is warm-up.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, quantiles, stdev
from time import perf_counter

from benchmarks.host import report
from benchmarks.retention import DATA, DEGREE, GPU, LLM, halves, learned_from, sessions
from benchmarks.retention_replay import Program, live_programs
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.policy.retain import Lru, Retention
from scepsy.policy.retain_saga import WaLruTtl
from scepsy.policy.retain_value import ByValue
from scepsy.policy.route import CallView
from scepsy.profiles.catalog import find_llm
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Segment, WorkloadCall
from scepsy.sim.arrivals import ClosedLoop
from scepsy.sim.engine import EngineCall, EngineEvent, Finished, FirstToken
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names
from scepsy.sim.run import Simulation
from scepsy.sim.script import Script
from scepsy.units import GIB

STAGE = Stage(WorkflowName("coding"), LlmName(LLM), Role("agent"))
CALLS, SEEDS, PRESSURES = 700, 5, (0.5, 1.0, 2.0)
THINK_S = 30.0
HOST_BYTES, LINK_BYTES_PER_S = 256 * GIB, 50e9


def script(program: Program, block_tokens: int) -> Script:
    """A program's calls, one after the other."""
    calls = tuple(
        WorkloadCall(
            prompt_tokens=len(turn.chain) * block_tokens + 1,
            output_tokens=max(1, turn.output_tokens),
            blocks=turn.chain,
            prefix_blocks=len(turn.chain),
            shared_blocks=min(program.shared, len(turn.chain)),
            waits_for=(at - 1,) if at else (),
            after_s=turn.gap_s if at else 0.0,
        )
        for at, turn in enumerate(program.turns)
    )
    return Script(Segment(calls), (STAGE,) * len(calls), 0.0)


class Watched(Fleet):
    """A fleet whose calls are timed."""

    def __init__(self, spec: EngineSpec, policy: Retention) -> None:
        group = ServedGroup(STAGE.llm, spec, replica_names(LLM, 1))
        super().__init__([group], make_retention=lambda: policy)
        self._came_s: dict[str, float] = {}
        self._prompt: dict[str, int] = {}
        self.first_s: list[float] = []
        self.whole_s: list[float] = []
        self.prompt_tokens: list[int] = []
        self.cached_tokens: list[int] = []

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        self._came_s[call.id], self._prompt[call.id] = now_s, call.prompt_tokens
        super().submit(now_s, llm, view, call)

    def advance(self, now_s: float) -> list[EngineEvent]:
        events = super().advance(now_s)
        for event in events:
            if isinstance(event, FirstToken):
                self.first_s.append(event.at_s - self._came_s[event.call_id])
                self.prompt_tokens.append(self._prompt.pop(event.call_id))
                self.cached_tokens.append(event.cached_tokens)
            elif isinstance(event, Finished):
                self.whole_s.append(event.at_s - self._came_s[event.call_id])
        return events


def simulated(
    scripts: Sequence[Script],
    spec: EngineSpec,
    policy: Retention,
    *,
    users: int,
    seed: int,
    ends_told: bool,
) -> dict[str, float]:
    fleet = Watched(spec, policy)
    source = ClosedLoop(scripts, users=users, think_s=THINK_S, seed=seed)
    simulation = Simulation(source, fleet)
    begin = perf_counter()
    while len(fleet.whole_s) < CALLS:
        for over in simulation.step(simulation.next_s):
            if ends_told:
                policy.over(simulation.now_s, f"{over.number}/{STAGE.role}")
    skip = CALLS // 5
    first_s = fleet.first_s[skip:]
    asked, cached = sum(fleet.prompt_tokens[skip:]), sum(fleet.cached_tokens[skip:])
    return {
        "ttft_s": mean(first_s),
        "ttft_p99_s": quantiles(first_s, n=100)[98],
        "call_s": mean(fleet.whole_s[skip:]),
        "calls_per_s": CALLS / simulation.now_s,
        "computed_fraction": 1 - cached / asked,
        "wall_s": perf_counter() - begin,
    }


def main() -> None:
    spec = engine_spec(LLM, GPU, tensor_parallel=DEGREE)
    taught, reported = halves(sessions(DATA / "claude_code" / "sessions.jsonl.gz", coarse=1))
    taught = [
        replace(p, turns=tuple(replace(t, kind=f"{STAGE.workflow}/{STAGE.role}") for t in p.turns))
        for p in taught
    ]
    block_bytes = find_llm(LLM).replica_kv_bytes_per_token(DEGREE) * spec.block_tokens
    hosted = replace(
        spec, host_blocks=HOST_BYTES // block_bytes, host_block_s=block_bytes / LINK_BYTES_PER_S
    )
    scripts = [script(program, spec.block_tokens) for program in reported]
    policies: dict[str, Callable[[], Retention]] = {
        "lru": Lru,
        "wa-lru-ttl": lambda: WaLruTtl(spec.kv_blocks),
        "value": lambda: ByValue(learned_from(taught)),
        "value-ends-told": lambda: ByValue(learned_from(taught)),
    }
    for pressure in PRESSURES:
        users = live_programs(reported, spec.kv_blocks, pressure)
        base: list[dict[str, float]] = []
        for host in (False, True):
            for name, make in policies.items():
                rows = [
                    simulated(
                        scripts,
                        hosted if host else spec,
                        make(),
                        users=users,
                        seed=seed,
                        ends_told=name == "value-ends-told",
                    )
                    for seed in range(SEEDS)
                ]
                base = base or rows
                ratios = [row["call_s"] / b["call_s"] for row, b in zip(rows, base, strict=True)]
                report(
                    "retention_in_engine",
                    repeats=SEEDS,
                    gpu=GPU,
                    pressure=pressure,
                    users=users,
                    host=host,
                    policy=name,
                    call_s_over_lru=round(mean(ratios), 4),
                    standard_error=round(stdev(ratios) / SEEDS**0.5, 4),
                    **{key: round(mean(row[key] for row in rows), 4) for key in rows[0]},  # type: ignore[arg-type]
                )


if __name__ == "__main__":
    main()
