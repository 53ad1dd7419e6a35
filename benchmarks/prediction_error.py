"""How far both predictors are off, against recorded executions served in virtual time.

Executions are recorded from the example workflows on emulated engines, and taken from two public
sets (OpenBMB/ChatDev's logs and callanjfox/kv-cache-tester's coding sessions) whose roles are
mapped to LLMs here; those need SCEPSY_DATA. For each plan the stages are profiled on just the
plan's shapes, so that the predictor is measured and not the interpolation between shapes. Then
executions arrive at 20 to 80 % of capacity.

    python -m benchmarks.prediction_error [scenario ...]

With a folder that `make demo` wrote in place of scenarios, the reference is what
its plan really served: emulated engines behind the gateway, over HTTP.

    python -m benchmarks.prediction_error demo-out
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from benchmarks.host import report
from examples.demo.record import record
from examples.demo.settings import DemoSettings
from scepsy.files.plan_file import load_plan
from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, Execution, ExecutionId
from scepsy.model.plan import Allocation, Prediction, ReplicaGroup, WorkflowPrediction, WorkflowRate
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.predict import critical_path, pipeline
from scepsy.predict.pipeline import RatedWorkflow
from scepsy.profiles.curve import ProfileKey, ProfileSet
from scepsy.profiles.silicon import engine_spec
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import poisson_arrivals, stage_workload
from scepsy.sim.arrivals import Stream
from scepsy.sim.profile import profile_workload
from scepsy.sim.script import scripts
from scepsy.sim.serve import fleet_of, serve
from scepsy.traces.demand import demand
from scepsy.traces.files import import_file
from scepsy.traces.store import SqliteTraceStore

LOADS = (0.2, 0.4, 0.6, 0.8)
PROFILED = (0.02, 0.2, 0.4, 0.6, 0.8, 0.9)
SEED = 1
DATA = Path(os.environ.get("SCEPSY_DATA", "../shared/data"))
RECORDED = 40
"""Executions of each example workflow."""
MAX_PAUSE_S = 60.0
MAX_STRETCHES = 120
Groups = Sequence[tuple[str, str, int, float, int]]
"""LLM, GPU type, tensor parallel degree, GPU fraction, replicas."""

EXAMPLE_GROUPS: Groups = (
    ("qwen3-32b", "h100", 2, 1.0, 2),
    ("qwen3-8b", "h100", 2, 0.4, 1),
    ("qwen3-embedding-0.6b", "h100", 1, 0.2, 1),
)
CHATDEV_GROUPS: Groups = (
    ("gpt-oss-20b", "h100", 1, 1.0, 1),
    ("qwen3-32b", "h100", 2, 1.0, 2),
    ("qwen3-8b", "h100", 1, 0.5, 2),
)
CHATDEV_LLMS = {"Programmer": "qwen3-32b", "Code Reviewer": "qwen3-8b"}
CODING_GROUPS: Groups = (
    ("qwen3-30b-a3b", "h200", 2, 1.0, 4),
    ("qwen3-8b", "h200", 1, 1.0, 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Workflows on a plan."""

    name: str
    executions: Mapping[WorkflowName, Sequence[Execution]]
    rates: Mapping[WorkflowName, float]
    """In proportion."""
    groups: Groups
    profiled_calls: int
    served_executions: int

    @property
    def allocation(self) -> Allocation:
        return Allocation(
            tuple(
                ReplicaGroup(
                    llm=LlmName(llm),
                    gpu_type=GpuTypeName(gpu),
                    tensor_parallel=degree,
                    gpu_fraction=fraction,
                    replicas=replicas,
                )
                for llm, gpu, degree, fraction, replicas in self.groups
            )
        )

    @property
    def specs(self) -> Mapping[LlmName, EngineSpec]:
        return {
            LlmName(llm): engine_spec(llm, gpu, tensor_parallel=degree, gpu_fraction=fraction)
            for llm, gpu, degree, fraction, _ in self.groups
        }

    def profiles(self) -> ProfileSet:
        curves = []
        for executions in self.executions.values():
            for stage in sorted({call.stage for each in executions for call in each.calls}):
                group = self.allocation.group(stage.llm)
                workload = stage_workload(executions, stage)
                arrivals = poisson_arrivals(workload, min_calls=self.profiled_calls, seed=0)
                key = ProfileKey(
                    stage=stage,
                    gpu_type=group.gpu_type,
                    tensor_parallel=group.tensor_parallel,
                    gpu_fraction=group.gpu_fraction,
                    replicas=group.replicas,
                )
                curves.append(
                    profile_workload(
                        workload, arrivals, self.specs[stage.llm], key, utilizations=PROFILED
                    )
                )
        return ProfileSet(tuple(curves))

    def rated(self, factor: float) -> list[RatedWorkflow]:
        return [
            RatedWorkflow(demand(executions), WorkflowRate(name, self.rates[name] * factor))
            for name, executions in self.executions.items()
        ]


def examples() -> Mapping[WorkflowName, Sequence[Execution]]:
    with TemporaryDirectory() as folder:
        settings = DemoSettings(out=Path(folder), recorded_executions=RECORDED)
        asyncio.run(record(settings, lambda _: None))
        with SqliteTraceStore.open(settings.path("traces.db"), create=False) as store:
            return {
                WorkflowName(name): tuple(store.executions(WorkflowName(name)))
                for name in settings.rates
            }


