"""One system on one scenario: what became of the executions, and what was computed twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from time import process_time

from benchmarks.programs.optimum import Admission, over_optimum
from benchmarks.programs.scenario import (
    COUNTED,
    Scenario,
    Users,
    kv_bytes_per_token,
    prefill_s,
)
from benchmarks.programs.sessions import LLM
from benchmarks.programs.systems import System
from benchmarks.programs.trouble import Clients, troubled
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.route import CallView
from scepsy.sim.engine import EngineCall, EngineEvent, Finished
from scepsy.sim.fleet import Serving
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.run import FaultySimulation, ServedExecution, Simulation
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
    misses_over_belady: float | None = None
    """Prompt tokens computed, over what the optimum of retention would have left to compute."""
    seconds_over_belady: float | None = None
    host_gib: float = 0.0
    """Of host memory for each replica."""


class Watched:
    """What serves, with a look at what its calls compute."""

    def __init__(self, serving: Serving, scenario: Scenario, *, keeps: bool = False) -> None:
        self._serving = serving
        self._keeps = keeps
        self.admissions: list[Admission] = []
        """Where they are to be kept."""
        self._spec = scenario.spec
        self._calls: dict[str, EngineCall] = {}
        self._computed: set[int] = set()
        self.begun_s: dict[int, float] = {}
        self.calls = self.prompt_tokens = self.cached_tokens = self.recomputed_tokens = 0
        self.recomputed_s = 0.0
        self.is_counting = False

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        self.begun_s[int(view.execution)] = view.execution_start_s
        self._calls[call.id] = call
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
        call = self._calls.pop(event.call_id)
        tokens, chain = call.prompt_tokens, call.prefix_blocks + call.output_blocks
        size, computed = self._spec.block_tokens, self._computed
        if self._keeps:
            held_tokens = tokens + call.output_tokens - 1
            admission = Admission(
                replica=self._serving.replica_of(event.call_id),
                start_s=event.scheduled_s,
                end_s=event.at_s,
                prompt_tokens=tokens,
                cached_tokens=event.cached_tokens,
                blocks=-(-held_tokens // size),
                prompt=chain[: (tokens - 1) // size],
                chain=chain[: held_tokens // size],
                counts=self.is_counting,
            )
            self.admissions.append(admission)
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


def measure(
    name: str, system: System, scenario: Scenario, seed: int, *, belady: bool = False
) -> Run:
    """Run until all executions that count have ended, under unchanged load.

    Args:
        name: of the system.
        system: what serves.
        scenario: what it serves, on what.
        seed: decides which executions come when.
        belady: whether to compare what is computed with the optimum of retention.
    """
    life_s, scripts = scenario.life_s, scenario.executions.scripts
    source = Users(scripts, users=scenario.users, within_s=life_s, seed=seed)
    if scenario.trouble is not None:
        clients = Clients(source.taken, scripts, seed)
        system = troubled(system, scenario.trouble, clients, scenario.trouble_s)
    fleet = system.fleet(LLM, scenario.spec, scenario.replicas)
    watched = Watched(fleet, scenario, keeps=belady)
    cpu_s = process_time()
    simulation = _Faulty(source, watched, fleet, scenario, system)
    until_s = MAX_LIVES * max(1.0, scenario.pressure) * life_s
    served = _serve(simulation, watched, first=scenario.users, until_s=until_s)
    cpu_s = process_time() - cpu_s
    found, tasks_s = served.executions, served.tasks_s
    ttfts_s = [call.ttft_s for execution in found for call in execution.calls]
    calls = max(1, watched.calls)
    over = over_optimum(watched.admissions, scenario.spec) if belady else (None, None)
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
        executions_per_s=served.ended / served.took_s,
        calls_per_s=watched.calls / served.took_s,
        computed_fraction=1 - watched.cached_tokens / max(1, watched.prompt_tokens),
        recomputed_gib_per_call=watched.recomputed_tokens * kv_bytes_per_token() / GIB / calls,
        recomputed_s_per_call=watched.recomputed_s / calls,
        preemptions_per_call=sum(c.preemptions for e in found for c in e.calls) / len(ttfts_s),
        calls=watched.calls,
        cpu_s=cpu_s,
        misses_over_belady=over[0],
        seconds_over_belady=over[1],
        host_gib=scenario.host_gib,
        tasks_s=tuple(round(tasks_s[number], 2) for number in sorted(tasks_s)),
    )


class _Faulty(FaultySimulation):
    """Calls go through what watches, faults to the fleet behind it."""

    def __init__(
        self,
        source: Users,
        watched: Watched,
        fleet: ProgramFleet,
        scenario: Scenario,
        system: System,
    ) -> None:
        super().__init__(source, fleet, scenario.faults, order=system.order, on_over=fleet.over)
        self._serving = watched


@dataclass(frozen=True, slots=True)
class _Served:
    executions: list[ServedExecution]
    """That count and have ended."""
    tasks_s: dict[int, float]
    """Of all that count, by number; of those that have not ended, as long as they had run."""
    ended: int
    """While it was counted, whichever they are."""
    took_s: float


def _serve(simulation: Simulation, watched: Watched, *, first: int, until_s: float) -> _Served:
    """Go on until executions from a number on have ended, or time is up."""
    last = first + COUNTED
    found: list[ServedExecution] = []
    began_s, ended = 0.0, 0
    while len(found) < COUNTED and simulation.next_s <= until_s:
        for execution in simulation.step(simulation.next_s):
            ended += watched.is_counting
            if first <= execution.number < last:
                found.append(execution)
        if not watched.is_counting and simulation.executions > first:
            watched.is_counting, began_s = True, simulation.now_s
    tasks_s = {execution.number: execution.execution_s for execution in found}
    for number in range(first, min(last, simulation.executions)):
        tasks_s.setdefault(number, simulation.now_s - watched.begun_s[number])
    return _Served(found, tasks_s, ended, simulation.now_s - began_s)


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
