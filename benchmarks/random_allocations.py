"""Our plan against the best of thousands of random allocations, both found by simulation.

    python -m benchmarks.random_allocations [--samples 10000] [--workloads ...] [--loads ...]

On 8 H100, for each workload of the paper and each load (part of the capacity that the planner
expects). Random: distinct allocations of profiled shapes that can be placed, raced until a dozen
are left, which are compared on other arrivals; the best of them is compared with ours on arrivals
that neither has seen. Where ours is worse the benchmark fails.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from time import process_time

from benchmarks.host import report
from benchmarks.paper.settings import SETTINGS, WORKLOADS, Setting
from benchmarks.paper.systems import capacity_factor, described
from benchmarks.paper.workloads import (
    Files,
    Workload,
    keep_profiles,
    make_recordings,
    profile,
    profile_jobs,
)
from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.search.frontier import Room, profiled_shapes, usable_shapes
from scepsy.search.neighbours import placed
from scepsy.search.problem import PlanRequest, Problem, problem
from scepsy.sim.plan_by_simulation import Effort, plan_by_simulation, trial_of
from scepsy.sim.rank import Trial, race
from scepsy.sim.specs import published

GPU, GPUS = "h100", 8
ROUNDS = (300, 1_200, 4_800, 12_000)
"""Calls that random allocations are tried with."""
KEPT = (0.05, 0.01)
"""Part of them that goes on after the first rounds."""
LAST_KEPT = 12
"""After the last but one."""
JUDGED_CALLS = 12_000
SEEDS = range(1000, 1008)
"""Arrivals that neither side has seen."""
_NEAR = 1.15
"""A random allocation that is slower than ours by this on equal arrivals is simulated no further:
it will not turn out to be better than ours."""
_T_95 = 2.365
"""Of Student's distribution with 7 degrees of freedom, two-sided."""
_EQUAL = 1e-3
"""Latencies within this part of each other are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Ours and the best random allocation at one rate."""

    workload: str
    load: float
    rate_per_s: float
    samples: int
    ours: str
    best_random: str
    ours_s: float
    """Mean execution latency over all seeds, of the workflows on average."""
    random_s: float
    ratio: float
    """Ours over random, in the mean over the seeds."""
    ratio_low: float
    """Of its 95 % confidence interval."""
    ratio_high: float
    ours_simulations: int
    random_simulations: int
    ours_cpu_s: float
    random_cpu_s: float

    @property
    def is_worse(self) -> bool:
        """Beyond what chance explains."""
        return self.ratio_low > 1 + _EQUAL


def compared(files: Files, workload: str, load: float, samples: int) -> Compared:
    """One workload at one rate; from a file where it was done before."""
    path = files.folder / "random" / f"{workload}-{load:g}-{samples}.json"
    if path.exists():
        return Compared(**json.loads(path.read_text("utf-8")))
    found = compare(files, workload, load, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(found)), "utf-8")
    return found


def compare(files: Files, workload: str, load: float, samples: int) -> Compared:
    """One workload at one rate."""
    recorded = Workload(files, workload)
    factor = load * capacity_factor(recorded.task(GPU, GPUS, 1.0))
    task = recorded.task(GPU, GPUS, factor)
    asked = problem(
        PlanRequest(
            demands=task.demands, profiles=task.profiles, cluster=task.cluster, rates=task.rates
        )
    )
    cached = cache(published)
    start_s = process_time()
    found = plan_by_simulation(asked, recorded.training, cached)
    ours, ours_s = found.plans[0], process_time() - start_s

    def trial(seed: int) -> Trial:
        return trial_of(asked, ours.prediction, recorded.training, cached, seed=seed)

    start_s = process_time()
    best, simulations = best_random(asked, trial(0), trial(1), samples, ours.allocation)
    random_s = process_time() - start_s
    pairs = [(_value(trial(seed), ours.allocation), _value(trial(seed), best)) for seed in SEEDS]
    ratios = [one / other for one, other in pairs]
    ratio, half = _interval(ratios)
    return Compared(
        workload=workload,
        load=load,
        rate_per_s=sum(rate.rate_per_s for rate in task.rates),
        samples=samples,
        ours=described(ours.allocation),
        best_random=described(best),
        ours_s=sum(one for one, _ in pairs) / len(pairs),
        random_s=sum(other for _, other in pairs) / len(pairs),
        ratio=ratio,
        ratio_low=ratio - half,
        ratio_high=ratio + half,
        ours_simulations=found.simulations,
        random_simulations=simulations,
        ours_cpu_s=ours_s,
        random_cpu_s=random_s,
    )


