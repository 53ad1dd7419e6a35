"""What an engine's answer says: token counts, text, the first token's instant, whether it ended.

Reads whole replies and streams of chat and text completions, and as much of the Responses and
Messages APIs as counts need. An answer that it cannot read is passed on all the same and has no
counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from scepsy.model.execution import Endpoint
from scepsy.model.prompt import answer_text

_MAX_LINE_BYTES = 4 * 1024**2
"""A longer line of a stream is not read (it is passed on): no engine sends one."""
_MAX_TOKENS = 2**53
_LAST_EVENTS = ("message_stop", "response.completed", "response.incomplete", "response.failed")


class Usage(NamedTuple):
    """Token counts that an engine reported; None where it did not."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    def updated(self, later: "Usage") -> "Usage":
        """These counts, with those of a later report in their place."""
        return Usage(*(old if new is None else new for old, new in zip(self, later, strict=True)))


NO_USAGE = Usage()


def parse_usage(found: object) -> Usage:
    """Counts of a ``usage`` object, in OpenAI's or Anthropic's words."""
    if not isinstance(found, dict):
        return NO_USAGE
    prompt = _count(found, "prompt_tokens", "input_tokens", "total_tokens")
    details = found.get("prompt_tokens_details") or found.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
    if "cache_read_input_tokens" in found:  # Anthropic: not part of its input_tokens
        cached = _count(found, "cache_read_input_tokens")
        created = _count(found, "cache_creation_input_tokens") or 0
        prompt = None if prompt is None else prompt + (cached or 0) + created
    return Usage(prompt, _count(found, "completion_tokens", "output_tokens"), cached)


def _count(found: Mapping[str, object], *names: str) -> int | None:
    for name in names:
        value = found.get(name)
        if isinstance(value, int) and 0 <= value < _MAX_TOKENS:
            return value
    return None


@dataclass(slots=True)
class Answer:
    """What is known of an answer so far."""

    usage: Usage = NO_USAGE
    texts: dict[int, list[str]] = field(default_factory=dict)
    """Pieces of content by choice."""
    tool_calls: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    """By choice and position."""
    reasoning: list[str] = field(default_factory=list)
    response_id: str | None = None
    is_error: bool = False
    """The engine reported an error inside a reply of status 200."""

    @property
    def choices(self) -> Sequence[int]:
        """The answers that were given side by side, by number."""
        return sorted(self.texts.keys() | self.tool_calls.keys())

    def message(self, choice: int = 0) -> dict[str, Any]:
        """The assistant's message as a client would send it back."""
        message: dict[str, Any] = {"role": "assistant", "content": self._content(choice)}
        if calls := self.tool_calls.get(choice):
            message["tool_calls"] = [calls[at] for at in sorted(calls)]
        return message

    def text(self, choice: int = 0) -> str:
        """What the LLM generated for a choice, as the next prompt will contain it."""
        return answer_text(self.message(choice))

    def all_text(self) -> str:
        """Everything that was generated, reasoning included: what to count tokens of."""
        return "".join([*self.reasoning, *(self.text(choice) for choice in self.choices)])

    def _content(self, choice: int) -> str:
        return "".join(self.texts.get(choice, ()))

    def add(self, event: Mapping[str, Any]) -> bool:
        """Take in a whole reply or one event; true when it carries a generated token."""
        self.is_error = self.is_error or bool(event.get("error"))
        if (usage := event.get("usage")) is not None:
            self.usage = self.usage.updated(parse_usage(usage))
        choices = event.get("choices")
        if isinstance(choices, list):
            added = [self._add_choice(choice) for choice in choices if isinstance(choice, dict)]
            return any(added)
        return self._add_other(event)

    def _add_choice(self, choice: dict[str, Any]) -> bool:
        index = _position(choice, 0)
        text = choice.get("text")
        if isinstance(text, str):
            return self._add_text(index, text)
        message = choice.get("delta") or choice.get("message")
        if not isinstance(message, dict):
            return False
        seen = self._add_text(index, message.get("content"))
        for name in ("reasoning_content", "reasoning"):
            if isinstance(thought := message.get(name), str) and thought:
                self.reasoning.append(thought)
                seen = True
                break
        parts = message.get("tool_calls")
        for at, part in enumerate(parts if isinstance(parts, list) else ()):
            if isinstance(part, dict):
                self._add_tool_call(index, _position(part, at), part)
                seen = True
        return seen

    def _add_text(self, index: int, text: object) -> bool:
        if not isinstance(text, str) or not text:
            return False
        self.texts.setdefault(index, []).append(text)
        return True

    def _add_tool_call(self, choice: int, at: int, part: Mapping[str, Any]) -> None:
        call = self.tool_calls.setdefault(choice, {}).setdefault(at, {})
        for key, value in part.items():
            if key == "function" and isinstance(value, dict):
                function = call.setdefault("function", {"name": "", "arguments": ""})
                for name, piece in value.items():
                    if isinstance(piece, str):
                        function[name] = function.get(name, "") + piece
            elif key != "index" and value is not None:
                call[key] = value

    def _add_other(self, event: Mapping[str, Any]) -> bool:
        for key in ("response", "message"):  # the Responses API's, the Messages API's
            inner = event.get(key)
            if isinstance(inner, dict):
                self.usage = self.usage.updated(parse_usage(inner.get("usage")))
                self.response_id = _text_or(inner.get("id"), self.response_id)
        if event.get("object") == "response" or event.get("type") == "message":
            self.response_id = _text_or(event.get("id"), self.response_id)
        delta = event.get("delta")
        if isinstance(delta, dict):
            for name in ("text", "partial_json", "thinking"):
                if self._add_text(0, delta.get(name)):
                    return True
            return False
        return self._add_text(0, delta)


