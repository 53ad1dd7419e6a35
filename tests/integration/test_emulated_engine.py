"""The emulated engine over real HTTP: dialect, timing, counts, and what goes wrong."""

import asyncio
import base64
import json
import re
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scepsy.engines.emulated import EngineServerConfig, RunningEngine, start_engine
from scepsy.errors import InputError
from scepsy.model.execution import Endpoint
from scepsy.model.prompt import count_tokens, prompt_bytes
from scepsy.profiles.step_time import EngineSpec

NAME = "test-llm"
SPEEDUP = 20.0


@dataclass(frozen=True)
class LinearTimes:
    """10 ms a step, and 0.1 ms a prompt token."""

    def step_s(
        self,
        *,
        prefill_tokens: int,
        prefill_context_tokens: int,
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return 0.01 + 1e-4 * prefill_tokens

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        return 0.01 * steps


SPEC = EngineSpec(times=LinearTimes(), kv_blocks=1000)
SCRIPT = """
from scepsy.engines.script import Answer, ToolCall

def answer(request, rng):
    if request.get("tools"):
        return Answer(tool_calls=(ToolCall("add", {"a": 1}), ToolCall("look")))
    said = str(request.get("messages"))
    if "fail" in said:
        raise RuntimeError("no")
    if "short" in said:
        return Answer(text="a short answer")
"""


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[RunningEngine]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    config = EngineServerConfig(
        llm=NAME, spec=SPEC, speedup=SPEEDUP, scripts=(script,), max_body_bytes=100_000
    )
    running = await start_engine(config)
    yield running
    await running.stop()


@pytest.fixture
async def client(engine: RunningEngine) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(engine.url) as session:
        yield session


def chat(content: str = "hello", **fields: object) -> dict[str, object]:
    return {"model": NAME, "messages": [{"role": "user", "content": content}], **fields}


async def post(
    client: aiohttp.ClientSession, path: str, body: object, status: int = 200
) -> dict[str, Any]:
    async with client.post(path, json=body) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


async def events(client: aiohttp.ClientSession, body: object) -> list[dict[str, Any]]:
    path = "/v1/chat/completions" if "messages" in str(body) else "/v1/completions"
    async with client.post(path, json=body) as response:
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


async def metric(client: aiohttp.ClientSession, name: str) -> float:
    async with client.get("/metrics") as response:
        page = await response.text()
    found = re.search(rf'^{name}{{[^}}]*model_name="{NAME}"[^}}]*}} (\S+)$', page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


async def test_a_chat_answer_counts_its_own_tokens(client: aiohttp.ClientSession) -> None:
    body = chat(max_tokens=40)
    answer = await post(client, "/v1/chat/completions", body)
    text, usage = answer["choices"][0]["message"]["content"], answer["usage"]
    assert usage["completion_tokens"] == count_tokens(text) <= 40
    assert usage["prompt_tokens"] == count_tokens(prompt_bytes(Endpoint.CHAT, body))
    again = await post(client, "/v1/chat/completions", body)
    assert again["choices"] == answer["choices"]


async def test_a_stream_says_the_same_as_a_whole_answer(client: aiohttp.ClientSession) -> None:
    body = chat(max_tokens=300, seed=3)
    whole = await post(client, "/v1/chat/completions", body)
    streamed = await events(
        client, {**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    deltas = [event["choices"][0]["delta"] for event in streamed[:-1]]
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert deltas[0]["role"] == "assistant"
    assert len(deltas) > 3
    assert streamed[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert streamed[-1]["choices"] == []
    assert streamed[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


async def test_tool_calls_come_whole_and_in_pieces(client: aiohttp.ClientSession) -> None:
    body = chat(tools=[{"type": "function", "function": {"name": "add"}}])
    whole = await post(client, "/v1/chat/completions", body)
    assert whole["choices"][0]["finish_reason"] == "tool_calls"
    calls = whole["choices"][0]["message"]["tool_calls"]
    joined: dict[int, dict[str, str]] = {}
    for event in await events(client, {**body, "stream": True}):
        for part in event["choices"][0]["delta"].get("tool_calls", ()):
            call = joined.setdefault(part["index"], {"name": "", "arguments": ""})
            call["name"] += part["function"].get("name", "")
            call["arguments"] += part["function"]["arguments"]
    assert [joined[0], joined[1]] == [call["function"] for call in calls]


async def test_choices_share_their_prompt(client: aiohttp.ClientSession) -> None:
    answer = await post(client, "/v1/chat/completions", chat("word " * 400, n=3, max_tokens=5))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 15
    assert answer["usage"]["prompt_tokens"] < 600
    assert await metric(client, "vllm:prefix_cache_hits_total") > 800


async def test_text_completions_of_several_prompts(client: aiohttp.ClientSession) -> None:
    body = {"model": NAME, "prompt": ["one", "two"], "max_tokens": 4}
    answer = await post(client, "/v1/completions", body)
    assert [len(choice["text"]) for choice in answer["choices"]] == [16, 16]
    streamed = await events(client, {**body, "stream": True})
    text = "".join(e["choices"][0]["text"] for e in streamed if e["choices"][0]["index"] == 1)
    assert text == answer["choices"][1]["text"]


async def test_a_repeated_prompt_is_cached(client: aiohttp.ClientSession) -> None:
    body = chat("word " * 500, max_tokens=1)
    first = await post(client, "/v1/chat/completions", body)
    second = await post(client, "/v1/chat/completions", body)
    details = [answer["usage"]["prompt_tokens_details"] for answer in (first, second)]
    assert details[0] == {"cached_tokens": 0}
    assert details[1]["cached_tokens"] >= 576


async def test_routers_are_told_the_tokens_of_prompts(client: aiohttp.ClientSession) -> None:
    text = {"model": NAME, "prompt": "word word wor"}
    found = await post(client, "/tokenize", text)
    longer = await post(client, "/tokenize", {**text, "prompt": "word word words"})
    told = await post(client, "/tokenize", chat("word " * 100))
    answer = await post(client, "/v1/chat/completions", chat("word " * 100, max_tokens=1))
    assert (found["count"], len(found["tokens"])) == (4, 4)
    assert longer["tokens"][:3] == found["tokens"][:3]
    assert longer["tokens"][3] != found["tokens"][3]
    assert told["count"] == answer["usage"]["prompt_tokens"]


async def test_vectors_come_as_numbers_and_packed(client: aiohttp.ClientSession) -> None:
    body = {"model": NAME, "input": ["green apples", "green pears"]}
    plain = await post(client, "/v1/embeddings", body)
    packed = await post(client, "/v1/embeddings", {**body, "encoding_format": "base64"})
    vector = plain["data"][1]["embedding"]
    raw = base64.b64decode(packed["data"][1]["embedding"])
    assert struct.unpack(f"<{len(vector)}f", raw) == pytest.approx(vector, abs=1e-6)
    assert plain["usage"]["completion_tokens"] == 0


async def test_ranking_puts_the_relevant_first(client: aiohttp.ClientSession) -> None:
    body = {"model": NAME, "query": "green apples", "documents": ["red", "green apples", "green"]}
    answer = await post(client, "/v1/rerank", {**body, "top_n": 2})
    assert [result["index"] for result in answer["results"]] == [1, 2]
    scored = {"model": NAME, "text_1": "green apples", "text_2": body["documents"]}
    scores = await post(client, "/v1/score", scored)
    assert [one["score"] for one in scores["data"]] == [0.0, 1.0, 0.5]


async def test_calls_take_the_emulated_time(client: aiohttp.ClientSession) -> None:
    """Two calls at once: 100 steps of 10 ms, and what their two prefills add."""
    body = chat(max_tokens=100, ignore_eos=True)
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    await asyncio.gather(*(post(client, "/v1/chat/completions", body) for _ in range(2)))
    passed_s = (loop.time() - start_s) * SPEEDUP
    assert await metric(client, "vllm:e2e_request_latency_seconds_count") == 2
    mean_s = await metric(client, "vllm:e2e_request_latency_seconds_sum") / 2
    assert 1.0 < mean_s < 1.03
    assert passed_s > 1.0
    gap_s = await metric(client, "vllm:inter_token_latency_seconds_sum") / 198
    assert gap_s == pytest.approx(0.01, rel=0.05)
    assert await metric(client, "vllm:generation_tokens_total") == 200
    assert await metric(client, "vllm:request_success_total") == 2


async def test_metrics_show_a_call_that_runs(
    engine: RunningEngine, client: aiohttp.ClientSession
) -> None:
    body = chat(max_tokens=5000, ignore_eos=True)
    running = asyncio.create_task(post(client, "/v1/chat/completions", body))
    await until(lambda: engine.statistics().running > 0)
    assert await metric(client, "vllm:num_requests_running") == 1
    assert await metric(client, "vllm:num_requests_waiting") == 0
    assert 0 < await metric(client, "vllm:kv_cache_usage_perc") < 1
    assert await metric(client, "vllm:num_preemptions_total") == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place(
    engine: RunningEngine, client: aiohttp.ClientSession, stream: bool
) -> None:
    body = chat(max_tokens=60_000, ignore_eos=True, stream=stream)
    call = asyncio.create_task(post(client, "/v1/chat/completions", body))
    await until(lambda: engine.statistics().generated_tokens > 0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(lambda: engine.statistics().running == 0)
    assert engine.statistics().kv_used_blocks == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/chat/completions", {"model": "other", "messages": []}, 404, "model_not_found"),
        ("/v1/chat/completions", {"messages": []}, 404, "model_not_found"),
        ("/v1/chat/completions", {"model": NAME}, 400, "invalid_value"),
        ("/v1/chat/completions", [1], 400, "invalid_json"),
        ("/v1/chat/completions", chat("x" * 110_000), 413, "body_too_large"),
        ("/v1/nothing", {}, 404, "not_found"),
        ("/health", {}, 405, "method_not_allowed"),
        ("/v1/chat/completions", chat("fail"), 500, "bug"),
    ],
)
async def test_errors_have_openai_s_shape(
    client: aiohttp.ClientSession,
    path: str,
    body: object,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = (await post(client, path, body, status))["error"]
    assert error["code"] == code
    assert error["message"]
    assert ("inside the engine" in caplog.text) == (status == 500)


async def test_a_prompt_that_cannot_fit_is_refused() -> None:
    small = EngineSpec(times=LinearTimes(), kv_blocks=2)
    engine = await start_engine(EngineServerConfig(llm=NAME, spec=small))
    async with aiohttp.ClientSession(engine.url) as client:
        error = await post(client, "/v1/chat/completions", chat("x" * 600), 400)
        models = await (await client.get("/v1/models")).json()
    await engine.stop()
    assert error["error"]["code"] == "context_length_exceeded"
    assert "at most 128 fit" in error["error"]["message"]
    assert models["data"][0]["max_model_len"] == 128


async def test_a_body_of_a_hundred_megabytes_is_refused_before_it_is_read(
    client: aiohttp.ClientSession,
) -> None:
    sent = 0

    async def megabytes() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1_000_000

    try:
        async with client.post("/v1/chat/completions", data=megabytes()) as response:
            assert response.status == 413
    except aiohttp.ClientConnectionError:
        pass  # the engine closed while we were still sending
    assert sent < 100


async def test_health_version_and_models(client: aiohttp.ClientSession) -> None:
    assert (await client.get("/health")).status == 200
    assert "scepsy" in (await (await client.get("/version")).json())["version"]
    assert (await (await client.get("/v1/models")).json())["data"][0]["id"] == NAME


async def test_engines_share_a_loop_and_a_taken_port_is_an_error(engine: RunningEngine) -> None:
    other = await start_engine(EngineServerConfig(llm="b", name="served", spec=SPEC))
    assert other.url != engine.url
    port = int(other.url.rpartition(":")[2])
    with pytest.raises(InputError, match="is taken") as caught:
        await start_engine(EngineServerConfig(llm=NAME, spec=SPEC, port=port))
    assert "--port" in (caught.value.hint or "")
    await other.stop()
    await other.stop()


def test_bad_configurations_are_refused() -> None:
    with pytest.raises(InputError, match="port 70000"):
        EngineServerConfig(llm=NAME, port=70000)
    with pytest.raises(InputError, match="max_body_bytes"):
        EngineServerConfig(llm=NAME, max_body_bytes=0)


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scepsy", "engine", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_says_where_it_listens_and_ends_when_told() -> None:
    with command("--model", "qwen3-8b", "--speedup", "10", "--port", "0", "--json") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["model"] == "qwen3-8b"
        taken = ready["url"].rpartition(":")[2]
        with command("--model", "qwen3-8b", "--port", taken) as second:
            _, says = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "is taken" in says
        assert "Traceback" not in says
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_command_refuses_an_unknown_llm() -> None:
    with command("--model", "qwen3-9b") as process:
        _, says = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "qwen3-9b" in says
    assert "did you mean" in says
