"""What a workflow is made of: its names and its stages."""

from dataclasses import dataclass
from typing import NewType

from scepsy.errors import InputError

WorkflowName = NewType("WorkflowName", str)
LlmName = NewType("LlmName", str)
"""The name that clients put into ``model``; one group of replicas serves it."""
Role = NewType("Role", str)
"""What an LLM is used for in a workflow, e.g. ``planner``."""
NO_ROLE = Role("")
"""The workflow named no role."""


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """The calls of one workflow that one LLM serves in one role."""

    workflow: WorkflowName
    llm: LlmName
    role: Role = NO_ROLE

    def __post_init__(self) -> None:
        if not self.workflow or not self.llm:
            raise InputError("a stage needs a workflow and an LLM")

    @property
    def label(self) -> str:
        """Short name for tables: the LLM, and the role where there is one."""
        return f"{self.llm}:{self.role}" if self.role else str(self.llm)

    def __str__(self) -> str:
        return f"{self.workflow}/{self.label}"