def _position(part: Mapping[str, object], otherwise: int) -> int:
    index = part.get("index")
    return index if isinstance(index, int) else otherwise


def _text_or(found: object, otherwise: str | None) -> str | None:
    return found if isinstance(found, str) else otherwise


def parse_answer(endpoint: Endpoint, body: bytes) -> Answer:
    """Read a whole reply; what cannot be read is left empty."""
    answer = Answer()
    if endpoint in (Endpoint.EMBEDDING, Endpoint.RERANK):
        answer.usage = _tail_usage(body)
        return answer
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return answer
    if isinstance(parsed, dict):
        answer.add(parsed)
    return answer


def _tail_usage(body: bytes) -> Usage:
    """Find ``usage`` without parsing the numbers or documents before it, which can be megabytes."""
    start = body.rfind(b'"usage"')
    opening = body.find(b"{", start)
    if start < 0 or opening < 0:
        return NO_USAGE
    depth = 0
    for at in range(opening, min(len(body), opening + 4096)):
        depth += (body[at] == 0x7B) - (body[at] == 0x7D)
        if depth == 0:
            try:
                return parse_usage(orjson.loads(body[opening : at + 1]))
            except orjson.JSONDecodeError:
                return NO_USAGE
    return NO_USAGE


class StreamWatch:
    """Follows a stream of server-sent events that someone else passes on."""

    def __init__(self) -> None:
        self.answer = Answer()
        self.first_token_s: float | None = None
        self.has_finished = False
        """A choice gave its reason to stop."""
        self.is_complete = False
        """The last event of the stream was seen; what comes after does not matter."""
        self._rest = b""

    @property
    def is_between_events(self) -> bool:
        """Whether the bytes so far end with a whole line."""
        return not self._rest

    def feed(self, chunk: bytes, at_s: float) -> None:
        """Take in bytes that came at an instant (s)."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest if len(rest) <= _MAX_LINE_BYTES else b" "
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), at_s)

    def _event(self, data: bytes, at_s: float) -> None:
        if data == b"[DONE]":
            self.is_complete = self.has_finished = True
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            return  # passed on all the same; the counts then lack it
        if not isinstance(event, dict):
            return
        if self.answer.add(event) and self.first_token_s is None:
            self.first_token_s = at_s
        self.is_complete = self.is_complete or event.get("type") in _LAST_EVENTS
        self.has_finished = self.has_finished or self.is_complete or _gives_reason(event)


def _gives_reason(event: Mapping[str, Any]) -> bool:
    choices = event.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )
