"""How far both predictors are off, against recorded executions served over HTTP.

The scenarios of ``benchmarks.prediction_error``, replayed through the real gateway to the emulated
engines of the plan: arrivals by chance, order, overlap and gaps as recorded, latencies as the
gateway recorded them. Beside each error stands its sampling error. The simulator serves the very
same arrivals, so ``http_over_sim`` is what HTTP, processes and this machine add at the speed-up.

    python -m benchmarks.prediction_error_http [--speedup-factor 0.5] [scenario ...]
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import uvloop

from benchmarks.host import report
from benchmarks.recorded.errors import errors, p95
from benchmarks.recorded.replay import HttpReplay, ReplayedRun, served
from benchmarks.recorded.scenario import LOADS, Scenario, predictions
from benchmarks.recorded.sources import scenarios
from scepsy.profiles.curve import ProfileSet
from scepsy.sim.serve import fleet_of, serve
from scepsy.traces.store import SqliteTraceStore

SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a scenario is replayed within half a minute a load."""

    speedup: float
    """So much that a call's own cost here (3 ms, 10 ms with long prompts) weighs about 1 %."""
    rounds: int
    """Times that each recorded execution is counted at the highest load; fewer at lower ones."""
    warm_up_executions_s: float = 1.3
    """Mean execution latencies before anything is counted."""


PACES = {
    "beam_search": Pace(speedup=4, rounds=3),
    "rag": Pace(speedup=6, rounds=24),
    "both": Pace(speedup=4, rounds=2),
    "chatdev": Pace(speedup=200, rounds=4),
    "coding": Pace(speedup=40, rounds=4),
}


@dataclass(frozen=True, slots=True)
class Served:
    """The executions of one load."""

    load: float
    runs: tuple[ReplayedRun, ...]
    late_s: float


def counts(scenario: Scenario, profiles: ProfileSet, pace: Pace, load: float) -> tuple[int, int]:
    """Executions to count, and those before."""
    rated = scenario.rated(load * scenario.factor_at_capacity(profiles))
    told = predictions(rated, scenario.allocation, profiles)[0]
    under_way = sum(w.rate_per_s * w.execution_s_mean for w in told.workflows)
    rounds = max(1, round(pace.rounds * load / max(LOADS)))
    return scenario.rounds(rounds), round(pace.warm_up_executions_s * under_way) + 1


async def replay(
    scenario: Scenario, profiles: ProfileSet, pace: Pace, loads: Sequence[float], record: Path
) -> list[Served]:
    found: list[Served] = []
    async with served(scenario, speedup=pace.speedup, record=record) as http:
        for load in loads:
            found.append(await _at_load(scenario, profiles, pace, http, load))
    return found


async def _at_load(
    scenario: Scenario, profiles: ProfileSet, pace: Pace, http: HttpReplay, load: float
) -> Served:
    executions, warm_up = counts(scenario, profiles, pace, load)
    rated = scenario.rated(load * scenario.factor_at_capacity(profiles))
    http.late_s.clear()
    runs = await http.serve(
        scenario.streams(rated), executions=executions, warm_up=warm_up, seed=SEED
    )
    return Served(load, runs, fmean(http.late_s))


def recorded_s(record: Path, scenario: Scenario) -> dict[str, float]:
    """Latency of each execution, as the gateway recorded it."""
    with SqliteTraceStore.open(record, create=False) as store:
        return {
            each.id: each.execution_s
            for name in scenario.executions
            for each in store.executions(name, with_blocks=False)
        }


def run(scenario: Scenario, factor: float, loads: Sequence[float]) -> None:
    pace = PACES[scenario.name]
    pace = Pace(
        speedup=pace.speedup * factor,
        rounds=pace.rounds,
        warm_up_executions_s=pace.warm_up_executions_s,
    )
    profiles = scenario.profiles()
    with TemporaryDirectory() as folder:
        record = Path(folder) / "served.db"
        began = perf_counter()
        replayed = uvloop.run(replay(scenario, profiles, pace, loads, record))
        took_s = perf_counter() - began
        latencies_s = recorded_s(record, scenario)
    figures: dict[str, object] = {}
    for each in replayed:
        figures |= compared(scenario, profiles, pace, each, latencies_s)
    report(
        "prediction_error_http",
        repeats=1,
        seed=SEED,
        scenario=scenario.name,
        speedup=pace.speedup,
        serve_s=round(took_s, 1),
        **figures,
    )


def compared(
    scenario: Scenario,
    profiles: ProfileSet,
    pace: Pace,
    at: Served,
    latencies_s: dict[str, float],
) -> dict[str, object]:
    rated = scenario.rated(at.load * scenario.factor_at_capacity(profiles))
    told = predictions(rated, scenario.allocation, profiles)
    executions, warm_up = counts(scenario, profiles, pace, at.load)
    simulated = serve(
        scenario.streams(rated),
        fleet_of(scenario.allocation, scenario.specs),
        executions=executions,
        warm_up=warm_up,
        seed=SEED,
    )
    found: dict[str, object] = {}
    for name, recorded in scenario.executions.items():
        http_s = np.array([latencies_s[run.id] for run in at.runs if run.script.workflow == name])
        sim_s = np.array([r.execution_s for r in simulated if r.workflow == name])
        found[f"{name}_at_{at.load:.0%}"] = {
            **errors(told, name, http_s, len(recorded), warm_up),
            "http_over_sim": {
                "mean": round(float(http_s.mean() / sim_s.mean() - 1), 4),
                "p95": round(p95(http_s) / p95(sim_s) - 1, 4),
            },
            "call_left_late_ms": round(at.late_s / pace.speedup * 1000, 2),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("scenario", nargs="*", help="some of: " + ", ".join(PACES))
    parser.add_argument("--load", type=float, action="append", help="of capacity; repeatable")
    parser.add_argument("--speedup-factor", type=float, default=1.0, help="on all speed-ups")
    options = parser.parse_args()
    for scenario in scenarios(options.scenario):
        run(scenario, options.speedup_factor, options.load or LOADS)


if __name__ == "__main__":
    main()
