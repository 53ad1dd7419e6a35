import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import examples.coding_agent
from examples.coding_agent.workflow import Task, parse_program, read_tasks

HERE = Path(examples.coding_agent.__file__).parent
DRAFTS = tomllib.loads((HERE / "drafts.toml").read_text())


def passes(program: str, task: Task, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a program of ours passes its task's tests, run in this process to be quick."""
    module = ModuleType("solution")
    module.__file__ = "<solution>"
    monkeypatch.setitem(sys.modules, "solution", module)
    monkeypatch.setattr("inspect.getsource", lambda _: program)
    try:
        exec(program, module.__dict__)
        exec(task.tests, {})
    except (AssertionError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("task", read_tasks(), ids=lambda task: task.id)
def test_tests_tell_the_right_program_from_every_slip(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, slips = DRAFTS[task.id]["right"], DRAFTS[task.id]["slips"]

    assert passes(right, task, monkeypatch)
    for old, new in slips:
        assert old in right
        assert not passes(right.replace(old, new, 1), task, monkeypatch), (old, new)


@pytest.mark.parametrize(
    ("reply", "program"),
    [
        ("```python\nx = 1\n```", "x = 1\n"),
        ("Here it is:\n```py\nx = 1\n```\nDone. ```not this```", "x = 1\n"),
        ("```\nx = 1\n", "x = 1\n"),  # cut off by max_tokens
        ("x = 1", "x = 1"),
    ],
)
def test_the_program_of_a_reply(reply: str, program: str) -> None:
    assert parse_program(reply) == program
