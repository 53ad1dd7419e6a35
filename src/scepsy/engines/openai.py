"""How answers look in OpenAI's dialect: whole bodies and streamed events."""

import base64
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from scepsy.engines.pace import Ticket
from scepsy.engines.reply import Reply
from scepsy.engines.request import Generation, Pooling
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import TOKEN_BYTES, count_tokens, prompt_bytes

DONE = b"data: [DONE]\n\n"


class Completion:
    """The answer to one chat or text completion, whole or in events."""

    def __init__(self, request: Generation, replies: Sequence[Reply], name: str, number: str):
        self._is_chat = request.endpoint is Endpoint.CHAT
        self._replies = replies
        self._choices = request.choices
        self._stream_usage = request.stream_usage
        kind = "chat.completion" if self._is_chat else "text_completion"
        self._head: Mapping[str, object] = {
            "id": f"chatcmpl-{number}" if self._is_chat else f"cmpl-{number}",
            "object": f"{kind}.chunk" if self._is_chat and request.stream else kind,
            "created": int(time.time()),
            "model": name,
        }
        self._sent_chars = [0] * len(replies)
        self._sent_tokens = [0] * len(replies)

    def body(self, tickets: Sequence[Ticket]) -> bytes:
        """The whole answer, all of whose calls have finished."""
        choices: list[dict[str, object]] = []
        for index, reply in enumerate(self._replies):
            said = {"message": reply.message()} if self._is_chat else {"text": reply.text}
            choices.append(
                {"index": index, **said, "logprobs": None, "finish_reason": reply.finish_reason}
            )
        return orjson.dumps({**self._head, "choices": choices, "usage": self._usage(tickets)})

    def events(self, tickets: Sequence[Ticket]) -> bytes:
        """What is new since last time, as server-sent events."""
        found = b""
        for index, (reply, ticket) in enumerate(zip(self._replies, tickets, strict=True)):
            tokens = ticket.produced_tokens
            if tokens > self._sent_tokens[index]:
                found += self._progress(index, reply, tokens)
                self._sent_tokens[index] = tokens
        return found

    def end(self, tickets: Sequence[Ticket]) -> bytes:
        """The last events of a stream."""
        found = b""
        if self._stream_usage:
            found = _event({**self._head, "choices": [], "usage": self._usage(tickets)})
        return found + DONE

    def _progress(self, index: int, reply: Reply, tokens: int) -> bytes:
        is_first, is_last = not self._sent_tokens[index], tokens >= reply.tokens
        end = reply.text_until(tokens)
        text = reply.text[self._sent_chars[index] : end]
        self._sent_chars[index] = end
        reason = reply.finish_reason if is_last else None
        if not self._is_chat:
            return self._choice(index, {"text": text}, reason)
        found = b""
        delta: dict[str, object] = {"content": text} if text or is_first else {}
        if is_first:
            delta = {"role": "assistant", **delta}
        if is_first and reply.tool_calls:
            delta["tool_calls"] = [
                {**call, "index": at, "function": {**call["function"], "arguments": ""}}
                for at, call in enumerate(reply.tool_calls)
            ]
        if delta:
            found += self._choice(index, {"delta": delta}, None)
        if is_last:
            arguments = [
                {"index": at, "function": {"arguments": call["function"]["arguments"]}}
                for at, call in enumerate(reply.tool_calls)
            ]
            last = {"tool_calls": arguments} if arguments else {}
            found += self._choice(index, {"delta": last}, reason)
        return found

    def _choice(self, index: int, said: Mapping[str, object], reason: str | None) -> bytes:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": reason}
        return _event({**self._head, "choices": [choice]})

    def _usage(self, tickets: Sequence[Ticket]) -> dict[str, object]:
        prompts = tickets[:: self._choices]  # further choices of a prompt do not count it again
        return _usage(prompts, sum(reply.tokens for reply in self._replies))


def _usage(prompts: Sequence[Ticket], output_tokens: int) -> dict[str, object]:
    prompt_tokens = sum(ticket.call.prompt_tokens for ticket in prompts)
    cached = sum(ticket.finished.cached_tokens for ticket in prompts if ticket.finished)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def embeddings_body(
    request: Pooling, vectors: Sequence[Sequence[float]], ticket: Ticket, name: str
) -> bytes:
    """The answer to an embedding request."""
    data = [
        {
            "index": index,
            "object": "embedding",
            "embedding": _base64(vector) if request.is_base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    body = {"object": "list", "model": name, "data": data, "usage": _usage([ticket], 0)}
    return orjson.dumps(body)


def _base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI's clients decode it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def rerank_body(request: Pooling, scores: Sequence[float], ticket: Ticket, name: str) -> bytes:
    """The answer to a reranking request: the most relevant documents first."""
    order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    results = [
        {"index": at, "document": {"text": request.texts[at]}, "relevance_score": scores[at]}
        for at in order[: request.top_n or None]
    ]
    return orjson.dumps({"model": name, "results": results, "usage": _usage([ticket], 0)})


def score_body(scores: Sequence[float], ticket: Ticket, name: str) -> bytes:
    """The answer to a scoring request: in the order of the documents."""
    data = [{"index": at, "object": "score", "score": score} for at, score in enumerate(scores)]
    body = {"object": "list", "model": name, "data": data, "usage": _usage([ticket], 0)}
    return orjson.dumps(body)


def models_body(name: str, max_context_tokens: int) -> bytes:
    """The list of models, which has one."""
    model = {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "scepsy",
        "max_model_len": max_context_tokens,
    }
    return orjson.dumps({"object": "list", "data": [model]})


def tokenize_body(body: Mapping[str, Any], max_context_tokens: int) -> bytes:
    """A prompt's tokens, as vLLM lists them: here each four bytes are one."""
    endpoint = Endpoint.CHAT if "messages" in body else Endpoint.COMPLETION
    prompt = prompt_bytes(endpoint, body)
    whole = prompt.ljust(count_tokens(prompt) * TOKEN_BYTES, b"\0")
    tokens = memoryview(whole).cast("I").tolist()
    return orjson.dumps(
        {"count": len(tokens), "max_model_len": max_context_tokens, "tokens": tokens}
    )
