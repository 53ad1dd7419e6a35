import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise

import pytest
from openai import AsyncOpenAI

from examples.connect import connect
from examples.load import (
    ExecutionRecord,
    Load,
    Planned,
    dealt_tasks,
    paced_instants,
    planned,
    planned_at_rate,
    poisson_instants,
    summary,
)
from examples.registry import WORKFLOWS
from examples.workflow import Run
from scepsy.clock import ScaledClock


@dataclass(frozen=True)
class Done:
    answer: str = "42"
    correct: bool = True


async def at_once(client: AsyncOpenAI, task: int, seed: int) -> Done:
    return Done()


@dataclass(frozen=True)
class Scripted:
    """A workflow whose executions do what the test says."""

    body: Callable[[AsyncOpenAI, int, int], Awaitable[Done]] = at_once
    name: str = "scripted"
    tasks: tuple[str, ...] = ("a", "b", "c")
    models: Mapping[str, str] = field(default_factory=dict)

    def with_models(self, models: Mapping[str, str]) -> "Scripted":
        return self

    async def prepare(self, client: AsyncOpenAI) -> Run:
        return self.body


def load_of(workflow: Scripted, client: AsyncOpenAI, speedup: float = 1000.0) -> Load:
    return Load(client, [workflow], clock=ScaledClock(speedup), label="test")


def test_poisson_instants_have_their_rate() -> None:
    instants = list(poisson_instants(5.0, 2000.0, random.Random(1)))

    assert len(instants) == pytest.approx(10_000, rel=0.03)
    assert all(0 <= a < b < 2000 for a, b in pairwise(instants))


def test_paced_instants_have_equal_gaps() -> None:
    assert list(paced_instants(2.0, 2.0)) == [0.0, 0.5, 1.0, 1.5]


def test_every_task_comes_once_before_any_comes_twice() -> None:
    dealt = list(islice(dealt_tasks(7, random.Random(0)), 28))

    for at in range(0, 28, 7):
        assert sorted(dealt[at : at + 7]) == list(range(7))
    assert dealt[:7] != dealt[7:14]


def test_the_same_seed_plans_the_same_and_another_another() -> None:
    def plan(seed: int) -> tuple[Planned, ...]:
        return planned_at_rate(Scripted(), 1.0, 50.0, seed=seed, paced=False)

    assert plan(3) == plan(3)
    assert plan(3) != plan(4)
    assert len({each.seed for each in plan(3)}) == len(plan(3))


@pytest.mark.timeout(10)
async def test_open_loop_starts_no_execution_late_because_others_still_run() -> None:
    all_started = asyncio.Event()
    started = Counter[int]()

    async def wait_for_the_last(client: AsyncOpenAI, task: int, seed: int) -> Done:
        started[task] += 1
        if started.total() == 6:
            all_started.set()
        await all_started.wait()
        return Done()

    workflow = Scripted(wait_for_the_last)
    async with connect("http://unused") as client:
        plan = planned(workflow, [float(at) for at in range(6)], seed=0)
        records = await load_of(workflow, client).open_loop(plan)

    assert started == {0: 2, 1: 2, 2: 2}
    first = records[0].start_s
    assert [record.start_s - first for record in records] == pytest.approx(range(6), abs=1e-6)
    assert all(record.ok and record.correct for record in records)
    assert all(record.end_s >= records[-1].start_s for record in records)


async def test_closed_loop_keeps_just_so_many_running() -> None:
    running = 0
    seen: list[int] = []

    async def count(client: AsyncOpenAI, task: int, seed: int) -> Done:
        nonlocal running
        running += 1
        seen.append(running)
        await asyncio.sleep(0)
        running -= 1
        return Done()

    workflow = Scripted(count)
    async with connect("http://unused") as client:
        plan = planned(workflow, [0.0] * 12, seed=0)
        records = await load_of(workflow, client).closed_loop(plan, concurrency=3)

    assert max(seen) == 3
    assert len({record.execution for record in records}) == 12
    assert Counter(record.task for record in records) == {"a": 4, "b": 4, "c": 4}


async def test_a_failed_execution_is_recorded_and_the_load_goes_on() -> None:
    async def fail_on_b(client: AsyncOpenAI, task: int, seed: int) -> Done:
        if task == 1:
            raise ConnectionError("refused")
        return Done(correct=False)

    workflow = Scripted(fail_on_b)
    async with connect("http://unused") as client:
        plan = planned(workflow, [0.0] * 3, seed=0)
        records = await load_of(workflow, client).open_loop(plan)

    failed = [record for record in records if not record.ok]
    assert [(record.task, record.error) for record in failed] == [("b", "ConnectionError: refused")]
    assert len(records) == 3


async def test_each_execution_carries_its_own_labels() -> None:
    seen: list[Mapping[str, str]] = []

    async def look(client: AsyncOpenAI, task: int, seed: int) -> Done:
        seen.append({k: str(v) for k, v in client.default_headers.items() if "scepsy" in k})
        return Done()

    workflow = Scripted(look)
    async with connect("http://unused") as client:
        await load_of(workflow, client).open_loop(planned(workflow, [0.0, 0.0], seed=0))

    assert seen == [
        {"x-scepsy-workflow": "scripted", "x-scepsy-execution": "scripted-test-00001"},
        {"x-scepsy-workflow": "scripted", "x-scepsy-execution": "scripted-test-00002"},
    ]


def test_summary_counts_and_times() -> None:
    def record(took_s: float, *, ok: bool = True) -> ExecutionRecord:
        return ExecutionRecord(
            workflow="w", execution="e", task="t", start_s=10.0, end_s=10.0 + took_s, ok=ok
        )

    found = summary([record(1.0), record(3.0), record(99.0, ok=False)])

    assert found == {
        "w": {"executions": 3, "failed": 1, "execution_s_mean": 2.0, "execution_s_p95": 3.0}
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_roles_can_be_given_other_models(name: str) -> None:
    workflow = WORKFLOWS[name]
    role = next(iter(workflow.models))

    changed = workflow.with_models({role: "mine"})

    assert changed.models == {**workflow.models, role: "mine"}
    with pytest.raises(ValueError, match="no role pianist"):
        workflow.with_models({"pianist": "mine"})
