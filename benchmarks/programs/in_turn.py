"""What ``programs`` is worth where LLMs take turns: python -m benchmarks.programs.in_turn

Made-up agents call qwen3-8b with a context that grows, and qwen3-0.6b with something new after each
of those calls. Both take turns on each of two H100s. The contexts of some fit the KV cache and cost
little to compute again; those of others do neither.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from statistics import fmean

from benchmarks.programs.measure import percentile
from scepsy.model.cluster import regular_cluster
from scepsy.model.execution import BLOCK_TOKENS, Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Allocation, Plan, Prediction, ReplicaGroup, WorkflowRate
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.place.pack import Unplaced, pack
from scepsy.policy.by_name import PROGRAMS, find_dispatcher
from scepsy.policy.route import POLICIES, LeastLoaded
from scepsy.profiles.catalog import find_gpu_type
from scepsy.sim.plan_run import Setting, Simulated, simulate_plan
from scepsy.sim.script import scripts
from scepsy.sim.specs import published

WORKFLOW, BIG, SMALL = WorkflowName("agent"), LlmName("qwen3-8b"), LlmName("qwen3-0.6b")
FRACTIONS = {SMALL: 0.1, BIG: 0.8}
RECORDED, COUNTED, WARM_UP = 60, 80, 30
GAP_S = 2.0


@dataclass(frozen=True, slots=True)
class Agents:
    """Contexts begin with one to two times ``least_tokens``, and grow by up to ``more_tokens``."""

    least_tokens: int
    more_tokens: int
    calls: int
    rates_per_s: tuple[float, ...]


AGENTS = {
    "short": Agents(4_000, 2_500, 10, (0.4, 0.6)),
    "long": Agents(25_000, 3_000, 12, (0.08, 0.12, 0.2)),
}


def the_plan() -> Plan:
    """Both LLMs in turn on each GPU."""
    h100 = find_gpu_type("h100")
    cluster = regular_cluster(h100, nodes=2, gpus_per_node=1)
    groups = tuple(
        ReplicaGroup(
            llm=llm, gpu_type=h100.name, tensor_parallel=1, replicas=2, gpu_fraction=fraction
        )
        for llm, fraction in FRACTIONS.items()
    )
    allocation = Allocation(groups, turns=((SMALL, BIG),))
    placement = pack(allocation, cluster)
    assert not isinstance(placement, Unplaced)
    return Plan(
        cluster=cluster,
        rates=(),
        slo=None,
        allocation=allocation,
        placement=placement,
        prediction=Prediction("none", ()),
    )


def executions(agents: Agents) -> Iterator[Execution]:
    """What is run again and again."""
    chance = Random(0)
    for number in range(RECORDED):
        context = agents.least_tokens + chance.randrange(agents.least_tokens)
        calls: list[Call] = []
        at_s = 0.0
        for step in range(agents.calls):
            for llm, tokens, most in ((BIG, context, 300), (SMALL, chance.randint(300, 2000), 200)):
                family = number if llm == BIG else (number + 1) * 1000 + step
                call = Call(
                    id=CallId(f"{number}-{len(calls)}"),
                    execution=ExecutionId(str(number)),
                    workflow=WORKFLOW,
                    llm=llm,
                    start_s=at_s,
                    end_s=at_s + 1,
                    prompt_tokens=tokens,
                    output_tokens=chance.randint(20, most),
                    prefix_blocks=tuple(
                        10**6 * family + at for at in range(tokens // BLOCK_TOKENS)
                    ),
                )
                calls.append(call)
                at_s = call.end_s + chance.expovariate(1 / GAP_S)
            context += chance.randrange(agents.more_tokens)
        yield Execution(ExecutionId(str(number)), WORKFLOW, tuple(calls))


def served(agents: Agents, rate_per_s: float, policy: str) -> Simulated:
    """By one policy, at one rate."""
    setting = Setting(
        rates=(WorkflowRate(WORKFLOW, rate_per_s),),
        make_router=POLICIES.get(policy, LeastLoaded),
        make_dispatcher=find_dispatcher(policy),
        executions=COUNTED,
        warm_up=WARM_UP,
        seed=1,
    )
    recorded = scripts(executions(agents))
    return simulate_plan(the_plan(), {WORKFLOW: recorded}, published, setting)


def row(found: Simulated) -> str:
    """Of a table."""
    tasks_s = [execution.execution_s for execution in found.counted]
    calls = [call for execution in found.counted for call in execution.calls]
    cached = sum(call.cached_tokens for call in calls) / sum(call.prompt_tokens for call in calls)
    ttft_s = percentile([call.ttft_s for call in calls], 0.99)
    tasks = f"{fmean(tasks_s):,.0f} | {percentile(tasks_s, 0.99):,.0f}"
    return f"{tasks} | {ttft_s:,.1f} | {cached:.0%}"


def main() -> None:
    """All of them, as a table."""
    head = "contexts | executions/s | policy | mean task time (s) | p99 (s) | p99 TTFT (s) | cached"
    sys.stdout.write(f"| {head} |\n|---|---|---|---|---|---|---|\n")
    for name, agents in AGENTS.items():
        for rate_per_s in agents.rates_per_s:
            for policy in ("least-loaded", "prefix-aware", PROGRAMS):
                figures = row(served(agents, rate_per_s, policy))
                sys.stdout.write(f"| {name} | {rate_per_s:g} | `{policy}` | {figures} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
