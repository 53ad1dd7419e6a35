"""What the emulated engines answer to the coding agent: plans, programs right or wrong, reviews.

The program knows nothing of this file; give it to an emulated engine with ``--script``. A wrong
program is the right one with a slip, so the tests that the agent really runs really fail. Some
tasks invite slips more than others, and each further attempt invites fewer.
"""

import random
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scepsy.engines.script import Answer

_HERE = Path(__file__).parent
_TASKS = tomllib.loads((_HERE / "tasks.toml").read_text("utf-8"))["task"]
_IDS = {task["text"]: task["id"] for task in _TASKS}
_HARDNESS = {task["id"]: (at * 7 % len(_TASKS)) / len(_TASKS) for at, task in enumerate(_TASKS)}
_DRAFTS: dict[str, dict[str, Any]] = tomllib.loads((_HERE / "drafts.toml").read_text("utf-8"))

_PLANNER_MARK = "You plan small Python programs"
_CODER_MARK = "You write small Python programs"
_REVIEWER_MARK = "You review small Python programs"
_POINTS = (
    "Keep the work in one function and let helpers, if any, stay inside the module.",
    "Go over the input once, from left to right, and carry along only what later parts need.",
    "An empty input has an obvious result; return it without a special branch where possible.",
    "Sort first where the order of the input is not given, as later steps rely on it.",
    "Watch the last element: loops that compare neighbours tend to leave it out.",
    "Bounds are inclusive, so ranges need one more at their end.",
    "Errors are raised as the task names them, with a message that says what is wrong.",
    "Prefer the standard library's containers to home-made ones; they are fast and known.",
)
_REMARKS = (
    "The failing assertion shows a case at the edge that the program treats like all others.",
    "Compare the condition in the loop with the wording of the task: it is off for equal values.",
    "The result is built in the right order, but one part of it is left out at the end.",
    "The branch for what is missing gives a value where the task asks for something else.",
    "The structure is sound and need not change; mend the one condition and keep the rest.",
)


def answer(request: Mapping[str, object], rng: random.Random) -> Answer | None:
    """A plan, a program or a review; None for anyone else's request."""
    messages = request.get("messages")
    if not isinstance(messages, list) or len(messages) < 2:
        return None
    system, user = str(messages[0].get("content")), str(messages[1].get("content"))
    if system.startswith(_PLANNER_MARK):
        points = rng.sample(_POINTS, rng.randint(3, 5))
        plan = "\n".join(f"{at}. {point}" for at, point in enumerate(points, 1))
        return Answer(text=plan)
    if system.startswith(_CODER_MARK):
        return Answer(text=_program(user, attempt=len(messages) // 2, rng=rng))
    if system.startswith(_REVIEWER_MARK):
        return Answer(text=_review(user, rng))
    return None


def _program(user: str, *, attempt: int, rng: random.Random) -> str:
    text = user.removeprefix("Task: ").partition("\n\n")[0]
    task = _IDS.get(text)
    if task is None:
        return "```python\npass\n```"
    program, slips = _DRAFTS[task]["right"].lstrip(), _DRAFTS[task]["slips"]
    if rng.random() < (0.3 + 0.6 * _HARDNESS[task]) / attempt**0.5:
        program = program.replace(*rng.choice(slips), 1)
    return f"```python\n{program}```"


def _review(user: str, rng: random.Random) -> str:
    if user.endswith("The tests pass.") and rng.random() < 0.85:
        return "APPROVE"
    remarks = " ".join(rng.sample(_REMARKS, rng.randint(2, 4)))
    return f"CHANGE. {remarks}"
