"""Random simulations: executions, fleets, policies and faults.

All durations are sums of powers of two, exact in floating point, so that instants are compared
with ==.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.order import ORDERS
from scepsy.policy.route import POLICIES, MakeRouter
from scepsy.profiles.step_time import EngineSpec
from scepsy.profiles.workload import Segment, WorkloadCall
from scepsy.sim.arrivals import Arrival, OpenLoop
from scepsy.sim.fleet import Fleet, ServedGroup, replica_names
from scepsy.sim.run import Fault, FaultySimulation, ServedExecution
from scepsy.sim.script import Script
from tests.property.made_up_times import DyadicTimes

BLOCK = 4
WORKFLOW = WorkflowName("w")
LLMS = tuple(map(LlmName, "abc"))
TICK_S = 1 / 1024


@dataclass(frozen=True)
class Scene:
    """What arrives where, under which policies, and what breaks."""

    groups: tuple[ServedGroup, ...]
    arrivals: tuple[Arrival, ...]
    route: str
    order: str
    faults: tuple[Fault, ...] = ()

    def fleet(self, make_router: MakeRouter | None = None) -> Fleet:
        return Fleet(self.groups, make_router=make_router or POLICIES[self.route])

    def served(self, fleet: Fleet) -> list[ServedExecution]:
        source = OpenLoop(iter(self.arrivals))
        order = ORDERS[self.order]
        return list(FaultySimulation(source, fleet, self.faults, order=order).run())


@st.composite
def the_scripts(draw: st.DrawFn, llms: Sequence[LlmName], *, shares: bool) -> Script:
    """Chains, fan-outs and joins of calls over several LLMs; prompts grow from shared ones."""
    calls: list[WorkloadCall] = []
    for at in range(draw(st.integers(1, 6))):
        prompt, output = draw(st.integers(0, 32)), draw(st.integers(0, 32))
        family, common = draw(st.integers(0, 2)), draw(st.integers(0, 8))
        ids = [family * 100 + k if k < common else 1000 + at * 100 + k for k in range(16)]
        blocks = tuple(ids[: (prompt + output) // BLOCK]) if shares else ()
        waits_for = draw(st.sets(st.integers(0, at - 1), max_size=2)) if at else ()
        calls.append(
            WorkloadCall(
                prompt_tokens=prompt,
                output_tokens=output,
                blocks=blocks,
                prefix_blocks=min(len(blocks), prompt // BLOCK),
                shared_blocks=min(len(blocks), common),
                waits_for=tuple(sorted(waits_for)),
                after_s=draw(st.integers(0, 400)) * TICK_S,
            )
        )
    stages = tuple(Stage(WORKFLOW, draw(st.sampled_from(llms))) for _ in calls)
    return Script(Segment(tuple(calls)), stages, draw(st.integers(0, 100)) * TICK_S)


@st.composite
def the_groups(draw: st.DrawFn, llms: Sequence[LlmName]) -> tuple[ServedGroup, ...]:
    """Engines that are often too small for what they get."""
    groups = []
    for llm in llms:
        spec = EngineSpec(
            times=DyadicTimes(),
            kv_blocks=draw(st.integers(16, 40)),
            block_tokens=BLOCK,
            max_seqs=draw(st.integers(1, 6)),
            chunk_tokens=draw(st.integers(3, 40)),
            host_blocks=draw(st.sampled_from([0, 12])),
            host_block_s=draw(st.integers(0, 40)) * TICK_S,
        )
        groups.append(ServedGroup(llm, spec, replica_names(llm, draw(st.integers(1, 3)))))
    return tuple(groups)


@st.composite
def the_faults(draw: st.DrawFn, groups: Sequence[ServedGroup]) -> tuple[Fault, ...]:
    """Replicas that die, some again while they are down; each is back in the end."""
    found = []
    for _ in range(draw(st.integers(0, 4))):
        group = draw(st.sampled_from(groups))
        at = draw(st.integers(0, 3000))
        back = at + draw(st.integers(1, 3000))
        name = draw(st.sampled_from(group.replicas))
        found.append(Fault(at * TICK_S, group.llm, name, back * TICK_S))
    return tuple(found)


@st.composite
def scenes(draw: st.DrawFn, *, faulty: bool = True, shares: bool = True) -> Scene:
    llms = LLMS[: draw(st.integers(1, 3))]
    groups = draw(the_groups(llms))
    several = draw(st.lists(the_scripts(llms, shares=shares), min_size=1, max_size=3))
    arrivals, at = [], 0
    for _ in range(draw(st.integers(1, 8))):
        at += draw(st.integers(0, 600))
        arrivals.append(Arrival(at * TICK_S, draw(st.sampled_from(several))))
    return Scene(
        groups,
        tuple(arrivals),
        draw(st.sampled_from(sorted(POLICIES))),
        draw(st.sampled_from(sorted(ORDERS))),
        draw(the_faults(groups)) if faulty else (),
    )
