"""Runs of the multi-agent workflow ChatDev (OpenBMB/ChatDev), from its logs: one run a line.

What the logs leave open is filled in here, and only here:

* No model is named (in all but one run), so all calls get one LLM name.
* A step may have no role. Such a step opens an exchange that the next step with a role answers,
  so it gets that step's peer; before the first exchange it is ChatDev's ``Prompt Engineer``, who
  rewrites the task; with no later exchange it is ``unknown``.
* A step may have no send time. Its duration is assumed from its output tokens.
"""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field

from scepsy.errors import InputError
from scepsy.model.execution import Call, CallId, ExecutionId
from scepsy.model.workflow import LlmName, Role, WorkflowName
from scepsy.traces.readers.source import LineFormat, LineParser, Naming

WORKFLOW = WorkflowName("chatdev")
LLM = LlmName("chatdev")
PROMPT_ENGINEER = Role("Prompt Engineer")
UNKNOWN = Role("unknown")

ASSUMED_OUTPUT_TOKENS_PER_S = 21.0
"""For steps without a send time: the median of those with one and over 200 output tokens."""
ASSUMED_MIN_STEP_S = 1.0
"""The median of timed steps with under 10 output tokens; the logs' resolution is 1 s."""


class _Step(BaseModel):
    t_send: float | None = Field(default=None, ge=0)
    t_recv: float = Field(ge=0)
    prompt: int = Field(alias="in", ge=0)
    output: int = Field(alias="out", ge=0)
    role: str | None = None
    peer: str | None = None


class _Run(BaseModel):
    session: str = Field(min_length=1)
    steps: list[_Step]


def _parser(naming: Naming) -> LineParser:
    def parse(line: bytes) -> Sequence[Call]:
        return sorted(_calls(_Run.model_validate_json(line), naming), key=lambda c: c.start_s)

    return parse


FORMAT = LineFormat(name="chatdev", has_keys=frozenset({"session", "steps"}), parser=_parser)


def _calls(run: _Run, naming: Naming) -> Iterator[Call]:
    if not run.steps:
        raise InputError(f"run {run.session} has no steps")
    workflow = naming.workflow or WORKFLOW
    earlier_s = 0.0
    for number, (step, role) in enumerate(zip(run.steps, _roles(run.steps), strict=True)):
        yield Call(
            id=CallId(f"{workflow}/{run.session}/{number}"),
            execution=ExecutionId(run.session),
            workflow=workflow,
            llm=naming.llm or LLM,
            role=role,
            start_s=_start_s(step, earlier_s),
            end_s=step.t_recv,
            prompt_tokens=step.prompt,
            output_tokens=step.output,
        )
        earlier_s = step.t_recv


def _start_s(step: _Step, earlier_s: float) -> float:
    """When a step was sent; where not logged, not before the step before it was answered."""
    if step.t_send is not None:
        return step.t_send
    assumed_s = max(ASSUMED_MIN_STEP_S, step.output / ASSUMED_OUTPUT_TOKENS_PER_S)
    return min(step.t_recv, max(earlier_s, step.t_recv - assumed_s))


def _roles(steps: Sequence[_Step]) -> Sequence[Role]:
    """The role of each step, from what follows where it has none."""
    first = next((at for at, step in enumerate(steps) if step.role), len(steps))
    roles: list[Role] = []
    answered_by: _Step | None = None
    for at in range(len(steps) - 1, -1, -1):
        if role := steps[at].role:
            answered_by = steps[at]
            roles.append(Role(role))
        elif answered_by is None:
            roles.append(UNKNOWN)
        elif at < first:
            roles.append(PROMPT_ENGINEER)
        else:
            roles.append(Role(answered_by.peer or UNKNOWN))
    return roles[::-1]
