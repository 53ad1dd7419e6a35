"""What a client gets from the gateway, and what the engine gets of the client."""

import asyncio
import io

import orjson
import pytest
from openai import APIStatusError, AsyncOpenAI, NotFoundError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def client():
    made = []

    def make(gateway, path="/v1", **settings):
        made.append(AsyncOpenAI(base_url=gateway.url + path, api_key="sk-secret", **settings))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_the_openai_client_chats(stage, client):
    engine = await stage.engine()
    openai = client(await stage.gateway(engine.url))

    answer = await openai.chat.completions.create(**CHAT)

    assert answer.choices[0].message.content == "The answer is 42."
    assert answer.usage.prompt_tokens == 100
    path, headers, body = engine.seen[0]
    assert (path, body) == ("/v1/chat/completions", CHAT)
    assert headers["Authorization"] == "Bearer sk-secret"


async def test_the_openai_client_streams(stage, client):
    engine = await stage.engine()
    openai = client(await stage.gateway(engine.url))

    stream = await openai.chat.completions.create(**CHAT, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(pieces) == "The answer is 42."


async def test_the_openai_client_embeds_completes_and_lists_models(stage, client):
    engine = await stage.engine()
    openai = client(await stage.gateway(engine.url))

    embedded = await openai.embeddings.create(model="m", input="x", encoding_format="float")
    completed = await openai.completions.create(model="m", prompt="x")
    models = await openai.models.list()
    model = await openai.models.retrieve("m")

    assert embedded.data[0].embedding == [0.25, -0.5]
    assert completed.choices[0].text == "The answer is 42."
    assert [found.id for found in models.data] == ["m"]
    assert model.id == "m"


async def test_an_unknown_model_is_answered_with_those_there_are(stage, client):
    engine = await stage.engine()
    openai = client(await stage.gateway(engine.url))

    with pytest.raises(NotFoundError, match=r"`nope` is not served here; known: m"):
        await openai.chat.completions.create(**{**CHAT, "model": "nope"})

    assert engine.seen == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b"[1]", 400, "invalid_json"),
        ("POST", "/v1/chat/completions", b"{}", 400, "missing_model"),
        ("POST", "/v1/chat/completions", b'{"model": 3}', 400, "missing_model"),
        ("GET", "/v1/chat/completions", None, 405, "method_not_allowed"),
        ("POST", "/health", b"", 405, "method_not_allowed"),
        ("GET", "/v1/models/nope", None, 404, "model_not_found"),
        ("POST", "/v1/audio/speech", b"{}", 404, "not_found"),
        ("GET", "/w/x", None, 404, "not_found"),
    ],
)
async def test_bad_requests_get_openais_error_object(stage, method, path, body, status, code):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)

    async with stage.http.request(method, gateway.url + path, data=body) as response:
        found = orjson.loads(await response.read())

    assert (response.status, found["error"]["code"]) == (status, code)
    assert found["error"]["message"]


async def test_an_engines_refusal_is_passed_on(stage, client):
    engine = await stage.engine("refuse")
    openai = client(await stage.gateway(engine.url))

    with pytest.raises(APIStatusError, match="prompt too long") as caught:
        await openai.chat.completions.create(**CHAT)

    assert caught.value.status_code == 400


async def test_streams_are_passed_on_byte_for_byte_as_they_come(stage):
    engine = await stage.engine("slow stream")
    gateway = await stage.gateway(engine.url)
    events = engine.events()

    url = f"{gateway.url}/v1/chat/completions"
    async with stage.http.post(url, json={**CHAT, "stream": True}) as response:
        early = b""
        while early != b"".join(events[:3]):  # the engine waits here, so no byte was held back
            early += await asyncio.wait_for(response.content.readany(), 2)
        engine.gate.set()
        late = await response.content.read()

    assert early + late == b"".join(events) + b"data: [DONE]\n\n"
    assert response.headers["Content-Type"] == "text/event-stream"


