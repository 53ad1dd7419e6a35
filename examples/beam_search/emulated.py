"""What the emulated engines answer to beam search: steps, final answers and scores.

The program knows nothing of this file; give it to an emulated engine with ``--script``. The same
request gets the same answer, and another ``seed`` another one. Hard problems take more rounds, and
their candidates are closer in score, so that more beams live on.
"""

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from scepsy.engines.script import Answer


class Known(NamedTuple):
    """What the emulation knows of a problem and the program does not."""

    answer: str
    steps: int


_ROWS = map(json.loads, (Path(__file__).parent / "problems.jsonl").read_text("utf-8").splitlines())
_PROBLEMS = {row["text"]: Known(row["answer"], row["steps"]) for row in _ROWS}

_GENERATOR_MARK = "You solve word problems one step at a time"
_VERIFIER_MARK = "You grade partial solutions of word problems"
_OPENINGS = ("First we note that", "Next,", "From this it follows that", "Now we see that", "So")
_SUBJECTS = (
    "the amount asked for",
    "the part that is known so far",
    "what is left over",
    "the total of the previous step",
    "the quantity per unit",
)
_VERBS = (
    "must be taken together with",
    "is spread evenly over",
    "has to be set against",
    "is reduced by",
    "grows in step with",
)
_CLOSINGS = (
    "Checking this against the text of the problem, nothing is counted twice.",
    "The units agree on both sides, so the step can stand.",
    "This leaves one unknown fewer, and brings us closer to the number asked for.",
    "Rounding is not needed here, since all numbers involved are whole.",
)


def answer(request: Mapping[str, object], rng: random.Random) -> Answer | None:
    """The generator's next step or the verifier's verdict; None for anyone else's request."""
    system, user = _prompts(request)
    if system.startswith(_GENERATOR_MARK):
        return Answer(text=_step(user, rng))
    if system.startswith(_VERIFIER_MARK):
        return Answer(text=json.dumps({"score": _score(user, rng)}))
    return None


def _prompts(request: Mapping[str, object]) -> tuple[str, str]:
    messages = request.get("messages")
    if not isinstance(messages, list) or len(messages) != 2:
        return "", ""
    return str(messages[0].get("content")), str(messages[1].get("content"))


def _read(user: str) -> tuple[Known, list[str]]:
    head, _, rest = user.partition("\n\nSolution so far:")
    text = head.removeprefix("Problem: ")
    known = _PROBLEMS.get(text, Known(str(len(text)), 1 + len(text) % 6))
    return known, [step for step in rest.split("\n\n") if step]


def _step(user: str, rng: random.Random) -> str:
    known, steps = _read(user)
    missing = known.steps - len(steps) - 1
    finishes = rng.random() < (0.4 if missing <= 0 else 0.04 if missing == 1 else 0.0)
    sentences = [_sentence(rng) for _ in range(rng.randint(4, 7))]
    paragraph = f"Step {len(steps) + 1}. {' '.join(sentences)} {rng.choice(_CLOSINGS)}"
    if not finishes:
        return paragraph
    right = rng.random() < 0.95 - 0.08 * known.steps
    number = known.answer if right else str(int(known.answer) + rng.choice((-10, -2, 1, 3, 12)))
    return f"{paragraph}\nFINAL ANSWER: {number}"


def _sentence(rng: random.Random) -> str:
    left, right = rng.randint(2, 60), rng.randint(2, 20)
    return (
        f"{rng.choice(_OPENINGS)} {rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} "
        f"{rng.choice(_SUBJECTS)}: {left} x {right} = {left * right}."
    )


def _score(user: str, rng: random.Random) -> float:
    known, steps = _read(user)
    final = re.search(r"FINAL ANSWER: (\S+)", steps[-1]) if steps else None
    if final and final[1] == known.answer:
        middle, spread = 0.93, 0.05
    elif final:
        middle, spread = 0.55, 0.2
    else:
        middle, spread = 0.72, 0.27 - 0.02 * known.steps
    return round(min(max(rng.gauss(middle, spread), 0.02), 0.98), 2)
