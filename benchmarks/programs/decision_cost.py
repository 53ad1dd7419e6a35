"""What a decision of the program dispatcher costs: python -m benchmarks.programs.decision_cost

So many executions are live on so many replicas, two fifths of them with a call that waits or runs,
and contexts need four times the KV that there is. Timed is processor time: of an arrival with what
goes then, and of an end with what goes then. That may be many calls, which waited for one that did
not fit; so the same is told for each call, an event's time being shared by all that go. Then what
a gateway asks after each event: when to look again. Python's collector of cycles is left as it is.
Memory is what there is more of when the dispatcher knows all of them.
"""

import gc
import random
import tracemalloc
from collections.abc import Sequence
from time import process_time_ns

import numpy as np

from benchmarks.host import report
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.program import ToolName
from scepsy.policy.route import CallView

LIVE, IN_FLIGHT, REPLICAS, EVENTS, SEED = 10_000, 4_000, 64, 20_000, 1
BLOCK_TOKENS, KV_TOKENS, GROWTH_TOKENS = 64, 508_000, 512
CAPACITY = Capacity(
    kv_tokens=KV_TOKENS,
    seqs=256,
    prompt_token_s=6e-5,
    context_token_s=1e-9,
    decode_s=0.02,
    block_tokens=BLOCK_TOKENS,
)
MOST_TOKENS = 4 * KV_TOKENS * REPLICAS // LIVE * 2


class Load:
    """Executions that call in a random order; calls end in the order in which they went."""

    def __init__(self) -> None:
        self.dispatcher = ByProgram()
        for number in range(REPLICAS):
            self.dispatcher.joined(0.0, ReplicaName(f"replica-{number}"), CAPACITY)
        self.chance = random.Random(SEED)
        self.now_s, self.calls = 0.0, 0
        self.chains: dict[int, tuple[int, ...]] = {
            number: (number << 32,) for number in range(LIVE)
        }
        self.idle = list(range(LIVE))
        self.running: list[CallView] = []
        self.arrived_ns: list[int] = []
        self.ended_ns: list[int] = []
        self.each_ns: list[float] = []
        self.asked_ns: list[int] = []
        self.most_at_once = 0

    def arrive(self) -> None:
        number = self.idle.pop(self.chance.randrange(len(self.idle)))
        blocks = len(self.chains[number]) + GROWTH_TOKENS // BLOCK_TOKENS
        if blocks * BLOCK_TOKENS > MOST_TOKENS or len(self.chains[number]) == 1:
            blocks = self.chance.randrange(8, MOST_TOKENS // BLOCK_TOKENS)
        chain = self.chains[number] = tuple(range(number << 32, (number << 32) + blocks))
        view = CallView(
            execution=ExecutionId(f"execution-{number:08d}"),
            workflow=WorkflowName(f"workflow-{number % 20}"),
            role=Role("agent"),
            prompt_tokens=blocks * BLOCK_TOKENS + 1,
            prefix_blocks=chain,
            id=str(self.calls),
        )
        self.calls += 1
        start_ns = process_time_ns()
        self.dispatcher.arrived(self.now_s, view)
        gone = self.dispatcher.take(self.now_s)
        self.arrived_ns.append(process_time_ns() - start_ns)
        self._went(gone, self.arrived_ns[-1])

    def end(self) -> None:
        view = self.running.pop(0)
        result = CallResult(
            output_tokens=200,
            cached_tokens=view.prompt_tokens - 1,
            tool=ToolName(f"tool-{self.chance.randrange(10)}"),
        )
        start_ns = process_time_ns()
        self.dispatcher.first_token(self.now_s, view)
        self.dispatcher.ended(self.now_s, view, result)
        gone = self.dispatcher.take(self.now_s)
        self.ended_ns.append(process_time_ns() - start_ns)
        self._went(gone, self.ended_ns[-1])
        self.idle.append(int(view.execution.removeprefix("execution-")))

    def _went(self, gone: list[Dispatch], took_ns: int) -> None:
        self.each_ns += [took_ns / max(1, len(gone))] * max(1, len(gone))
        self.most_at_once = max(self.most_at_once, len(gone))
        self.running += [each.call for each in gone]
        start_ns = process_time_ns()
        _ = self.dispatcher.next_s
        self.asked_ns.append(process_time_ns() - start_ns)

    def forget_times(self) -> None:
        for times in (self.arrived_ns, self.ended_ns, self.each_ns, self.asked_ns):
            times.clear()
        self.most_at_once = 0

    def run(self, events: int) -> None:
        for _ in range(events):
            self.now_s += self.chance.expovariate(REPLICAS)
            if not self.running or LIVE - len(self.idle) < IN_FLIGHT:
                self.arrive()
            else:
                self.end()


def clock_ns() -> float:
    """What asking for the time takes, which is part of what is timed."""
    start_ns = process_time_ns()
    for _ in range(1000):
        process_time_ns()
    return (process_time_ns() - start_ns) / 1000


def percentiles_us(times_ns: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times_ns, [50, 99]) / 1e3
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}


def main() -> None:
    gc.collect()
    tracemalloc.start()
    load = Load()
    before = tracemalloc.get_traced_memory()[0]
    load.run(4 * LIVE)
    load.forget_times()
    chains = sum(64 + 40 * len(chain) for chain in load.chains.values())
    gc.collect()
    bytes_live = tracemalloc.get_traced_memory()[0] - before - chains
    tracemalloc.stop()
    load.run(EVENTS)
    report(
        "program_decision_cost",
        repeats=1,
        live=load.dispatcher.live_executions,
        waiting=IN_FLIGHT - len(load.running),
        replicas=REPLICAS,
        clock_us=round(clock_ns() / 1e3, 1),
        arrival=percentiles_us(load.arrived_ns),
        end=percentiles_us(load.ended_ns),
        each_call=percentiles_us(load.each_ns),
        next_look=percentiles_us(load.asked_ns),
        most_at_once=load.most_at_once,
        kib_per_live_at_most=round(bytes_live / load.dispatcher.live_executions / 1024, 2),
    )


if __name__ == "__main__":
    main()
