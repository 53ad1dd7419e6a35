"""Send executions of example workflows to an endpoint: at a rate, or so many at a time.

    python -m examples.load --workflow beam_search --rate 0.5 --duration 120
    python -m examples.load --workflow beam_search --concurrency 4 --executions 40

Open loop (``--rate``): executions start at instants drawn beforehand, and no slowness of the
system delays one. Closed loop (``--concurrency``): the next starts when one ends. Tasks are dealt
in shuffled full passes, so that every task comes once before any comes twice. All times are those
of the scaled clock: with ``--speedup 20`` a second here is a twentieth of a real one.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from uuid import uuid4

import uvloop
from openai import AsyncOpenAI, OpenAIError

from examples.cli import add_endpoint_options, parse_models
from examples.connect import as_execution, connect
from examples.registry import WORKFLOWS
from examples.workflow import ExampleWorkflow, Run
from scepsy.clock import ScaledClock


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """One execution as its user saw it. Instants are seconds of the scaled clock."""

    workflow: str
    execution: str
    task: str
    start_s: float
    """When it was due; open loop: whether or not the driver was in time."""
    end_s: float
    ok: bool
    """Ran to its end; the answer may still be wrong."""
    correct: bool = False
    error: str | None = None

    @property
    def execution_s(self) -> float:
        """Execution latency, tool gaps included."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One execution to come."""

    workflow: str
    task: int
    seed: int
    at_s: float = 0.0
    """After the start of the load (s); closed loop: not used."""


def poisson_instants(rate_per_s: float, duration_s: float, rng: random.Random) -> Iterator[float]:
    """Instants of a Poisson process in [0, duration)."""
    at_s = rng.expovariate(rate_per_s)
    while at_s < duration_s:
        yield at_s
        at_s += rng.expovariate(rate_per_s)


def paced_instants(rate_per_s: float, duration_s: float) -> Iterator[float]:
    """Instants in [0, duration) with equal gaps."""
    count = 0
    while count / rate_per_s < duration_s:
        yield count / rate_per_s
        count += 1


def dealt_tasks(tasks: int, rng: random.Random) -> Iterator[int]:
    """Indices of tasks without end, in shuffled full passes."""
    while True:
        order = list(range(tasks))
        rng.shuffle(order)
        yield from order


def planned(
    workflow: ExampleWorkflow, instants: Sequence[float], *, seed: int
) -> tuple[Planned, ...]:
    """An execution for each instant, with tasks dealt and seeds drawn from ``seed``."""
    rng = random.Random(f"{seed}/{workflow.name}/tasks")
    dealt = islice(dealt_tasks(len(workflow.tasks), rng), len(instants))
    return tuple(
        Planned(workflow=workflow.name, task=task, seed=rng.getrandbits(31), at_s=at_s)
        for at_s, task in zip(instants, dealt, strict=True)
    )


def planned_at_rate(
    workflow: ExampleWorkflow, rate_per_s: float, duration_s: float, *, seed: int, paced: bool
) -> tuple[Planned, ...]:
    """Executions of one workflow at a rate, for a duration."""
    rng = random.Random(f"{seed}/{workflow.name}/arrivals")
    if paced:
        instants = list(paced_instants(rate_per_s, duration_s))
    else:
        instants = list(poisson_instants(rate_per_s, duration_s, rng))
    return planned(workflow, instants, seed=seed)


