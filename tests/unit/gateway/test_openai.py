import orjson
import pytest

from scepsy.errors import InputError
from scepsy.gateway.openai import Refusal, parse_replica_url, parse_request, unknown_llm
from scepsy.model.execution import Endpoint


def test_a_request_is_read_as_far_as_needed():
    request = parse_request(Endpoint.CHAT, b'{"model": "m", "messages": []}')

    assert (request.llm, request.endpoint) == ("m", Endpoint.CHAT)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"model": ""}', b'{"model": []}'])
def test_what_is_not_a_request_is_refused(body):
    with pytest.raises(Refusal) as caught:
        parse_request(Endpoint.CHAT, body)

    assert caught.value.status == 400


def test_the_score_apis_texts_are_a_rerank_prompt():
    score = parse_request(Endpoint.RERANK, b'{"model": "m", "text_1": "q", "text_2": ["a", "b"]}')
    rerank = parse_request(Endpoint.RERANK, b'{"model": "m", "query": "q", "documents": ["a","b"]}')

    assert score.prompt() == rerank.prompt() == b"q\na\nb"


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "invalid_request_error"), (502, "server_error")]
)
def test_a_refusal_has_openais_shape_as_body_and_as_event(status, kind):
    refusal = Refusal(status, "why", code="c", param="p")
    fields = {"message": "why", "type": kind, "param": "p", "code": "c"}

    assert orjson.loads(refusal.body()) == {"error": fields}
    name, data, *rest = refusal.event().split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    assert orjson.loads(data.removeprefix(b"data: "))["error"] == fields


def test_an_unknown_model_is_answered_with_the_closest_and_all():
    message = unknown_llm("qwen3-8", ["qwen3-8b", "bge"]).message

    assert "did you mean qwen3-8b?" in message
    assert "known: bge, qwen3-8b" in message
    assert len(unknown_llm("x" * 10_000, ["m"]).message) < 500


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_a_replicas_url_may_be_what_clients_use(url):
    assert parse_replica_url(url) == "http://h:1"


def test_a_path_before_v1_is_kept():
    assert parse_replica_url("https://h/team/v1") == "https://h/team"


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http:///v1"])
def test_other_urls_are_input_errors(url):
    with pytest.raises(InputError, match="is not an http URL"):
        parse_replica_url(url)


def test_a_url_with_a_password_is_refused_and_not_repeated():
    with pytest.raises(InputError) as caught:
        parse_replica_url("http://user:hunter2@h:1")

    assert "hunter2" not in str(caught.value)
