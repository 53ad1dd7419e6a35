import pytest

from scepsy.engines.refusal import Refusal
from scepsy.engines.request import parse_body, parse_generation, parse_pooling
from scepsy.model.execution import Endpoint

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def test_defaults_of_a_chat_request() -> None:
    asked = parse_generation(Endpoint.CHAT, CHAT)
    assert asked.prompts == (b"<|user|>hi<|end|><|assistant|>",)
    assert (asked.choices, asked.max_tokens, asked.stops, asked.stream) == (1, None, (), False)


def test_fields_are_read() -> None:
    asked = parse_generation(
        Endpoint.CHAT,
        {
            **CHAT,
            "n": 2,
            "max_completion_tokens": 7,
            "max_tokens": 9,
            "stop": "x",
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "tools": [{"function": {"name": "look"}}],
            "tool_choice": "required",
        },
    )
    assert (asked.choices, asked.max_tokens, asked.min_tokens, asked.stops) == (2, 7, 7, ("x",))
    assert (asked.stream, asked.stream_usage, asked.forced_tool) == (True, True, "look")


def test_a_list_of_prompts_is_several_but_token_ids_are_one() -> None:
    several = parse_generation(Endpoint.COMPLETION, {"prompt": ["a", "b"]})
    assert several.prompts == (b"a", b"b")
    assert len(parse_generation(Endpoint.COMPLETION, {"prompt": [1, 2]}).prompts) == 1
    assert parse_pooling(Endpoint.EMBEDDING, {"input": [1, 2]}).texts == ("[1,2]",)


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (Endpoint.CHAT, {}, "messages"),
        (Endpoint.CHAT, {"messages": []}, "messages"),
        (Endpoint.CHAT, {"messages": ["hi"]}, "messages"),
        (Endpoint.CHAT, {**CHAT, "n": 0}, "n"),
        (Endpoint.CHAT, {**CHAT, "max_tokens": True}, "max_tokens"),
        (Endpoint.CHAT, {**CHAT, "max_tokens": "9"}, "max_tokens"),
        (Endpoint.CHAT, {**CHAT, "stop": 3}, "stop"),
        (Endpoint.CHAT, {**CHAT, "stop": [""]}, "stop"),
        (Endpoint.CHAT, {**CHAT, "stream_options": 1}, "stream_options"),
        (Endpoint.CHAT, {**CHAT, "tool_choice": "required"}, "tools"),
        (Endpoint.CHAT, {**CHAT, "tool_choice": {"function": {}}}, "tool_choice"),
        (Endpoint.COMPLETION, {"prompt": ""}, "prompt"),
        (Endpoint.EMBEDDING, {"input": []}, "input"),
        (Endpoint.EMBEDDING, {"input": "a", "encoding_format": "x"}, "encoding_format"),
        (Endpoint.RERANK, {"documents": ["a"]}, "query"),
        (Endpoint.RERANK, {"query": "a", "documents": []}, "documents"),
    ],
)
def test_a_bad_field_is_named(endpoint: Endpoint, body: dict[str, object], param: str) -> None:
    parse = parse_generation if endpoint in (Endpoint.CHAT, Endpoint.COMPLETION) else parse_pooling
    with pytest.raises(Refusal) as caught:
        parse(endpoint, body)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("raw", [b"", b"{", b"[1]", b"\xff"])
def test_a_body_must_be_a_json_object(raw: bytes) -> None:
    with pytest.raises(Refusal, match="JSON"):
        parse_body(raw)
