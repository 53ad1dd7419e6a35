"""The comparison through the real gateway and emulated engines, beside the simulator.

    python -m benchmarks.programs.over_http [--speedup 15] [policy ...]
    python -m benchmarks.programs.over_http --vllm-router PATH vllm-router vllm-router-programs

With PATH, a ``vllm-router`` that is installed elsewhere stands where the gateway does, with its
cache-aware routing alone or with its scheduling of programs. It has no simulated counterpart.

A small scenario: short coding sessions, two replicas, pressure 2. Prompts are made up, with
the same text wherever recorded blocks were the same. Answers are not streamed, as that would be
most of the work of this machine; a gateway then sees no first tokens, and the simulated dispatcher
is told of none. Nor do engines know here what the dispatcher would keep. Gateway, engines and
clients share one process, so what they cost is in the figures: scaled by the speed-up.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import aiohttp
import orjson
import uvloop

from benchmarks.host import report
from benchmarks.programs.measure import percentile
from benchmarks.programs.scenario import Scenario, Users, spec_of
from benchmarks.programs.sessions import LLM
from benchmarks.programs.vllm_router import calibration, vllm_router
from benchmarks.recorded.replay import body_of
from scepsy.clock import ScaledClock
from scepsy.engines.emulated import EngineServerConfig, start_engine
from scepsy.errors import EngineError
from scepsy.gateway.app import GatewayConfig, start_gateway
from scepsy.gateway.door import DoorLimits
from scepsy.gateway.pool import parse_replicas
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.policy.by_name import PROGRAMS
from scepsy.policy.dispatch import AtOnce, Dispatcher
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.route import POLICIES, CallView, MakeRouter
from scepsy.profiles.workload import Segment, SegmentRun, WorkloadCall
from scepsy.sim.fleet import ServedGroup, replica_names
from scepsy.sim.program_fleet import ProgramFleet
from scepsy.sim.run import Simulation
from scepsy.sim.script import Script

SCENARIO = Scenario(workload="coding", replicas=2, pressure=2.0, half="reporting")
COUNTED = 60
MOST_CALLS = 30
"""Or the longest session alone takes hours of emulated time."""
SEED = 1
_FOREVER_S = 1e9


class Deaf(ByProgram):
    """Sees what a gateway sees of answers that are not streamed."""

    def first_token(self, now_s: float, call: CallView) -> None:
        """It came, and nobody saw it."""


def _at_once(make: MakeRouter) -> Dispatcher:
    return AtOnce(make())


DISPATCHERS: Mapping[str, Callable[[], Dispatcher]] = {
    PROGRAMS: lambda: Deaf(Settings(engines_ask=False)),
    **{name: partial(_at_once, make) for name, make in POLICIES.items()},
}


ROUTERS = {"vllm-router": False, "vllm-router-programs": True}
"""And whether it schedules programs."""


def fine(script: Script) -> Script:
    """With blocks as small as those that gateways hash."""
    parts = SCENARIO.executions.block_tokens // BLOCK_TOKENS

    def split(call: WorkloadCall) -> WorkloadCall:
        return replace(
            call,
            blocks=tuple(block * parts + part for block in call.blocks for part in range(parts)),
            prefix_blocks=call.prefix_blocks * parts,
            shared_blocks=call.shared_blocks * parts,
        )

    return replace(script, segment=Segment(tuple(map(split, script.segment.calls))), tools=())


@dataclass(frozen=True, slots=True)
class Tasks:
    """Task times (s) of the executions that count, and the time from their calls to the answers."""

    tasks_s: tuple[float, ...]
    calls_s: float
    """Summed over the calls of an execution, in the mean."""
    late_ms: float = 0.0
    """By how much calls left late, in real time: this machine's delay."""
    took_s: float = 0.0


def users(scripts: Iterable[Script], seed: int) -> Users:
    return Users(tuple(scripts), users=SCENARIO.users, within_s=SCENARIO.life_s, seed=seed)


def counts(number: int) -> bool:
    return SCENARIO.users <= number < SCENARIO.users + COUNTED


def simulated(policy: str, scripts: Iterable[Script], seed: int) -> Tasks:
    spec = spec_of(SCENARIO.gpu, BLOCK_TOKENS)
    group = ServedGroup(LLM, spec, replica_names(LLM, SCENARIO.replicas))
    fleet = ProgramFleet([group], make_dispatcher=DISPATCHERS[policy])
    found = []
    for execution in Simulation(users(scripts, seed), fleet, on_over=fleet.over).run():
        if counts(execution.number):
            found.append(execution)
        if len(found) == COUNTED:
            break
    calls_s = fmean(sum(call.e2e_s for call in each.calls) for each in found)
    return Tasks(tuple(each.execution_s for each in found), calls_s)


