from collections.abc import Callable

import pytest

from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.workflow import LlmName, Role, WorkflowName

MakeCall = Callable[..., Call]


@pytest.fixture
def make_call() -> MakeCall:
    """A call of workflow w, execution e, LLM m, with a new id, from start to end."""
    made = 0

    def make(start_s: float, end_s: float, **fields: object) -> Call:
        nonlocal made
        made += 1
        values: dict[str, object] = {
            "id": CallId(f"call-{made}"),
            "execution": ExecutionId("e"),
            "workflow": WorkflowName("w"),
            "llm": LlmName("m"),
            "role": Role(""),
            "prompt_tokens": 10,
            "output_tokens": 5,
        }
        return Call(start_s=start_s, end_s=end_s, **{**values, **fields})  # type: ignore[arg-type]

    return make
