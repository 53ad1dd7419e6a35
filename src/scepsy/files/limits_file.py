"""``limits.yaml``: what a plan must keep, written by a person.

    llms:
      qwen3-32b: {tensor_parallel: 2, min_replicas: 2, share: false}
    free_gpus: 1
    survive: 1 node

See ``docs/guides/plan.md`` for every key.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from scepsy.files.strict_yaml import load_yaml

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True)


class LlmEntry(BaseModel):
    """What holds for one LLM."""

    model_config = _STRICT
    tensor_parallel: Annotated[int, Field(ge=1)] | None = None
    min_replicas: Annotated[int, Field(ge=1)] = 1
    share: bool = True


class LimitsFile(BaseModel):
    """What holds for a plan."""

    model_config = _STRICT
    llms: dict[str, LlmEntry] = Field(default_factory=dict)
    share: bool = True
    free_gpus: Annotated[int, Field(ge=0)] = 0
    keep_free: list[str] = Field(default_factory=list)
    survive: str | None = None
    target: str = "any"


def load_limits(path: Path) -> LimitsFile:
    """Read a limits file.

    Raises:
        MissingError: there is no such file.
        InputError: it is not YAML, or has an unknown key or a wrong value; with the line.
    """
    return load_yaml(path, LimitsFile, what="limits file")