class Load:
    """Runs planned executions against one endpoint.

    Args:
        client: Shared by all executions; not closed here.
        workflows: Those that the plans name.
        clock: What is slept by and recorded in.
        label: Part of every execution's id; differs between loads that share a recorder.
        on_end: Called with every record as it is made, e.g. to move a progress bar.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        workflows: Sequence[ExampleWorkflow],
        *,
        clock: ScaledClock,
        label: str,
        on_end: Callable[[ExecutionRecord], None] | None = None,
    ) -> None:
        self._client = client
        self._workflows = {workflow.name: workflow for workflow in workflows}
        self._clock = clock
        self._label = label
        self._on_end = on_end
        self._count = 0
        self._runs: dict[str, Run] = {}

    async def prepare(self) -> None:
        """Do once what executions share. The load does it itself if it was not done before."""
        for name, workflow in self._workflows.items():
            if name not in self._runs:
                self._runs[name] = await workflow.prepare(self._client)

    async def open_loop(self, plan: Sequence[Planned]) -> tuple[ExecutionRecord, ...]:
        """Start each execution at its instant, whatever the others do; records in that order."""
        await self.prepare()
        origin_s = self._clock.now_s()
        running: list[asyncio.Task[ExecutionRecord]] = []
        for each in sorted(plan, key=lambda each: each.at_s):
            due_s = origin_s + each.at_s
            wait_s = self._clock.real_s(due_s - self._clock.now_s())
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            running.append(asyncio.create_task(self._run(each, due_s)))
        return tuple(await asyncio.gather(*running))

    async def closed_loop(
        self, plan: Iterable[Planned], *, concurrency: int
    ) -> tuple[ExecutionRecord, ...]:
        """Keep so many executions running until all have run; records by their end.

        The next is taken from the plan when one ends, so the plan may decide then that it is over.
        """
        await self.prepare()
        waiting = iter(plan)
        records: list[ExecutionRecord] = []

        async def keep_running() -> None:
            for each in waiting:
                records.append(await self._run(each, self._clock.now_s()))

        await asyncio.gather(*(keep_running() for _ in range(concurrency)))
        return tuple(records)

    async def _run(self, each: Planned, start_s: float) -> ExecutionRecord:
        workflow = self._workflows[each.workflow]
        self._count += 1
        execution = f"{workflow.name}-{self._label}-{self._count:05d}"
        client = as_execution(self._client, workflow.name, execution)
        correct, error = False, None
        try:
            correct = (await self._runs[workflow.name](client, each.task, each.seed)).correct
        except Exception as failure:  # noqa: BLE001 - the top of a task: the load goes on
            error = _reason(failure)
        record = ExecutionRecord(
            workflow=workflow.name,
            execution=execution,
            task=workflow.tasks[each.task],
            start_s=start_s,
            end_s=self._clock.now_s(),
            ok=error is None,
            correct=correct,
            error=error,
        )
        if self._on_end is not None:
            self._on_end(record)
        return record


def _reason(failure: Exception) -> str:
    cause = failure.__cause__ if isinstance(failure, OpenAIError) else None
    because = f" ({cause})" if cause and str(cause) else ""
    return f"{type(failure).__name__}: {failure}{because}"


def summary(records: Sequence[ExecutionRecord]) -> Mapping[str, Mapping[str, float]]:
    """Counts and execution latency (s) for each workflow."""
    found: dict[str, Mapping[str, float]] = {}
    for name in sorted({record.workflow for record in records}):
        own = [record for record in records if record.workflow == name]
        took = sorted(record.execution_s for record in own if record.ok)
        found[name] = {"executions": len(own), "failed": sum(not record.ok for record in own)}
        if took:
            found[name] = {
                **found[name],
                "execution_s_mean": sum(took) / len(took),
                "execution_s_p95": took[min(int(0.95 * len(took)), len(took) - 1)],
            }
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.load", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--workflow", action="append", choices=list(WORKFLOWS), help="repeatable; default all"
    )
    parser.add_argument("--rate", type=float, help="executions/s of each workflow (open loop)")
    parser.add_argument("--duration", type=float, default=60.0, help="of arrivals at --rate (s)")
    parser.add_argument("--paced", action="store_true", help="equal gaps in place of Poisson")
    parser.add_argument("--concurrency", type=int, default=1, help="executions at a time")
    parser.add_argument("--executions", type=int, default=10, help="of each workflow (closed loop)")
    parser.add_argument("--speedup", type=float, default=1.0, help="that of the emulated engines")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals, tasks and answers")
    parser.add_argument(
        "--model", action="append", default=[], metavar="WORKFLOW.ROLE=NAME", help="repeatable"
    )
    add_endpoint_options(parser)
    return parser.parse_args(arguments)


def _workflows(options: argparse.Namespace) -> list[ExampleWorkflow]:
    models = parse_models(options.model)
    return [
        WORKFLOWS[name].with_models(
            {
                key.removeprefix(f"{name}."): model
                for key, model in models.items()
                if key.startswith(f"{name}.")
            }
        )
        for name in options.workflow or WORKFLOWS
    ]


async def run(options: argparse.Namespace) -> tuple[ExecutionRecord, ...]:
    """Run the load that the options ask for, and print each record as it is made."""
    workflows = _workflows(options)
    async with connect(options.base_url, options.api_key) as client:
        load = Load(
            client,
            workflows,
            clock=ScaledClock(options.speedup),
            label=uuid4().hex[:8],
            on_end=lambda record: print(json.dumps(asdict(record)), flush=True),
        )
        if options.rate is not None:
            plans = [
                planned_at_rate(
                    each, options.rate, options.duration, seed=options.seed, paced=options.paced
                )
                for each in workflows
            ]
            return await load.open_loop([each for plan in plans for each in plan])
        instants = [float(at) for at in range(options.executions)]
        plans = [planned(each, instants, seed=options.seed) for each in workflows]
        mixed = [each for turn in zip(*plans, strict=True) for each in turn]
        return await load.closed_loop(mixed, concurrency=options.concurrency)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load; records on stdout, a summary on stderr. Gives 1 if an execution failed."""
    with suppress(KeyboardInterrupt):
        records = uvloop.run(run(parse(arguments)))
        print(json.dumps(summary(records), indent=2), file=sys.stderr)
        return int(any(not record.ok for record in records))
    return 130


if __name__ == "__main__":
    sys.exit(main())
