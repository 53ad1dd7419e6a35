"""When does the next call come? What is learned of it, on real gaps, against published fits.

Coding-agent sessions (callanjfox/kv-cache-tester) and SWE runs with named tools
(eunomia-bpf/agentcgroup, GPL-2.0: read here only), both on GitHub; SCEPSY_DATA names the folder
that has them. Every other session trains, the rest are reported. All forecasts are of the gap's
start unless said otherwise; what did not return within an hour counts as such for all.

    python -m benchmarks.next_call [accuracy | cost]
"""

import random
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from math import exp
from time import thread_time_ns

import numpy as np

from benchmarks.gaps import scores
from benchmarks.gaps.sessions import DATA, HORIZON_S, Gap, GapId, Session, run, sessions
from benchmarks.host import report
from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.learned import Learned
from scepsy.policy.learned_curve import Forecast
from scepsy.policy.program import ToolName
from scepsy.policy.program_table import CallArrived, CallEnded, Limits, Programs

SETS = ("claude_code", "agentcgroup")
SEED = 1
HINT_ERROR = 0.5
"""Standard deviation of the logarithm of hints that tell something: a factor of 1.6."""
LIVE, EVENTS, WORKFLOWS, TOOLS = 10_000, 30_000, 20, 10


def new_programs(learned: Learned | None = None) -> Programs:
    return Programs(learned, Limits(gap_s=HORIZON_S))


def as_told(told: Sequence[tuple[Gap, Forecast]]) -> scores.Survives:
    """What was forecast of each gap while it was still to come."""
    forecasts = {id(gap): forecast for gap, forecast in told}
    return lambda gap, t: 1 - forecasts[id(gap)].returns_within(t)


def accuracy(name: str) -> dict[str, object]:
    several = sessions(name)
    learned = Learned()
    train = [gap for gap, _ in run(new_programs(learned), several[::2])]
    cold = list(run(new_programs(), several[1::2]))
    test = [gap for gap, _ in cold]

    def frozen(gap: Gap, t: float) -> float:
        return 1 - learned.gap(gap.program, gap.program.gap_start_s).returns_within(t)

    models: Mapping[str, scores.Survives] = {
        "learned": frozen,
        "lognormal_classes_published": scores.published(),
        "lognormal_classes_fitted": scores.fitted(train),
        "global_empirical": scores.empirical(train),
        "exponential": scores.exponential(train),
        "learned_from_nothing": as_told(cold),
    }
    first = [scores.log_score(as_told(cold), gap) for gap in test[:100]]
    return {
        "train": len(train),
        "test": len(test),
        "returned": sum(gap.gap_s is not None for gap in test),
        **{label: scores.summary(survives, test) for label, survives in models.items()},
        "learned_from_nothing_log_score_first_100": round(float(np.mean(first)), 4),
        "hints_log_score_gain": hints_gain(several[1::2], cold),
    }


def hints_gain(several: Sequence[Session], without: Sequence[tuple[Gap, Forecast]]) -> object:
    """Mean gain of the log score by hints of each gap, from the first on: noisy, and shuffled."""
    chance = random.Random(SEED)
    ids: list[GapId] = [(gap.program.execution, gap.program.gap_start_s) for gap, _ in without]
    noisy = [
        max(1e-3, HORIZON_S if gap.gap_s is None else gap.gap_s) * exp(chance.gauss(0, HINT_ERROR))
        for gap, _ in without
    ]
    shuffled = chance.sample(noisy, len(noisy))
    base = mean_log_score(without)
    found = {}
    for label, hints_s in (("noisy", noisy), ("shuffled", shuffled)):
        told = list(run(new_programs(), several, dict(zip(ids, hints_s, strict=True))))
        found[label] = round(mean_log_score(told) - base, 4)
    return found


def mean_log_score(told: Sequence[tuple[Gap, Forecast]]) -> float:
    survives = as_told(told)
    return float(np.mean([scores.log_score(survives, gap) for gap, _ in told]))


def percentiles(times_ns: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times_ns, [50, 99]) / 1e3
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}


def cost() -> dict[str, object]:
    """Decisions and events with many live executions of 20 workflows with 10 tools each.

    Processor time of this thread: others on the machine do not count.
    """
    chance = random.Random(SEED)
    stages = [Stage(WorkflowName(f"workflow-{i}"), LlmName("llm")) for i in range(WORKFLOWS)]
    programs, now_s = Programs(), 0.0

    def call(number: int) -> None:
        execution, stage = ExecutionId(f"execution-{number:08d}"), stages[number % WORKFLOWS]
        tokens = chance.randrange(100_000)
        programs.arrived(
            CallArrived(execution=execution, stage=stage, prompt_tokens=tokens),
            now_s,
        )
        programs.started(execution)
        programs.ended(
            CallEnded(
                execution=execution,
                stage=stage,
                output_tokens=tokens // 100,
                kv_tokens=tokens,
                tool=ToolName(f"tool-{chance.randrange(TOOLS)}"),
                gpu_s=chance.random(),
            ),
            now_s,
        )

    for number in range(WORKFLOWS * TOOLS):  # the learned part is there: below come executions
        call(-number)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(LIVE):
        now_s += 0.01
        call(number)
        call(number)
    bytes_each = (tracemalloc.get_traced_memory()[0] - before) / LIVE
    tracemalloc.stop()
    asked, told = [], []
    for _ in range(EVENTS):
        now_s += chance.expovariate(100.0)
        number = chance.randrange(LIVE)
        program = programs.get(ExecutionId(f"execution-{number:08d}"))
        start = thread_time_ns()
        if program is not None:
            forecast = programs.learned.gap(program, now_s)
            forecast.returns_within(30.0)
            forecast.expected_wait(30.0)
        asked.append(thread_time_ns() - start)
        start = thread_time_ns()
        call(number)
        told.append((thread_time_ns() - start) / 3)
        programs.expire(now_s)
    return {
        "live": len(programs),
        "bytes_per_live_execution": round(bytes_each),
        "forecast_cpu_us": percentiles(asked),
        "event_cpu_us": percentiles(told),
    }


if __name__ == "__main__":
    parts = sys.argv[1:] or ["accuracy", "cost"]
    figures: dict[str, object] = {}
    if "accuracy" in parts:
        if missing := [name for name in SETS if not (DATA / name).exists()]:
            sys.exit(f"there is no {DATA / missing[0]}: set SCEPSY_DATA to the folder that has it")
        figures |= {name: accuracy(name) for name in SETS}
    if "cost" in parts:
        figures["cost"] = cost()
    report("next_call", repeats=1, seed=SEED, **figures)
