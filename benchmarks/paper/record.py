"""Record the example workflows: their own code, one execution after the other, in virtual time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.paper.virtual import VirtualEngines, VirtualTransport, client_of, run_virtually
from examples.connect import as_execution
from examples.load import planned
from examples.workflow import ExampleWorkflow
from scepsy.engines.script import load_script
from scepsy.model.execution import Call, Execution, ExecutionId
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.silicon import engine_spec, tensor_parallels
from scepsy.profiles.step_time import EngineSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
GPU = "h100"


def record(workflow: ExampleWorkflow, *, executions: int, seed: int) -> tuple[Execution, ...]:
    """Executions of a workflow on one idle replica of each of its LLMs, on the fewest GPUs.

    Tasks are dealt as a load does; another seed gives other tasks first and other answers.
    """
    return run_virtually(lambda: _record(workflow, executions, seed))


async def _record(workflow: ExampleWorkflow, executions: int, seed: int) -> tuple[Execution, ...]:
    engines = VirtualEngines(_specs(workflow))
    scripts = [load_script(EXAMPLES / workflow.name / "emulated.py")]
    async with client_of(VirtualTransport(engines, scripts, seed)) as client:
        run = await workflow.prepare(client)
        for at, each in enumerate(planned(workflow, [0.0] * executions, seed=seed)):
            name = f"{workflow.name}-{seed}-{at:04d}"
            await run(as_execution(client, workflow.name, name), each.task, each.seed)
    return _executions(WorkflowName(workflow.name), engines.calls)


def _specs(workflow: ExampleWorkflow) -> Mapping[LlmName, EngineSpec]:
    return {
        LlmName(llm): engine_spec(llm, GPU, tensor_parallel=tensor_parallels(llm, GPU)[0])
        for llm in sorted(set(workflow.models.values()))
    }


def _executions(workflow: WorkflowName, calls: Sequence[Call]) -> tuple[Execution, ...]:
    by_execution: dict[ExecutionId, list[Call]] = {}
    for call in calls:
        if call.workflow == workflow:
            by_execution.setdefault(call.execution, []).append(call)
    return tuple(
        Execution(name, workflow, tuple(sorted(own, key=_start)))
        for name, own in by_execution.items()
    )


def _start(call: Call) -> tuple[float, int]:
    return call.start_s, int(call.id)
