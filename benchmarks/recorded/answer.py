"""Lets emulated engines give the answers that a replay wants: those that later prompts contain."""

import random
from collections.abc import Mapping

from scepsy.engines.script import Answer
from scepsy.model.prompt import TOKEN_BYTES


def answer(request: Mapping[str, object], _rng: random.Random) -> Answer | None:
    text = request.get("replayed_answer")
    if not isinstance(text, str):
        return None
    return Answer(text=text, output_tokens=max(1, len(text) // TOKEN_BYTES))
