"""Write a program that passes its tests: plan, write, run the tests, review, write again.

The planner is asked once. Then coder, tests and reviewer take turns until the tests pass and the
reviewer approves, or the attempts are used up. The tests are really run, between calls.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from examples.coding_agent.sandbox import TestRun, run_tests
from examples.connect import chat
from examples.workflow import Run, replaced

PLANNER_PROMPT = (
    "You plan small Python programs. List in at most five short points how to solve the task: the "
    "approach, the data kept, and the special cases that are easily forgotten. No code."
)
CODER_PROMPT = (
    "You write small Python programs. Reply with the whole module in one ```python block and "
    "nothing else. Use the standard library only."
)
REVIEWER_PROMPT = (
    "You review small Python programs. Given a program and the outcome of its tests, say what is "
    "wrong and how to mend it. If the tests pass and nothing needs to change, reply APPROVE alone."
)
MODELS = {"planner": "qwen3-32b", "coder": "qwen3-32b", "reviewer": "qwen3-8b"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to write, and the program that says whether it is right."""

    id: str
    text: str
    tests: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """When to give up, and how long answers may be."""

    attempts: int = 5
    """Programs written, at most."""
    plan_max_tokens: int = 300
    code_max_tokens: int = 800
    review_max_tokens: int = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult:
    """The last program, and what it took."""

    task: str
    answer: str
    correct: bool
    """The last program passes its tests."""
    attempts: int
    approved: bool


async def run(
    client: AsyncOpenAI,
    task: Task,
    *,
    models: Mapping[str, str] = MODELS,
    config: AgentConfig | None = None,
    seed: int = 0,
) -> AgentResult:
    """Solve one task."""
    agent = _Agent(client, models, seed)
    config = config or AgentConfig()
    asked = f"Task: {task.text}"
    plan = await agent.ask("planner", config.plan_max_tokens, _opening(PLANNER_PROMPT, asked))
    talk = _opening(CODER_PROMPT, f"{asked}\n\nPlan:\n{plan}")
    program, tested, approved, attempt = "", TestRun(False, "not run"), False, 0
    while attempt < config.attempts and not approved:
        attempt += 1
        reply = await agent.ask("coder", config.code_max_tokens, talk, attempt=attempt)
        program = parse_program(reply)
        tested = await run_tests(program, task.tests)
        outcome = "The tests pass." if tested.passed else f"The tests fail:\n{tested.output}"
        shown = f"{asked}\n\nProgram:\n{program}\n\n{outcome}"
        review = await agent.ask(
            "reviewer",
            config.review_max_tokens,
            _opening(REVIEWER_PROMPT, shown),
            attempt=attempt,
        )
        approved = tested.passed and review.strip().upper().startswith("APPROVE")
        talk += [
            {"role": "assistant", "content": reply},
            {"role": "user", "content": f"{outcome}\n\nReview:\n{review}\n\nWrite it again."},
        ]
    return AgentResult(
        task=task.id,
        answer=program,
        correct=tested.passed,
        attempts=attempt,
        approved=approved,
    )


def parse_program(reply: str) -> str:
    """The first code block of a reply; the whole reply where there is none."""
    found = re.search(r"```(?:python|py)?\s*\n(.*?)(?:```|\Z)", reply, re.DOTALL)
    return found[1] if found else reply


@dataclass(frozen=True, slots=True)
class _Agent:
    client: AsyncOpenAI
    models: Mapping[str, str]
    seed: int

    async def ask(
        self,
        role: str,
        max_tokens: int,
        messages: list[ChatCompletionMessageParam],
        *,
        attempt: int = 0,
    ) -> str:
        """One answer of the LLM in a role."""
        return await chat(
            self.client,
            role=role,
            model=self.models[role],
            messages=messages,
            max_tokens=max_tokens,
            seed=self.seed + attempt,
        )


def _opening(system: str, user: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def read_tasks() -> tuple[Task, ...]:
    """The shipped tasks."""
    found = tomllib.loads((Path(__file__).parent / "tasks.toml").read_text(encoding="utf-8"))
    return tuple(
        Task(id=each["id"], text=each["text"], tests=each["tests"]) for each in found["task"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodingAgent:
    """The coding agent as an example workflow."""

    models: Mapping[str, str] = field(default_factory=lambda: MODELS)
    config: AgentConfig = field(default_factory=AgentConfig)
    problems: tuple[Task, ...] = field(default_factory=read_tasks)
    name: str = "coding_agent"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of the tasks."""
        return tuple(task.id for task in self.problems)

    def with_models(self, models: Mapping[str, str]) -> "CodingAgent":
        """The same with other LLMs for the roles given."""
        return replace(self, models=replaced(self.models, models))

    async def prepare(self, _client: AsyncOpenAI) -> Run:
        """Nothing is shared between executions."""

        async def run_one(client: AsyncOpenAI, task: int, seed: int) -> AgentResult:
            return await run(
                client, self.problems[task], models=self.models, config=self.config, seed=seed
            )

        return run_one
