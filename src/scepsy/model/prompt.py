"""A prompt as bytes and as prefix blocks, without a tokenizer.

Gateway and emulated engine must agree on which calls share a prefix, and neither has the LLM's
tokenizer. Both therefore render a request to the same canonical bytes, count four bytes as one
token, and hash the bytes in chained blocks. The rendering of a conversation is a prefix of the
rendering of its continuation, answers included, as with the chat templates of real LLMs.

Four bytes a token is what English text has with current vocabularies (an assumption; code has
fewer). Engines that report token counts are believed; this count is only used where none is given.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from scepsy.model.execution import BLOCK_TOKENS, Endpoint

TOKEN_BYTES = 4
_BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES


def prompt_bytes(endpoint: Endpoint, body: Mapping[str, object]) -> bytes:
    """Render a request's prompt. Unknown shapes are rendered as JSON, so nothing is ignored."""
    match endpoint:
        case Endpoint.CHAT:
            return _chat(body)
        case Endpoint.COMPLETION:
            return _text(body.get("prompt")).encode()
        case Endpoint.EMBEDDING:
            return _text(body.get("input")).encode()
        case Endpoint.RERANK:
            documents = body.get("documents", body.get("texts"))
            return (_text(body.get("query")) + "\n" + _text(documents)).encode()
        case Endpoint.OTHER:
            return _text(dict(body)).encode()


def _chat(body: Mapping[str, object]) -> bytes:
    parts: list[str] = []
    if tools := body.get("tools"):
        parts.append(f"<|tools|>{_text(tools)}<|end|>")
    messages = body.get("messages")
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        parts.extend(_message(message) for message in messages)
    parts.append("<|assistant|>")
    return "".join(parts).encode()


def _message(message: object) -> str:
    if not isinstance(message, Mapping):
        return f"<|other|>{_text(message)}<|end|>"
    content = answer_text(message)
    return f"<|{message.get('role', 'other')}|>{content}<|end|>"


def answer_text(message: Mapping[str, object]) -> str:
    """Content and tool calls of a message: what an LLM had to generate for it."""
    text = _text(message.get("content"))
    if calls := message.get("tool_calls"):
        text += _text(calls)
    return text


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def count_tokens(text: bytes | str) -> int:
    """Tokens of a text by its length; at least 1 unless it is empty."""
    size = len(text.encode() if isinstance(text, str) else text)
    return -(-size // TOKEN_BYTES)


def block_ids(text: bytes) -> tuple[int, ...]:
    """Ids (63 bit) of the full blocks of a text; each depends on everything before it."""
    ids: list[int] = []
    chain = b""
    for at in range(0, len(text) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        chain = blake2b(chain + text[at : at + _BLOCK_BYTES], digest_size=8).digest()
        ids.append(int.from_bytes(chain, "big") >> 1)
    return tuple(ids)