class Client:
    """Users who start executions through a gateway until those that count have ended."""

    def __init__(self, url: str, clock: ScaledClock, source: Users, session: aiohttp.ClientSession):
        self.url, self.clock, self.source, self.session = url, clock, source, session
        self.origin_s = clock.now_s() + clock.speedup
        self.tasks_s: dict[int, float] = {}
        self.calls_s: dict[int, float] = {}
        self.late_s: list[float] = []
        self.changed = asyncio.Event()
        self.is_told_of_programs = False
        """Whether what serves reads them from the body."""

    def now_s(self) -> float:
        return self.clock.now_s() - self.origin_s

    async def sleep_until(self, at_s: float) -> None:
        await asyncio.sleep(self.clock.real_s(at_s - self.now_s()))

    async def run(self) -> None:
        number = 0
        running: set[asyncio.Task[None]] = set()
        try:
            while len(self.tasks_s) < COUNTED:
                self.changed.clear()
                delay_s = self.clock.real_s(self.source.next_s - self.now_s())
                if delay_s > 0:
                    wait = asyncio.create_task(self.changed.wait())
                    await asyncio.wait({wait}, timeout=min(delay_s, 1.0))
                    wait.cancel()
                else:
                    task = asyncio.create_task(self.execution(number, self.source.take().script))
                    running.add(task)
                    number += 1
                for task in [each for each in running if each.done()]:
                    running.remove(task)
                    await task
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def execution(self, number: int, script: Script) -> None:
        start_s, progress, spent_s = self.now_s(), SegmentRun(script.segment), [0.0]

        async def call(position: int, at_s: float) -> None:
            await self.sleep_until(at_s)
            self.late_s.append(self.now_s() - at_s)
            sent_s = self.now_s()
            await self.call(number, script, position)
            spent_s[0] += self.now_s() - sent_s
            release(progress.ended(position))

        def release(positions: Iterable[int]) -> None:
            for position in positions:
                at_s = self.now_s() + script.segment.calls[position].after_s
                group.create_task(call(position, at_s))

        async with asyncio.TaskGroup() as group:
            release(progress.first())
        if counts(number):
            self.tasks_s[number], self.calls_s[number] = self.now_s() - start_s, spent_s[0]
        if not self.is_told_of_programs:
            async with self.session.delete(f"{self.url}/executions/{number}"):
                pass
        self.source.ended(self.now_s())
        self.changed.set()

    async def call(self, number: int, script: Script, position: int) -> None:
        stage = script.stages[position]
        body = body_of(LLM, script.segment.calls[position], number + 1, position)
        headers = {
            "Content-Type": "application/json",
            "x-scepsy-workflow": stage.workflow,
            "x-scepsy-execution": str(number),
            "x-scepsy-role": stage.role,
        }
        if self.is_told_of_programs:
            context = {
                "program_id": str(number),
                "session_id": str(number),
                "expected_resume": position + 1 < len(script.stages),
            }
            told = orjson.dumps({"vllm_xargs": {"agentic_context": context}})
            body = body[:-1] + b"," + told[1:]
        url = f"{self.url}/v1/completions"
        async with self.session.post(url, data=body, headers=headers) as response:
            text = await response.read()
            if response.status != 200:
                raise EngineError(f"{url} answered {response.status}: {text[:300]!r}")


async def over_http(
    policy: str, scripts: Iterable[Script], seed: int, speedup: float, router: Path | None
) -> Tasks:
    import benchmarks.recorded.answer as answers  # noqa: PLC0415 - engines load it from its file

    assert answers.__file__ is not None
    engine = EngineServerConfig(
        llm=LLM,
        spec=spec_of(SCENARIO.gpu, BLOCK_TOKENS),
        speedup=speedup,
        scripts=(Path(answers.__file__),),
        drain_s=0.0,
    )
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(SCENARIO.replicas):
            running = await start_engine(engine)
            stack.push_async_callback(running.stop)
            urls.append(running.url)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        )
        if policy in ROUTERS:
            assert router is not None
            assert engine.spec is not None
            scheduling = calibration(engine.spec, speedup) if ROUTERS[policy] else None
            url = await stack.enter_async_context(
                vllm_router(router, urls, scheduling=scheduling, session=session)
            )
        else:
            gateway = await start_gateway(
                GatewayConfig(
                    replicas=parse_replicas([f"{LLM}={url}" for url in urls]),
                    port=0,
                    speedup=speedup,
                    policy=policy,
                    door=DoorLimits(wait_s=_FOREVER_S),
                    drain_s=0.0,
                )
            )
            stack.push_async_callback(gateway.stop)
            url = gateway.url
        client = Client(url, ScaledClock(speedup), users(scripts, seed), session)
        client.is_told_of_programs = policy in ROUTERS
        began_s = time.monotonic()
        await client.run()
        return Tasks(
            tuple(client.tasks_s.values()),
            fmean(client.calls_s.values()),
            fmean(client.late_s) / speedup * 1e3,
            time.monotonic() - began_s,
        )


def run(policy: str, seed: int, speedup: float, router: Path | None) -> None:
    short = [s for s in SCENARIO.executions.scripts if len(s.stages) <= MOST_CALLS]
    scripts = tuple(map(fine, short))
    http = uvloop.run(over_http(policy, scripts, seed, speedup, router))

    def figures(found: Tasks) -> dict[str, float]:
        return {
            "task_s": round(fmean(found.tasks_s), 1),
            "task_p99_s": round(percentile(found.tasks_s, 0.99), 1),
            "calls_s": round(found.calls_s, 1),
        }

    beside: dict[str, object] = {}
    if policy in DISPATCHERS:
        sim = simulated(policy, scripts, seed)
        off = fmean(http.tasks_s) / fmean(sim.tasks_s) - 1
        beside = {"simulated": figures(sim), "task_s_over_simulated": round(off, 4)}
    report(
        "programs_over_http",
        repeats=1,
        policy=policy,
        scenario=SCENARIO.name,
        half=SCENARIO.half,
        seed=seed,
        users=SCENARIO.users,
        executions=COUNTED,
        speedup=speedup,
        took_s=round(http.took_s, 1),
        call_left_late_ms=round(http.late_ms, 2),
        over_http=figures(http),
        **beside,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = ", ".join([*DISPATCHERS, *ROUTERS])
    parser.add_argument("policy", nargs="*", help=f"some of: {known}")
    parser.add_argument("--speedup", type=float, default=15.0)
    parser.add_argument("--vllm-router", type=Path, help="where vLLM's router is installed")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    for policy in options.policy or DISPATCHERS:
        run(policy, options.seed, options.speedup, options.vllm_router)


if __name__ == "__main__":
    main()
