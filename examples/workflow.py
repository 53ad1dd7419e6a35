"""What every example workflow offers to those who run it."""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from openai import AsyncOpenAI


class Result(Protocol):
    """What one execution gave. The workflows add counts of their own."""

    @property
    def answer(self) -> str:
        """The answer, as a person would read it."""
        ...

    @property
    def correct(self) -> bool:
        """Whether the answer is the one that the task's author expects."""
        ...


Run = Callable[[AsyncOpenAI, int, int], Awaitable[Result]]
"""Runs one execution: client (labelled as that execution), index of the task, seed."""


class ExampleWorkflow(Protocol):
    """A workflow with tasks to run it on."""

    @property
    def name(self) -> str:
        """Its name in recordings and plans."""
        ...

    @property
    def models(self) -> Mapping[str, str]:
        """The LLM of each role."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """The ids of the tasks."""
        ...

    def with_models(self, models: Mapping[str, str]) -> "ExampleWorkflow":
        """The same with other LLMs for the roles given."""
        ...

    async def prepare(self, client: AsyncOpenAI) -> Run:
        """Do once what all executions share, such as an index, and give what runs one."""
        ...


def replaced(models: Mapping[str, str], new: Mapping[str, str]) -> Mapping[str, str]:
    """The LLMs of the roles, with some exchanged.

    Raises:
        ValueError: the workflow has no such role.
    """
    if unknown := sorted(set(new) - set(models)):
        raise ValueError(f"no role {', '.join(unknown)}; the roles are {', '.join(models)}")
    return {**models, **new}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
