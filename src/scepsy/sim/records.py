"""Simulated executions as recorded ones: what a gateway would have seen, for every trace tool."""

from scepsy.model.execution import Call, CallId, Endpoint, Execution, ExecutionId
from scepsy.sim.run import ServedExecution


def as_recorded_execution(served: ServedExecution) -> Execution:
    """An execution that has ended, on the clock of the simulation."""
    name = ExecutionId(f"simulated-{served.number:07}")
    calls = []
    for call in served.calls:
        recorded = served.script.segment.calls[call.position]
        prefix_blocks, output_blocks = recorded.copy_blocks(served.number + 1)
        has_tokens = recorded.endpoint in (Endpoint.CHAT, Endpoint.COMPLETION)
        calls.append(
            Call(
                id=CallId(f"{name}-{call.position}"),
                execution=name,
                workflow=call.stage.workflow,
                llm=call.stage.llm,
                role=call.stage.role,
                endpoint=recorded.endpoint,
                start_s=call.start_s,
                first_token_s=call.start_s + call.ttft_s if has_tokens else None,
                end_s=call.end_s,
                prompt_tokens=call.prompt_tokens,
                output_tokens=call.output_tokens,
                cached_tokens=call.cached_tokens,
                replica=call.replica,
                prefix_blocks=prefix_blocks,
                output_blocks=output_blocks,
            )
        )
    return Execution(name, served.workflow, tuple(calls))
