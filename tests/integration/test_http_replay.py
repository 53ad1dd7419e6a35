"""Recorded executions replayed over HTTP are served as recorded."""

from pathlib import Path

import pytest

from benchmarks.recorded.replay import served
from benchmarks.recorded.scenario import Scenario
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.sim.arrivals import Stream
from scepsy.sim.script import scripts
from scepsy.sim.serve import fleet_of, serve
from scepsy.traces.store import SqliteTraceStore

WORKFLOW, BIG, SMALL = WorkflowName("w"), LlmName("qwen3-8b"), LlmName("qwen3-0.6b")
BLOCKS = tuple(range(1, 41))
SPEEDUP = 4.0
LATE_S = 0.4
"""Scaled; what a call may take here beyond the engine's time before the test fails."""


def call(at: int, llm: LlmName, start_s: float, end_s: float, **fields: object) -> Call:
    values: dict[str, object] = {
        "id": CallId(f"c{at}"),
        "execution": ExecutionId("e"),
        "workflow": WORKFLOW,
        "llm": llm,
        "role": Role(f"role {at}"),
        "start_s": start_s,
        "end_s": end_s,
        "prompt_tokens": 200,
        "output_tokens": 60,
    }
    return Call(**{**values, **fields})


EXECUTION = Execution(
    ExecutionId("e"),
    WORKFLOW,
    (
        call(0, BIG, 0, 1, prompt_tokens=2600, prefix_blocks=BLOCKS, output_blocks=(90,)),
        call(1, SMALL, 2, 4),
        call(2, SMALL, 2, 3),
        call(3, BIG, 6, 7, prompt_tokens=2660, prefix_blocks=(*BLOCKS, 90), output_tokens=30),
    ),
)
"""Two calls at a time follow the first, a gap later, and the last finds the first's answer."""


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(
        name="test",
        executions={WORKFLOW: (EXECUTION,)},
        rates={WORKFLOW: 1.0},
        groups=((SMALL, "h100", 1, 1.0, 1), (BIG, "h100", 1, 1.0, 1)),
        profiled_calls=1,
    )


async def test_order_overlap_gaps_and_cached_prefixes_are_those_of_the_recording(
    scenario: Scenario, tmp_path: Path
) -> None:
    streams = [Stream(scripts=scripts([EXECUTION]), rate_per_s=0.5)]
    async with served(scenario, speedup=SPEEDUP, record=tmp_path / "t.db") as replay:
        runs = await replay.serve(streams, executions=3, warm_up=1, seed=0)
    simulated = serve(
        streams, fleet_of(scenario.allocation, scenario.specs), executions=3, warm_up=1, seed=0
    )
    with SqliteTraceStore.open(tmp_path / "t.db", create=False) as store:
        found = {each.id: each for each in store.executions(WORKFLOW)}
    for run, expected in zip(runs, simulated, strict=True):
        first, *both, last = found[run.id].calls
        assert [c.llm for c in found[run.id].calls] == [BIG, SMALL, SMALL, BIG]
        assert [c.output_tokens for c in found[run.id].calls] == [60, 60, 60, 30]
        assert {c.role for c in both} == {"role_1", "role_2"}
        assert all(0 <= c.start_s - first.end_s - 1 < LATE_S for c in both)
        assert both[1].start_s < both[0].end_s
        assert 0 <= last.start_s - max(c.end_s for c in both) - 2 < LATE_S
        assert last.prefix_blocks[:40] == first.prefix_blocks
        assert last.cached_tokens == expected.calls[-1].cached_tokens == 41 * 64
        late_s = found[run.id].execution_s - expected.execution_s
        assert -0.05 < late_s < 6 * LATE_S
