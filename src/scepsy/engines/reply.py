"""What an emulated engine answers: content, its length in tokens, and its blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from scepsy.engines.request import Generation, Pooling
from scepsy.engines.script import Answer, Script, ToolCall, first_answer
from scepsy.engines.text import DIMENSIONS, babble, chance, embed, output_length, relevances
from scepsy.errors import InputError
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.model.prompt import TOKEN_BYTES, answer_text, block_ids, count_tokens

MAX_HASHED_BYTES = 1024**2
"""Prompt and answer are hashed into blocks up to here."""
_BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to one prompt."""

    prompt_tokens: int
    text: str
    tool_calls: tuple[dict[str, Any], ...] = field(default=())
    """As in OpenAI's messages."""
    tokens: int
    finish_reason: str
    prefix_blocks: tuple[int, ...]
    output_blocks: tuple[int, ...]

    def message(self) -> dict[str, Any]:
        """The assistant's message."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.tool_calls:
            message["tool_calls"] = list(self.tool_calls)
        elif not self.text:
            message["content"] = ""
        return message

    def text_until(self, tokens: int) -> int:
        """Characters of the text that so many of the reply's tokens make."""
        if tokens >= self.tokens:
            return len(self.text)
        if self.text.isascii():
            return len(self.text) * tokens // self.tokens
        whole = self.text.encode()
        return len(whole[: len(whole) * tokens // self.tokens].decode(errors="ignore"))


def make_replies(
    request: Generation, scripts: Sequence[Script], *, seed: int, max_context_tokens: int
) -> list[Reply]:
    """Answer each prompt as often as asked.

    Raises:
        InputError: a script gave something that is not an answer.
    """
    salt = orjson.dumps([seed, request.body.get("seed")], default=str)
    replies: list[Reply] = []
    for prompt in request.prompts:
        room = max_context_tokens - count_tokens(prompt)
        limit = min(request.max_tokens or room, room)
        for choice in range(request.choices):
            rng = chance(prompt, salt, choice.to_bytes(2, "big"))
            answer = first_answer(scripts, request.body, rng) if scripts else None
            if answer is None:
                answer = _unscripted(request, limit, rng)
            replies.append(_reply(request, prompt, answer, limit, rng))
    return replies


def _unscripted(request: Generation, limit: int, rng: Random) -> Answer:
    if request.forced_tool is not None:
        return Answer(tool_calls=(ToolCall(request.forced_tool),))
    # One more than the limit is cut to it later, and so ends for its length.
    tokens = min(max(output_length(rng), request.min_tokens), limit + 1)
    return Answer(text=babble(tokens, rng))


def _reply(request: Generation, prompt: bytes, answer: Answer, limit: int, rng: Random) -> Reply:
    text, reason = answer.text, "stop"
    ends = [at for stop in request.stops if (at := text.find(stop)) >= 0]
    if ends:
        text = text[: min(ends)]
    calls = tuple(_wire(call, rng) for call in answer.tool_calls) if not ends else ()
    said = answer_text({"content": text, "tool_calls": list(calls)})
    tokens = answer.output_tokens or max(1, count_tokens(said))
    if tokens > limit:
        kept = len(said.encode()) * limit // tokens if answer.output_tokens else limit * TOKEN_BYTES
        text = text.encode()[:kept].decode(errors="ignore")
        tokens, calls, reason, said = limit, (), "length", text
    elif calls:
        reason = "tool_calls"
    whole = (prompt + said.encode(errors="replace"))[:MAX_HASHED_BYTES]
    ids = block_ids(whole)
    return Reply(
        prompt_tokens=max(1, count_tokens(prompt)),
        text=text,
        tool_calls=calls,
        tokens=tokens,
        finish_reason=reason,
        prefix_blocks=ids[: len(prompt) // _BLOCK_BYTES],
        output_blocks=ids[len(prompt) // _BLOCK_BYTES :],
    )


def _wire(call: ToolCall, rng: Random) -> dict[str, Any]:
    return {
        "id": f"call_{rng.getrandbits(96):024x}",
        "type": "function",
        "function": {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()},
    }


def make_vectors(
    request: Pooling, scripts: Sequence[Script], *, seed: int
) -> Sequence[Sequence[float]]:
    """A vector for each text.

    Raises:
        InputError: a script gave another number of vectors.
    """
    answer = _scripted(request, scripts, seed)
    if answer is not None and answer.embeddings:
        _check_count(len(answer.embeddings), request, "embeddings")
        vectors: Sequence[Sequence[float]] = answer.embeddings
        return [vector[: request.dimensions] for vector in vectors]
    return [embed(text, request.dimensions or DIMENSIONS) for text in request.texts]


def make_scores(request: Pooling, scripts: Sequence[Script], *, seed: int) -> Sequence[float]:
    """The relevance of each document.

    Raises:
        InputError: a script gave another number of scores.
    """
    answer = _scripted(request, scripts, seed)
    if answer is not None and answer.scores:
        _check_count(len(answer.scores), request, "scores")
        return answer.scores
    return relevances(request.query, request.texts)


def _scripted(request: Pooling, scripts: Sequence[Script], seed: int) -> Answer | None:
    if not scripts:
        return None
    salt = orjson.dumps([seed, request.body.get("seed")], default=str)
    return first_answer(scripts, request.body, chance(request.prompt, salt))


def _check_count(given: int, request: Pooling, what: str) -> None:
    if given != len(request.texts):
        raise InputError(f"a script gave {given} {what} for {len(request.texts)} texts")
