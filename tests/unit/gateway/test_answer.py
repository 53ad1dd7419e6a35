import orjson
import pytest

from scepsy.gateway.answer import NO_USAGE, StreamWatch, Usage, parse_answer, parse_usage
from scepsy.model.execution import Endpoint


def sse(*events):
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)


def delta(index=0, **fields):
    return {"choices": [{"index": index, "delta": fields}]}


def watched(data, size=None):
    watch = StreamWatch()
    for at in range(0, len(data), size or len(data)):
        watch.feed(data[at : at + (size or len(data))], float(at))
    return watch


@pytest.mark.parametrize(
    ("found", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, Usage(3, 4, None)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, None, 2)),
        ({"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3, None, None)),
        ({"total_tokens": 9}, Usage(9, None, None)),
        (
            {"input_tokens": 3, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 1}},
            Usage(3, 4, 1),
        ),
        (
            {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 10},
            Usage(13, 4, 10),
        ),
        ({"prompt_tokens": -1, "completion_tokens": "4"}, NO_USAGE),
        ({"prompt_tokens": 2**70}, NO_USAGE),
        (None, NO_USAGE),
    ],
)
def test_usage_is_read_in_every_dialect(found, usage):
    assert parse_usage(found) == usage


@pytest.mark.parametrize("size", [1, 7, None])
def test_a_stream_is_followed_however_it_is_cut(size):
    data = sse(
        delta(role="assistant", content=""),
        delta(content="4"),
        delta(content="2"),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
    )
    watch = watched(data + b"data: [DONE]\n\n", size)

    assert watch.answer.text() == "42"
    assert watch.answer.usage == Usage(5, 2, None)
    assert watch.is_complete
    assert watch.is_between_events
    # The first token is not the role's chunk: it came with the end of the second event's line.
    ends = len(sse(delta(role="assistant", content=""))) + len(sse(delta(content="4"))) - 2
    assert watch.first_token_s == (ends // size * size if size else 0.0)


def test_a_stream_that_broke_off_is_not_complete():
    watch = watched(sse(delta(content="4")) + b'data: {"choi')

    assert not watch.has_finished
    assert not watch.is_between_events
    assert watch.answer.text() == "4"


def test_line_ends_may_be_those_of_windows():
    watch = watched(sse(delta(content="4")).replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n")

    assert (watch.answer.text(), watch.is_complete) == ("4", True)


@pytest.mark.parametrize(
    "line",
    [
        b"data: nonsense",
        b"data: [1]",
        b": comment",
        b"data:",
        b'data: {"choices": [3]}',
        b'data: {"choices": [{"delta": {"tool_calls": [1, {"index": "x"}]}}]}',
    ],
)
def test_what_cannot_be_read_is_passed_over(line):
    watch = watched(line + b"\n\n" + sse(delta(content="4")))

    assert "4" in watch.answer.text()


def test_a_line_without_end_is_not_kept():
    watch = StreamWatch()
    for _ in range(6):
        watch.feed(b"x" * 1024**2, 0.0)

    assert len(watch._rest) <= 4 * 1024**2
    watch.feed(b"\n" + sse(delta(content="4")), 0.0)
    assert watch.answer.text() == "4"


def test_an_error_inside_a_stream_is_seen():
    assert watched(sse({"error": {"message": "out of memory"}})).answer.is_error


def test_tool_calls_are_put_together_as_a_client_sends_them_back():
    def part(**function):
        return {"index": 0, "function": function}

    first = {**part(name="search", arguments=""), "id": "t1", "type": "function"}
    watch = watched(
        sse(
            delta(tool_calls=[first]),
            delta(tool_calls=[part(arguments='{"q":')]),
            delta(tool_calls=[part(arguments='"x"}')]),
        )
    )
    function = {"name": "search", "arguments": '{"q":"x"}'}
    call = {"id": "t1", "type": "function", "function": function}
    whole = {"choices": [{"message": {"role": "assistant", "tool_calls": [call]}}]}

    assert watch.answer.message()["tool_calls"] == [call]
    assert parse_answer(Endpoint.CHAT, orjson.dumps(whole)).text() == watch.answer.text()


def test_reasoning_is_generated_but_not_part_of_the_answer():
    answer = watched(sse(delta(reasoning_content="hm"), delta(content="42"))).answer

    assert (answer.all_text(), answer.text()) == ("hm42", "42")


def test_every_choice_counts():
    answer = watched(sse(delta(0, content="a"), delta(1, content="b"))).answer

    assert (answer.all_text(), answer.text(1)) == ("ab", "b")


def test_the_messages_api_is_followed():
    watch = watched(
        sse(
            {"type": "message_start", "message": {"id": "msg", "usage": {"input_tokens": 9}}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "42"}},
            {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        )
    )

    assert watch.answer.usage == Usage(9, 2, None)
    assert (watch.answer.text(), watch.answer.response_id) == ("42", "msg")
    assert watch.is_complete


def test_the_responses_api_is_followed():
    done = {"id": "resp", "usage": {"input_tokens": 9, "output_tokens": 2}}
    watch = watched(
        sse(
            {"type": "response.created", "response": {"id": "resp"}},
            {"type": "response.output_text.delta", "delta": "42"},
            {"type": "response.completed", "response": done},
        )
    )

    assert watch.answer.usage == Usage(9, 2, None)
    assert (watch.answer.text(), watch.answer.response_id) == ("42", "resp")
    assert watch.is_complete
    whole = {"object": "response", **done}
    assert parse_answer(Endpoint.OTHER, orjson.dumps(whole)).response_id == "resp"


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"data":[[0.5]],"usage":{"prompt_tokens":3,"d":{"x":1}},"id":"e"}', Usage(3)),
        (b'{"data":[[0.5]]}', NO_USAGE),
        (b'{"usage":{"prompt_tokens":3', NO_USAGE),
        (b'{"usage":{nonsense}}', NO_USAGE),
        (b'{"usage":null}', NO_USAGE),
    ],
)
def test_usage_of_embeddings_is_found_without_their_numbers(body, usage):
    assert parse_answer(Endpoint.EMBEDDING, body).usage == usage


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b""])
def test_a_reply_that_cannot_be_read_has_no_counts(body):
    answer = parse_answer(Endpoint.CHAT, body)

    assert (answer.usage, answer.all_text()) == (NO_USAGE, "")
