"""The gateway in front of llama.cpp on a tiny random model, which is as odd as real engines are."""

import asyncio
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from scepsy.engines.llama_cpp import LlamaConfig, start_llama
from scepsy.engines.tiny_model import TinyModel, write_tiny_model
from scepsy.model.execution import CallStatus
from scepsy.traces.store import SqliteTraceStore

pytest.importorskip("xllamacpp", reason="the extra `real` is not installed")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(model):
    with start_llama(LlamaConfig(model=model, name="tiny", slots=2, embeddings=True)) as running:
        yield running


def chat(text, **more):
    messages = [{"role": "user", "content": text}]
    return {"model": "tiny", "messages": messages, "max_tokens": 8, **more}


async def test_calls_stream_and_are_recorded_with_the_engines_counts(stage, engine, tmp_path):
    gateway = await stage.gateway(f"{engine.url}", record=tmp_path / "t.db", llm="tiny")
    with_usage = {"stream_options": {"include_usage": True}}
    said = []

    async with AsyncOpenAI(base_url=f"{gateway.url}/w/w/e/r/v1", api_key="k") as openai:
        for _ in range(2):
            stream = await openai.chat.completions.create(**chat("one", stream=True, **with_usage))
            *_, last = [chunk async for chunk in stream]
            said.append(last.usage)
        said.append((await openai.chat.completions.create(**chat("one"))).usage)
        embedded = await openai.embeddings.create(model="tiny", input="x", encoding_format="float")
    await gateway.stop()

    with SqliteTraceStore.open(tmp_path / "t.db", create=False) as store:
        calls = store.execution("e", "w").calls
    assert embedded.data[0].embedding
    assert [call.status for call in calls] == [CallStatus.OK] * 4
    assert [(call.prompt_tokens, call.output_tokens) for call in calls[:3]] == [
        (usage.prompt_tokens, usage.completion_tokens) for usage in said
    ]
    assert calls[3].output_tokens == 0
    assert calls[1].cached_tokens == calls[1].prompt_tokens - 1
    assert calls[0].start_s < calls[0].first_token_s < calls[0].end_s


async def test_connections_that_llama_cpp_closes_in_silence_cost_no_call(stage, engine):
    gateway = await stage.gateway(engine.url, llm="tiny")
    url = f"{gateway.url}/v1/chat/completions"

    async def ask(number):
        async with stage.http.post(url, json=chat(str(number), stream=number % 2 == 0)) as response:
            return response.status, (await response.read()).count(b'"finish_reason":"')

    answers = [await ask(number) for number in range(20)]
    answers += await asyncio.gather(*(ask(number) for number in range(20)))

    assert answers == [(200, 1)] * 40


async def test_a_client_that_leaves_frees_the_engine(stage, engine, eventually):
    gateway = await stage.gateway(engine.url, llm="tiny")
    url = f"{gateway.url}/v1/chat/completions"
    endless = chat("go on", stream=True, max_tokens=4000, logit_bias=[[2, False]])

    response = await stage.http.post(url, json=endless)
    await response.content.readany()
    response.close()

    async def is_free():
        async with stage.http.get(f"{engine.url}/slots") as found:
            return not any(slot["is_processing"] for slot in await found.json())

    await eventually(is_free)
    assert await stage.inflight(gateway) == 0


async def test_an_engine_that_is_killed_in_the_stream_is_told_to_the_client(stage, tmp_path):
    slow = write_tiny_model(tmp_path / "slow.gguf", TinyModel(width=256, layers=8))
    endless = chat("go on", stream=True, max_tokens=4000, logit_bias=[[2, False]])
    with start_llama(LlamaConfig(model=slow, name="tiny")) as engine:
        gateway = await stage.gateway(engine.url, llm="tiny")
        url = f"{gateway.url}/v1/chat/completions"
        response = await stage.http.post(url, json=endless)
        await response.content.readany()
        engine.stop()
    rest = await asyncio.wait_for(response.content.read(), 5)

    assert rest.rpartition(b"event: ")[2].startswith(b"error")
    assert await stage.metric(gateway, 'calls_total{llm="tiny",status="error"}') == 1
