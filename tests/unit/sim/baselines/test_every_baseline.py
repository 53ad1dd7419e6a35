"""What holds for all baselines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.errors import InputError, UnknownNameError
from scepsy.model.cluster import Cluster, GpuType, GpuTypeName, regular_cluster
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.place.pack import Unplaced, pack
from scepsy.policy.order import oldest_execution
from scepsy.sim.arrivals import OpenLoop, Stream
from scepsy.sim.baselines.base import System, Task
from scepsy.sim.baselines.registry import BASELINES, find_baseline
from scepsy.sim.run import Simulation, steady
from scepsy.sim.script import Script, scripts
from tests.unit.sim.baselines.made_up import BOTH, H100, TENTHS, WHOLE, Llm, made_task

OF_LLMS = {
    name: BASELINES[name] for name in ("even", "independent", "muxserve", "published", "user-given")
}
made_llms = st.builds(
    Llm,
    call_s=st.floats(0.01, 3.0),
    share=st.floats(0.01, 1.0),
    shapes=st.sampled_from((WHOLE, TENTHS, BOTH, ((2, 1.0), (4, 1.0)))),
)
tasks = st.builds(
    lambda llms, gpus, rate: made_task(
        {"w": dict(zip("abc", llms, strict=False))},
        gpus=gpus[0] * gpus[1],
        nodes=gpus[0],
        rate_per_s=rate,
    ),
    st.lists(made_llms, min_size=1, max_size=3),
    st.sampled_from(((1, 1), (1, 2), (1, 4), (2, 4), (1, 6), (3, 3))),
    st.floats(0.1, 10.0),
)


@pytest.mark.no_cover
@settings(max_examples=15, deadline=None)
@given(tasks)
def test_no_system_takes_more_than_there_is_or_what_cannot_be_placed(task: Task) -> None:
    for baseline in OF_LLMS.values():
        for system in baseline(task):
            assert system.gpus <= task.gpus + 1e-9
            assert system.allocation is not None
            assert not isinstance(pack(system.allocation, task.cluster), Unplaced)
            assert {group.llm for group in system.allocation.groups} == {
                stage.stage.llm for stage in task.demands[0].stages
            }


@pytest.mark.parametrize("name", OF_LLMS)
def test_a_load_beyond_all_capacity_still_gets_its_best_attempt(name: str) -> None:
    task = made_task({"w": {"a": Llm(50.0, shapes=BOTH), "b": Llm(5.0, shapes=BOTH)}}, gpus=4)

    assert OF_LLMS[name](task)


@pytest.mark.parametrize("name", OF_LLMS)
def test_what_fits_nowhere_has_no_system(name: str) -> None:
    assert OF_LLMS[name](made_task({"w": {"a": Llm(0.1, shapes=((4, 1.0),))}}, gpus=2)) == ()


@pytest.mark.parametrize("name", OF_LLMS)
def test_all_executions_go_through_and_each_simulation_starts_idle(name: str) -> None:
    task = made_task({"w": {"a": Llm(0.3, 0.7, BOTH), "b": Llm(0.1, 0.3, BOTH)}}, gpus=4)

    for system in OF_LLMS[name](task):
        first, again = run(system), run(system)

        assert first == again
        assert all(0.19 < s < 10 for s in first)  # 20 steps of 10 ms at least
        assert (system.order is oldest_execution) == (name == "user-given")


def run(system: System) -> list[float]:
    """Latencies of executions."""
    stream = Stream(scripts=(a_script(),), rate_per_s=1.0)
    simulation = Simulation(OpenLoop(stream.arrivals(1)), system.make(), order=system.order)
    return [served.execution_s for served in steady(simulation, executions=5, warm_up=1)]


def a_script() -> Script:
    calls = tuple(
        Call(
            id=CallId(llm),
            execution=ExecutionId("e"),
            workflow=WorkflowName("w"),
            llm=LlmName(llm),
            start_s=at,
            end_s=at + 1,
            prompt_tokens=10,
            output_tokens=10,
        )
        for at, llm in enumerate("ab")
    )
    return scripts([Execution(ExecutionId("e"), WorkflowName("w"), calls)])[0]


def test_baselines_are_found_by_name() -> None:
    assert find_baseline("even") is BASELINES["even"]
    with pytest.raises(UnknownNameError, match="baseline"):
        find_baseline("evn")


def test_mixed_gpu_types_are_refused() -> None:
    a100 = GpuType(name=GpuTypeName("a100"), memory_bytes=1)
    gpus = regular_cluster(H100, nodes=1, gpus_per_node=1).gpus
    others = regular_cluster(a100, nodes=2, gpus_per_node=1).gpus[1:]
    task = made_task({"w": {"a": Llm(0.1)}}, gpus=1)

    with pytest.raises(InputError, match="one GPU type"):
        _ = Task(
            demands=task.demands,
            profiles=task.profiles,
            cluster=Cluster(gpus + others, (H100, a100)),
            rates=task.rates,
            spec_of=task.spec_of,
        ).gpu_type
