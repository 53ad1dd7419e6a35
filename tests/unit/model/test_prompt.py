"""Prompts as bytes: what counts as the same prefix."""

import pytest

from scepsy.model.execution import BLOCK_TOKENS, Endpoint
from scepsy.model.prompt import TOKEN_BYTES, answer_text, block_ids, count_tokens, prompt_bytes

BLOCK_BYTES = BLOCK_TOKENS * TOKEN_BYTES


@pytest.mark.parametrize(
    ("endpoint", "body", "rendered"),
    [
        (Endpoint.COMPLETION, {"prompt": "once"}, b"once"),
        (Endpoint.COMPLETION, {"prompt": ["one", "two"]}, b"one\ntwo"),
        (Endpoint.COMPLETION, {}, b""),
        (Endpoint.EMBEDDING, {"input": ["a", "b"]}, b"a\nb"),
        (Endpoint.EMBEDDING, {"input": [[1, 2]]}, b"[[1,2]]"),
        (Endpoint.RERANK, {"query": "q", "documents": ["x", "y"]}, b"q\nx\ny"),
        (Endpoint.RERANK, {"query": "q", "texts": ["x"]}, b"q\nx"),
        (Endpoint.OTHER, {"b": 1, "a": 2}, b'{"a":2,"b":1}'),
    ],
)
def test_renders_each_endpoint(
    endpoint: Endpoint, body: dict[str, object], rendered: bytes
) -> None:
    assert prompt_bytes(endpoint, body) == rendered


def test_renders_a_chat_with_tools_calls_and_odd_messages() -> None:
    call = {"id": "1", "function": {"name": "run"}}
    body = {
        "tools": [{"type": "function"}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"content": [{"type": "text", "text": "parts"}]},
            "not a message",
        ],
    }
    assert prompt_bytes(Endpoint.CHAT, body) == (
        b'<|tools|>[{"type":"function"}]<|end|><|user|>hi<|end|>'
        b'<|assistant|>[{"function":{"name":"run"},"id":"1"}]<|end|>'
        b'<|other|>[{"text":"parts","type":"text"}]<|end|>'
        b"<|other|>not a message<|end|><|assistant|>"
    )
    assert prompt_bytes(Endpoint.CHAT, {"messages": "wrong"}) == b"<|assistant|>"


def test_a_conversation_is_a_prefix_of_its_continuation() -> None:
    """With the answer in between: what the engine made is in its cache too."""
    asked = [{"role": "user", "content": "why?"}]
    answer = {"role": "assistant", "content": "because", "tool_calls": [{"id": "7"}]}
    before = prompt_bytes(Endpoint.CHAT, {"messages": asked}) + answer_text(answer).encode()
    after = {"messages": [*asked, answer, {"role": "user", "content": "and?"}]}
    assert prompt_bytes(Endpoint.CHAT, after).startswith(before)


def test_tokens_are_counted_in_started_fours() -> None:
    assert [count_tokens(text) for text in ("", "a", "abcd", b"abcde", "äöü")] == [0, 1, 1, 2, 2]


def test_a_block_id_depends_on_all_before_it() -> None:
    first, second = b"a" * BLOCK_BYTES, b"b" * BLOCK_BYTES
    both = block_ids(first + second)
    assert len(both) == 2
    assert block_ids(first + second + b"c") == both  # a block that is not full has no id
    assert block_ids(first) == both[:1]
    assert block_ids(second)[0] != both[1]
    assert block_ids(b"x" + first[1:] + second)[1] != both[1]
    assert all(0 <= block < 2**63 for block in both)
