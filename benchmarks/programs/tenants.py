"""Ten tenants of unlike executions at a set load: python -m benchmarks.programs.tenants

Three heavy, four medium and three light ones start software-issue runs at equal rates, by Poisson:
of the third with most calls, the next, and the one with fewest. Load is the GPU time that all ask
for, if nothing is computed twice and eight calls decode at a time, over what there is. An execution
is in time if it takes at most 1.5 times what it would take so without waiting; of those that are
late it is told where their time went. How far tenants' service comes apart while two of them wait
at the dispatcher is told beside what one of them has in flight at a time.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import merge
from pathlib import Path
from statistics import fmean

from benchmarks.programs.measure import percentile
from benchmarks.programs.scenario import Scenario, life
from benchmarks.programs.sessions import LLM
from benchmarks.programs.shares import Noting, Spent, spent
from benchmarks.programs.systems import System, find_system
from scepsy.policy.program import TenantName
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.arrivals import Arrival, OpenLoop, Stream
from scepsy.sim.run import ServedExecution, Simulation
from scepsy.sim.script import Script

KINDS = {"heavy": 3, "medium": 4, "light": 3}
DECODES = 8
SLACK = 1.5
WARM_UP, COUNTED = 100, 300
MAX_LIVES = 60
"""A run is given up after so many times what an execution takes without waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """One system, one seed. Fractions in time; slowdown is over the time without waiting."""

    system: str
    seed: int
    load: float
    executions: int
    unfinished: int
    """Those count as late."""
    in_time: float
    worst_tenant_in_time: float
    light_in_time: float
    slowdown_by_tenant: dict[str, float]
    """Mean, of those that ended."""
    slowdown_p99: float
    apart_s: float
    """The largest difference in service, in seconds of a replica, of two tenants while both wait
    at the dispatcher; 0 where calls do not wait there."""
    in_flight_s: float
    """What one tenant has at a time, at most: ``Shares.in_flight_s``."""
    late: tuple[Spent, ...]
    """Executions that were."""


def thirds(scripts: Sequence[Script]) -> dict[str, tuple[Script, ...]]:
    """By the calls that they make, most first."""
    ordered = sorted(scripts, key=lambda script: -len(script.stages))
    third = len(ordered) // 3
    parts = (ordered[:third], ordered[third : 2 * third], ordered[2 * third :])
    return {kind: tuple(part) for kind, part in zip(KINDS, parts, strict=True)}


def arrivals(scripts: Sequence[Script], rate_per_s: float, seed: int) -> Iterator[Arrival]:
    """Of all tenants, each with the same part of the rate."""
    from_tenants: list[Iterator[Arrival]] = []
    for kind, own in thirds(scripts).items():
        for number in range(KINDS[kind]):
            tenant = TenantName(f"{kind}-{number}")
            theirs = tuple(replaced(script, tenant) for script in own)
            stream = Stream(scripts=theirs, rate_per_s=rate_per_s / sum(KINDS.values()))
            from_tenants.append(stream.arrivals(100 * seed + len(from_tenants)))
    return merge(*from_tenants, key=lambda arrival: arrival.at_s)


def replaced(script: Script, tenant: TenantName) -> Script:
    return Script(script.segment, script.stages, script.tail_s, tenant=tenant, tools=script.tools)


def rate_at(load: float, scripts: Sequence[Script], spec: EngineSpec, replicas: int) -> float:
    """Executions per second of all tenants that ask for so much of the GPUs."""
    gpu_s = sum(
        KINDS[kind] * fmean(life(script, spec, DECODES).gpu_s for script in own)
        for kind, own in thirds(scripts).items()
    ) / sum(KINDS.values())
    return load * replicas / gpu_s


def attained(name: str, system: System, each: Scenario, load: float, seed: int) -> Attained:
    scripts = each.executions.scripts
    rate_per_s = rate_at(load, scripts, each.spec, each.replicas)
    noting = Noting(system.dispatcher())
    noted = replace(system, dispatcher=lambda: noting)
    fleet = noted.fleet(LLM, each.spec, each.replicas)
    source = OpenLoop(arrivals(scripts, rate_per_s, seed))
    simulation = Simulation(source, fleet, order=system.order, on_over=fleet.over)
    found: list[ServedExecution] = []
    until_s = WARM_UP / rate_per_s + MAX_LIVES * each.life_s
    while len(found) < COUNTED and simulation.next_s <= until_s:
        found += [
            execution
            for execution in simulation.step(simulation.next_s)
            if WARM_UP <= execution.number < WARM_UP + COUNTED
        ]
    return _figures(name, load, seed, found, each.spec, noting)


def _figures(
    name: str,
    load: float,
    seed: int,
    found: Sequence[ServedExecution],
    spec: EngineSpec,
    noting: Noting,
) -> Attained:
    slow: dict[str, list[float]] = {}
    late: list[Spent] = []
    for execution in found:
        expected_s = life(execution.script, spec, DECODES).life_s
        slowdown = execution.execution_s / expected_s
        slow.setdefault(str(execution.script.tenant), []).append(slowdown)
        if slowdown > SLACK:
            late.append(spent(execution, noting.sent_s, spec, expected_s, DECODES))
    every = [slowdown for own in slow.values() for slowdown in own]
    light = [slowdown for tenant, own in slow.items() if "light" in tenant for slowdown in own]
    return Attained(
        system=name,
        seed=seed,
        load=load,
        executions=COUNTED,
        unfinished=COUNTED - len(found),
        in_time=_in_time(every) * len(every) / COUNTED,
        worst_tenant_in_time=min(map(_in_time, slow.values())),
        light_in_time=_in_time(light),
        slowdown_by_tenant={tenant: round(fmean(slow[tenant]), 3) for tenant in sorted(slow)},
        slowdown_p99=percentile(every, 0.99),
        apart_s=noting.shares.largest_s,
        in_flight_s=noting.shares.in_flight_s,
        late=tuple(late),
    )


def _in_time(slowdowns: Sequence[float]) -> float:
    return sum(slowdown <= SLACK for slowdown in slowdowns) / len(slowdowns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs.tenants")
    parser.add_argument("--systems", default="fcfs,vllm-affinity,thunder-agent,saga,ours")
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--half", default="tuning")
    parser.add_argument("--out", type=Path, default=Path("programs-out"))
    options = parser.parse_args()
    each = Scenario(workload="swe", half=options.half)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name in options.systems.split(","):
            got = attained(name, find_system(name), each, options.load, seed)
            line = json.dumps(asdict(got))
            with (options.out / f"tenants-{options.half}.jsonl").open("a") as lines:
                lines.write(line + "\n")
            print(line, flush=True)
            told = f"{got.in_time:.1%} in time, of light ones {got.light_in_time:.1%}"
            apart = f"{got.apart_s:.1f} s apart ({got.in_flight_s:.1f} s in flight)"
            print(f"{name} seed {seed}: {told}, {apart}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