async def test_our_headers_stay_here_and_others_are_passed_on(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)
    headers = {"x-scepsy-execution": "e1", "x-session-id": "s", "X-Other": "kept"}

    url = f"{gateway.url}/v1/chat/completions?beta=a%20b"
    async with stage.http.post(url, json=CHAT, headers=headers) as response:
        execution = response.headers["x-scepsy-execution"]

    path, seen, _ = engine.seen[0]
    assert execution == "e1"
    assert path == "/v1/chat/completions?beta=a%20b"
    assert seen["X-Other"] == "kept"
    assert seen["x-session-id"] == "s"
    assert "x-scepsy-execution" not in {name.lower() for name in seen}


async def test_the_engine_is_told_which_program_a_call_belongs_to(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)
    mine = {"x-scepsy-execution": "e1", "x-scepsy-workflow": "rag"}

    for path, body, headers in (
        ("/v1/chat/completions", CHAT, {**mine, "x-scepsy-role": "judge"}),
        ("/v1/chat/completions", CHAT, mine),
        ("/v1/completions", {"model": "m", "prompt": "p"}, {}),
        ("/v1/chat/completions", CHAT, {**mine, "x-session-id": "s"}),
    ):
        async with stage.http.post(gateway.url + path, json=body, headers=headers) as response:
            assert response.status == 200

    headers_seen = [
        {name.lower(): value for name, value in seen.items()} for _, seen, _ in engine.seen
    ]
    told = [seen.get("x-session-id") for seen in headers_seen]
    assert told == ["rag/judge/e1", "rag/e1", None, "s"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_of_megabytes_arrives_whole(stage, stream):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)
    body = {**CHAT, "messages": [{"role": "user", "content": "x" * 3_000_000}], "stream": stream}

    url = f"{gateway.url}/v1/chat/completions"
    async with stage.http.post(url, data=io.BytesIO(orjson.dumps(body))) as response:
        assert response.status == 200

    assert engine.seen[0][2] == body


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v1/score", "/v1/responses"])
async def test_other_apis_are_served_below_a_path_prefix_too(stage, path):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)

    for prefix in ("", "/w/rag/run%201", "/w/rag/run%201/reranker"):
        async with stage.http.post(gateway.url + prefix + path, json={"model": "m"}) as response:
            assert response.status == 200
            assert prefix == "" or response.headers["x-scepsy-execution"] == "run_1"

    assert [seen[0] for seen in engine.seen] == [path] * 3


async def test_calls_are_spread_by_what_is_in_flight(stage, eventually):
    busy, idle = await stage.engine("wait"), await stage.engine()
    gateway = await stage.gateway(busy.url, idle.url)
    url = f"{gateway.url}/v1/chat/completions"

    async def first_arrived():
        return len(busy.seen) == 1

    waiting = asyncio.create_task(stage.http.post(url, json=CHAT))
    await eventually(first_arrived)
    for _ in range(3):
        async with stage.http.post(url, json=CHAT) as response:
            assert response.status == 200
    assert await stage.inflight(gateway) == 1
    busy.gate.set()
    async with await waiting as response:
        assert response.status == 200

    assert (len(busy.seen), len(idle.seen)) == (1, 3)
    assert await stage.inflight(gateway) == 0


async def test_metrics_say_what_happened(stage):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url)
    url = f"{gateway.url}/v1/chat/completions"
    await (await stage.http.post(url, json={**CHAT, "stream": True})).read()
    await (await stage.http.post(url, data=b"{")).read()

    assert await stage.metric(gateway, 'calls_total{llm="m",status="ok"}') == 1
    assert await stage.metric(gateway, 'refused_total{code="invalid_json"}') == 1
    assert await stage.metric(gateway, 'identified_total{rung="new"}') == 1
    assert await stage.metric(gateway, 'first_token_seconds_count{llm="m"}') == 1
    assert await stage.metric(gateway, 'output_tokens_total{llm="m"}') == 5