def best_random(
    asked: Problem, ranking: Trial, judging: Trial, samples: int, ours: Allocation
) -> tuple[Allocation, int]:
    """The best of so many, and how many simulations it took to find it."""
    simulations = 0

    def count() -> bool:
        nonlocal simulations
        simulations += 1
        return True

    several = list(allocations(asked, samples, seed=0))
    near = [_NEAR * _value(ranking, ours, calls) for calls in ROUNDS]
    kept = (*(max(LAST_KEPT, round(part * samples)) for part in KEPT), LAST_KEPT)
    ranked = race(ranking, several, rounds=ROUNDS, kept=kept, beyond=near, go_on=count)
    last = [each.allocation for each in ranked[:LAST_KEPT]]
    judged = race(judging, last, rounds=(JUDGED_CALLS,), go_on=count)
    return judged[0].allocation, simulations


def allocations(asked: Problem, most: int, *, seed: int) -> Iterator[Allocation]:
    """Distinct ones that can be placed, each LLM with any shape and number of replicas."""
    rng = random.Random(seed)
    groups = _groups(asked)
    seen: set[Allocation] = set()
    given = tries = 0
    while given < most and tries < 1000 * most:
        tries += 1
        drawn = Allocation(tuple(rng.choice(own) for own in groups))
        if drawn.gpus > asked.gpus + 1e-9 or drawn in seen:
            continue
        seen.add(drawn)
        if placed(asked, drawn) is not None:
            given += 1
            yield drawn


def _groups(asked: Problem) -> list[list[ReplicaGroup]]:
    """All that each LLM may have."""
    room: Room = asked.room
    found = []
    for load in asked.loads:
        (shapes,) = profiled_shapes(load, asked.surfaces, [room])
        found.append(
            [
                ReplicaGroup(
                    llm=load.llm,
                    gpu_type=room.gpu_type,
                    tensor_parallel=degree,
                    gpu_fraction=fraction,
                    replicas=replicas,
                )
                for (degree, fraction), units in usable_shapes(
                    load, shapes, room, asked.request.limits
                )
                for replicas in range(1, room.budget_units // units + 1)
            ]
        )
    return found


def _value(trial: Trial, allocation: Allocation, calls: int = JUDGED_CALLS) -> float:
    ranked = trial.rank(allocation, calls)
    assert ranked is not None, "it was simulated before"
    return ranked.value


def _interval(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half: float = _T_95 * (variance / len(values)) ** 0.5
    return mean, half


def _line(one: Compared) -> str:
    return (
        f"{one.workload} at {one.load:.0%}: ours / random {one.ratio:.4f} "
        f"({one.ratio_low:.4f} to {one.ratio_high:.4f}); {one.ours_simulations} simulations, "
        f"{one.ours_cpu_s:.0f} CPU s against {one.random_simulations}, {one.random_cpu_s:.0f} CPU s"
    )


def _prepare(pool: Executor, files: Files, workloads: list[str], setting: Setting) -> None:
    """Record and profile what was not before."""
    workflows = dict.fromkeys(each for name in workloads for each in WORKLOADS[name].rates)
    for each in [pool.submit(make_recordings, files, w, setting) for w in workflows]:
        each.result()
    for workflow in workflows:
        if jobs := profile_jobs(files, workflow, setting):
            under_way = [
                pool.submit(profile, files, workflow, job, setting.profiled_calls) for job in jobs
            ]
            keep_profiles(files, workflow, [each.result() for each in under_way])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.random_allocations")
    parser.add_argument("--workloads", nargs="+", default=["rag_rerank", "beam_search", "both"])
    parser.add_argument("--loads", nargs="+", type=float, default=[0.2, 0.5, 0.8])
    parser.add_argument("--samples", type=int, default=10_000, help="random allocations")
    parser.add_argument("--setting", choices=list(SETTINGS), default="quick", help="recordings")
    parser.add_argument("--out", type=Path, default=Path("paper-out"), help="recordings, profiles")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    files = Files(options.out / options.setting)
    found: list[Compared] = []
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        _prepare(pool, files, options.workloads, SETTINGS[options.setting])
        under_way = [
            pool.submit(compared, files, workload, load, options.samples)
            for load in options.loads
            for workload in options.workloads
        ]
        for each in under_way:
            found.append(each.result())
            print(_line(found[-1]), file=sys.stderr, flush=True)
    worse = sum(each.is_worse for each in found)
    report(
        "random_allocations",
        repeats=len(SEEDS),
        seed=0,
        gpus=GPUS,
        effort=asdict(Effort()),
        results=[asdict(each) for each in found],
        worse=worse,
    )
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
