"""One system on one scenario: what became of the executions, and what was computed twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from time import process_time

from benchmarks.programs.scenario import (
    COUNTED,
    Scenario,
    Users,
    demand,
    kv_bytes_per_token,
    prefill_s,
)
from benchmarks.programs.sessions import LLM
from benchmarks.programs.systems import System
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.route import CallView
from scepsy.sim.engine import EngineCall, EngineEvent, Finished
from scepsy.sim.fleet import Serving
from scepsy.sim.run import ServedExecution, Simulation
from scepsy.units import GIB

MAX_LIVES = 60
"""A run is given up when it takes so many times as long as its executions would without waits,
for each of those that are under way for one that fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Figures of one run, of the executions that count by arrival."""

    system: str
    scenario: str
    half: str
    seed: int
    users: int
    executions: int
    unfinished: int
    """That were under way when the run was given up: they count as long as they had run."""
    task_s: float
    task_p99_s: float
    served_s: float
    """Task time but for the recorded gaps on its way, in the mean."""
    ttft_s: float
    ttft_p99_s: float
    executions_per_s: float
    calls_per_s: float
    computed_fraction: float
    """Of prompt tokens; the others were cached."""
    recomputed_gib_per_call: float
    """KV that some replica had computed before."""
    recomputed_s_per_call: float
    """Prefill that took, alone on a replica."""
    preemptions_per_call: float
    calls: int
    cpu_s: float
    """Of the simulation: on a busy machine, at least what it takes alone."""
    tasks_s: tuple[float, ...]
    """Each execution's time, by arrival."""


class Watched:
    """What serves, with a look at what its calls compute."""

    def __init__(self, serving: Serving, scenario: Scenario) -> None:
        self._serving = serving
        self._spec = scenario.spec
        self._chains: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._computed: set[int] = set()
        self.begun_s: dict[int, float] = {}
        self.calls = self.prompt_tokens = self.cached_tokens = self.recomputed_tokens = 0
        self.recomputed_s = 0.0
        self.is_counting = False

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        self.begun_s[int(view.execution)] = view.execution_start_s
        self._chains[call.id] = call.prompt_tokens, call.prefix_blocks + call.output_blocks
        self._serving.submit(now_s, llm, view, call)

    def next_event_s(self) -> float:
        return self._serving.next_event_s()

    def advance(self, now_s: float) -> list[EngineEvent]:
        events = self._serving.advance(now_s)
        for event in events:
            if isinstance(event, Finished):
                self._see(event)
        return events

    def replica_of(self, call_id: str) -> ReplicaName:
        return self._serving.replica_of(call_id)

    def _see(self, event: Finished) -> None:
        tokens, chain = self._chains.pop(event.call_id)
        size, computed = self._spec.block_tokens, self._computed
        known = event.cached_tokens // size
        while known < len(chain) and chain[known] in computed:
            known += 1
        computed.update(chain[known:])
        if not self.is_counting:
            return
        self.calls += 1
        self.prompt_tokens += tokens
        self.cached_tokens += event.cached_tokens
        again = min(known * size, tokens)
        if again > event.cached_tokens:
            self.recomputed_tokens += again - event.cached_tokens
            self.recomputed_s += prefill_s(self._spec, event.cached_tokens, again)


def measure(name: str, system: System, scenario: Scenario, seed: int) -> Run:
    """Run until all executions that count have ended, under unchanged load."""
    life_s = demand(scenario.workload, scenario.gpu, scenario.half).life_s
    fleet = system.fleet(LLM, scenario.spec, scenario.replicas)
    watched = Watched(fleet, scenario)
    source = Users(scenario.executions.scripts, users=scenario.users, within_s=life_s, seed=seed)
    simulation = Simulation(source, watched, order=system.order, on_over=fleet.over)
    first, last = scenario.users, scenario.users + COUNTED
    until_s = MAX_LIVES * max(1.0, scenario.pressure) * life_s
    found: list[ServedExecution] = []
    began_s, ended = 0.0, 0
    cpu_s = process_time()
    while len(found) < COUNTED and simulation.next_s <= until_s:
        for execution in simulation.step(simulation.next_s):
            ended += watched.is_counting
            if first <= execution.number < last:
                found.append(execution)
        if not watched.is_counting and simulation.executions > first:
            watched.is_counting, began_s = True, simulation.now_s
    cpu_s = process_time() - cpu_s
    took_s = simulation.now_s - began_s
    tasks_s = {execution.number: execution.execution_s for execution in found}
    for number in range(first, min(last, simulation.executions)):
        tasks_s.setdefault(number, simulation.now_s - watched.begun_s[number])
    ttfts_s = [call.ttft_s for execution in found for call in execution.calls]
    calls = max(1, watched.calls)
    return Run(
        system=name,
        scenario=scenario.name,
        half=scenario.half,
        seed=seed,
        users=scenario.users,
        executions=len(tasks_s),
        unfinished=len(tasks_s) - len(found),
        task_s=fmean(tasks_s.values()),
        task_p99_s=percentile(list(tasks_s.values()), 0.99),
        served_s=fmean(map(served_s, found)),
        ttft_s=fmean(ttfts_s),
        ttft_p99_s=percentile(ttfts_s, 0.99),
        executions_per_s=ended / took_s,
        calls_per_s=watched.calls / took_s,
        computed_fraction=1 - watched.cached_tokens / max(1, watched.prompt_tokens),
        recomputed_gib_per_call=watched.recomputed_tokens * kv_bytes_per_token() / GIB / calls,
        recomputed_s_per_call=watched.recomputed_s / calls,
        preemptions_per_call=sum(c.preemptions for e in found for c in e.calls) / len(ttfts_s),
        calls=watched.calls,
        cpu_s=cpu_s,
        tasks_s=tuple(round(tasks_s[number], 2) for number in sorted(tasks_s)),
    )


def served_s(execution: ServedExecution) -> float:
    """Task time while at least one call was in flight."""
    total_s, until_s = 0.0, 0.0
    for call in sorted(execution.calls, key=lambda call: call.start_s):
        total_s += max(0.0, call.end_s - max(call.start_s, until_s))
        until_s = max(until_s, call.end_s)
    return total_s


def percentile(values: Sequence[float], fraction: float) -> float:
    """The least value that so many are not above."""
    return sorted(values)[max(0, ceil(fraction * len(values)) - 1)]
