"""Scripts: Python files that decide what an emulated engine answers.

A script defines ``answer(request, rng)``. It gets the body of the request and a generator of chance
that is seeded from prompt, ``seed`` field and number of the choice, so that the same request gets
the same answer. It returns an ``Answer``, or None to leave the request to the next script.
"""

import importlib.util
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from scepsy.errors import InputError

_numbers = count()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the request's tools."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to answer. Fields that do not belong to the request's kind are ignored."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    output_tokens: int | None = None
    """Tokens that the answer takes to generate, e.g. with hidden reasoning; None counts them."""
    scores: tuple[float, ...] = ()
    """Reranking: relevance of each document, in their order."""
    embeddings: tuple[tuple[float, ...], ...] = ()
    """Embedding: a vector for each text, in their order."""

    def __post_init__(self) -> None:
        if self.output_tokens is not None and self.output_tokens < 1:
            raise InputError(f"output_tokens {self.output_tokens} must be >= 1, or None")


Script = Callable[[Mapping[str, object], random.Random], Answer | None]


def load_script(path: Path) -> Script:
    """Run a script file and give its ``answer`` function.

    Raises:
        InputError: there is no such file, it fails, or it has no function ``answer``.
    """
    if not path.is_file():
        raise InputError(f"there is no script {path}")
    name = f"scepsy_script_{next(_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"script {path} is not a Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever someone else's file raises
        del sys.modules[name]
        raise InputError(f"script {path} fails: {type(error).__name__}: {error}") from error
    answer = getattr(module, "answer", None)
    if not callable(answer):
        raise InputError(
            f"script {path} has no function `answer`",
            hint="define answer(request, rng) -> Answer | None",
        )
    script: Script = answer
    return script


def first_answer(
    scripts: Iterable[Script], request: Mapping[str, object], rng: random.Random
) -> Answer | None:
    """What the first script that knows the request answers; None where none does.

    Raises:
        InputError: a script gave something else.
    """
    for script in scripts:
        found = script(request, rng)
        if isinstance(found, Answer):
            return found
        if found is not None:
            raise InputError(f"a script answered with {type(found).__name__}, not an Answer")
    return None
