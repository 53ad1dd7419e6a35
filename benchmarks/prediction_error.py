"""How far both predictors are off, against recorded executions served in virtual time.

Executions are recorded from the example workflows on emulated engines, and taken from two public
sets whose roles are mapped to LLMs (see ``benchmarks.recorded.sources``); those need SCEPSY_DATA.
For each plan the stages are profiled on just the plan's shapes, so that the predictor is measured
and not the interpolation between shapes. Then executions arrive at 20 to 80 % of capacity. Beside
each error stands the sampling error of what was served. ``benchmarks.prediction_error_http`` does
the same over HTTP.

    python -m benchmarks.prediction_error [scenario ...]

With a folder that `make demo` wrote in place of scenarios, the reference is what
its plan really served: emulated engines behind the gateway, over HTTP.

    python -m benchmarks.prediction_error demo-out
"""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.host import report
from benchmarks.recorded.errors import errors
from benchmarks.recorded.scenario import LOADS, Scenario, predictions
from benchmarks.recorded.sources import scenarios
from scepsy.files.plan_file import load_plan
from scepsy.model.plan import WorkflowRate
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.sim.serve import fleet_of, serve
from scepsy.traces.demand import demand
from scepsy.traces.store import SqliteTraceStore

SEED = 1
ROUNDS = {"beam_search": 30, "rag": 150, "both": 20, "chatdev": 12, "coding": 20}
"""Times that each recorded execution is served."""


def run(scenario: Scenario) -> None:
    began = perf_counter()
    profiles = scenario.profiles()
    profiled = perf_counter()
    factor = scenario.factor_at_capacity(profiles)
    executions = scenario.rounds(ROUNDS[scenario.name])
    figures: dict[str, object] = {}
    for load in LOADS:
        rated = scenario.rated(load * factor)
        told = predictions(rated, scenario.allocation, profiles)
        under_way = sum(w.rate_per_s * w.execution_s_mean for w in told[0].workflows)
        warm_up = max(executions // 4, round(3 * under_way))
        runs = serve(
            scenario.streams(rated),
            fleet_of(scenario.allocation, scenario.specs),
            executions=executions,
            warm_up=warm_up,
            seed=SEED,
        )
        for name, recorded in scenario.executions.items():
            latencies_s = np.array([r.execution_s for r in runs if r.workflow == name])
            found = errors(told, name, latencies_s, len(recorded), warm_up)
            figures[f"{name}_at_{load:.0%}"] = found
    report(
        "prediction_error",
        repeats=1,
        seed=SEED,
        scenario=scenario.name,
        profile_s=round(profiled - began, 1),
        serve_s=round(perf_counter() - profiled, 1),
        **figures,
    )


def run_served(folder: Path) -> None:
    """One line for each load that a demo's plan was served at, but for those that saturate it."""
    plan = load_plan(folder / "plan-4.json")
    with SqliteTraceStore.open(folder / "traces.db", create=False) as store:
        recorded = {r.workflow: tuple(store.executions(r.workflow)) for r in plan.rates}
    scenario = Scenario(
        name=folder.name,
        executions=recorded,
        rates={},
        groups=[
            (g.llm, g.gpu_type, g.tensor_parallel, g.gpu_fraction, g.replicas)
            for g in plan.allocation.groups
        ],
        profiled_calls=20_000,
    )
    profiles = scenario.profiles()
    for path in sorted(folder.glob("served-*.db")):
        if "full" in path.name:
            continue
        with SqliteTraceStore.open(path, create=False) as store:
            served = {name: tuple(store.executions(name)) for name in recorded}
        served = {name: found for name, found in served.items() if len(found) > 1}
        rated = [
            RatedWorkflow(
                demand(recorded[name]),
                WorkflowRate(name, (len(found) - 1) / (found[-1].start_s - found[0].start_s)),
            )
            for name, found in served.items()
        ]
        told = predictions(rated, plan.allocation, profiles)
        figures = {
            f"{name}_at_{told[0].workflow(name).stages[0].utilization:.0%}": errors(
                told, name, np.array([each.execution_s for each in found]), len(recorded[name])
            )
            for name, found in served.items()
        }
        report("prediction_error", repeats=1, seed=0, scenario=path.stem, **figures)


if __name__ == "__main__":
    if len(sys.argv) == 2 and Path(sys.argv[1]).is_dir():
        run_served(Path(sys.argv[1]))
    else:
        for one in scenarios(sys.argv[1:]):
            run(one)