def public(name: str) -> tuple[Execution, ...]:
    with TemporaryDirectory() as folder, SqliteTraceStore.open(Path(folder) / "t.db") as store:
        import_file(store, DATA / name / "sessions.jsonl.gz")
        return tuple(store.executions())


def chatdev() -> tuple[Execution, ...]:
    def llm(role: Role) -> LlmName:
        return LlmName(CHATDEV_LLMS.get(role, "gpt-oss-20b"))

    return tuple(
        replace(e, calls=tuple(replace(call, llm=llm(call.role)) for call in e.calls))
        for e in public("chatdev")
    )


def coding() -> tuple[Execution, ...]:
    """Stretches of sessions without a pause of over a minute, in which a person was waited for.

    Of 3 to 40 calls of up to 60,000 tokens; the small LLM is mapped to a small one.
    """
    found = [part for session in public("claude_code") for part in stretches(session)]
    return tuple(
        part
        for part in found
        if 3 <= len(part.calls) <= 40 and max(c.prompt_tokens for c in part.calls) <= 60_000
    )[:MAX_STRETCHES]


def stretches(session: Execution) -> Iterator[Execution]:
    calls: list[Call] = []
    end_s = session.start_s
    for call in session.calls:
        if calls and call.start_s > end_s + MAX_PAUSE_S:
            yield Execution(
                ExecutionId(f"{session.id}@{end_s:.0f}"), session.workflow, tuple(calls)
            )
            calls = []
        llm = LlmName("qwen3-8b" if "haiku" in call.llm else "qwen3-30b-a3b")
        calls.append(replace(call, llm=llm))
        end_s = max(end_s, call.end_s)
    yield Execution(ExecutionId(f"{session.id}@{end_s:.0f}"), session.workflow, tuple(calls))


def scenarios(wanted: Sequence[str]) -> Iterator[Scenario]:
    recorded = examples() if not wanted or set(wanted) & {"beam_search", "rag", "both"} else {}
    for name, rates, profiled, served in (
        ("beam_search", {"beam_search": 1.0}, 20_000, 2000),
        ("rag", {"rag_rerank": 1.0}, 12_000, 8000),
        ("both", {"beam_search": 0.5, "rag_rerank": 1.0}, 20_000, 3000),
    ):
        if recorded and (not wanted or name in wanted):
            yield Scenario(
                name=name,
                executions={WorkflowName(n): recorded[WorkflowName(n)] for n in rates},
                rates={WorkflowName(n): rate for n, rate in rates.items()},
                groups=EXAMPLE_GROUPS,
                profiled_calls=profiled,
                served_executions=served,
            )
    for name, load, groups, profiled, served in (
        ("chatdev", chatdev, CHATDEV_GROUPS, 4_000, 760),
        ("coding", coding, CODING_GROUPS, 2_000, 300),
    ):
        if (not wanted or name in wanted) and DATA.exists():
            executions = load()
            workflow = executions[0].workflow
            yield Scenario(
                name=name,
                executions={workflow: executions},
                rates={workflow: 1.0},
                groups=groups,
                profiled_calls=profiled,
                served_executions=served,
            )


def errors(predicted: WorkflowPrediction, served_s: np.ndarray) -> dict[str, float]:
    pairs = (
        ("mean", predicted.execution_s_mean, served_s.mean()),
        ("p95", predicted.execution_s_p95, np.quantile(served_s, 0.95)),
    )
    return {name: round(float(told / seen - 1), 4) for name, told, seen in pairs}


def compared(
    predictions: Sequence[Prediction], name: WorkflowName, served_s: np.ndarray
) -> dict[str, object]:
    found: dict[str, object] = {
        p.predictor: errors(p.workflow(name), served_s) for p in predictions
    }
    return found | {"mean_s": round(float(served_s.mean()), 3)}


def run(scenario: Scenario) -> None:
    began = perf_counter()
    profiles, allocation = scenario.profiles(), scenario.allocation
    profiled = perf_counter()
    unit = pipeline.predict(scenario.rated(1.0), allocation, profiles).workflows[0]
    figures: dict[str, object] = {}
    served_s = 0.0
    for load in LOADS:
        rated = scenario.rated(load * unit.capacity_per_s / unit.rate_per_s)
        predictions: list[Prediction] = [
            each.predict(rated, allocation, profiles) for each in (critical_path, pipeline)
        ]
        start = perf_counter()
        runs = serve(
            [
                Stream(
                    scripts=scripts(scenario.executions[w.rate.workflow]),
                    rate_per_s=w.rate.rate_per_s,
                )
                for w in rated
            ],
            fleet_of(allocation, scenario.specs),
            executions=scenario.served_executions,
            warm_up=scenario.served_executions // 4,
            seed=SEED,
        )
        served_s += perf_counter() - start
        for name in scenario.executions:
            latencies_s = np.array([r.execution_s for r in runs if r.workflow == name])
            figures[f"{name}_at_{load:.0%}"] = compared(predictions, name, latencies_s)
    report(
        "prediction_error",
        repeats=1,
        seed=SEED,
        scenario=scenario.name,
        served_executions=scenario.served_executions,
        profile_s=round(profiled - began, 1),
        serve_s=round(served_s, 1),
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
        served_executions=0,
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
        predictions = [
            each.predict(rated, plan.allocation, profiles) for each in (critical_path, pipeline)
        ]
        figures = {
            f"{name}_at_{predictions[0].workflow(name).stages[0].utilization:.0%}": compared(
                predictions, name, np.array([each.execution_s for each in found])
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
