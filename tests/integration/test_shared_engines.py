"""Emulated engines that take turns on the same GPUs: a server each, one process."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from typer.testing import CliRunner

from scepsy.cli.main import app
from scepsy.deploy.process import Service
from scepsy.engines.emulated import EngineServerConfig, RunningEngine, start_engines
from scepsy.errors import EngineError, InputError
from scepsy.profiles.gpu_fraction import TURN_COST_FRACTION
from scepsy.profiles.step_time import EngineSpec
from tests.property.made_up_times import EqualSteps

SPEEDUP = 5.0
STEP_S = 0.01
LONG = 200
"""Output tokens: two seconds alone."""
LATE_S = 0.3


SPEC = EngineSpec(times=EqualSteps(STEP_S), kv_blocks=1000)


@pytest.fixture
async def engines() -> AsyncIterator[tuple[RunningEngine, ...]]:
    configs = [EngineServerConfig(llm=llm, spec=SPEC, speedup=SPEEDUP, drain_s=0.2) for llm in "ab"]
    running = await start_engines(configs)
    yield running
    for engine in running:
        await engine.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def complete(
    http: aiohttp.ClientSession,
    engine: RunningEngine,
    model: str,
    tokens: int,
    stream: bool = False,
) -> str:
    body = {
        "model": model, "prompt": f"tell {model} a tale", "max_tokens": tokens,
        "ignore_eos": True, "stream": stream,
    }  # fmt: skip
    async with http.post(f"{engine.url}/v1/completions", json=body) as response:
        text = await response.text()
        assert response.status == 200, text
        return text


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


async def spent_s(http: aiohttp.ClientSession, engine: RunningEngine) -> float:
    """Of all its calls, arrival to end, by its own metrics."""
    async with http.get(f"{engine.url}/metrics") as response:
        page = await response.text()
    found = re.search(r"^vllm:e2e_request_latency_seconds_sum\S* (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


async def test_alone_each_is_as_fast_as_without_the_other(
    engines: tuple[RunningEngine, ...], http: aiohttp.ClientSession
) -> None:
    for engine, model in zip(engines, "ab", strict=True):
        await complete(http, engine, model, LONG)
        assert await spent_s(http, engine) == pytest.approx(LONG * STEP_S, abs=1e-6)


@pytest.mark.parametrize("stream", [False, True])
async def test_at_once_they_share_the_time_and_what_turns_cost(
    engines: tuple[RunningEngine, ...], http: aiohttp.ClientSession, stream: bool
) -> None:
    await asyncio.gather(
        *(complete(http, e, m, LONG, stream) for e, m in zip(engines, "ab", strict=True))
    )
    spent = sorted([await spent_s(http, engine) for engine in engines])
    most_s = 2 * LONG * STEP_S / (1 - TURN_COST_FRACTION)
    assert 2 * LONG * STEP_S * 0.9 - LATE_S < spent[0] <= spent[1] <= most_s + 1e-6
    statistics = [engine.statistics() for engine in engines]
    assert [each.generated_tokens for each in statistics] == [LONG, LONG]


async def test_a_client_that_leaves_leaves_the_gpus_to_the_other(
    engines: tuple[RunningEngine, ...], http: aiohttp.ClientSession
) -> None:
    a, b = engines
    leaves = asyncio.create_task(complete(http, a, "a", 5000, stream=True))
    await until(lambda: a.statistics().running > 0)
    stays = asyncio.create_task(complete(http, b, "b", LONG))
    await until(lambda: b.statistics().generated_tokens >= LONG // 10)
    leaves.cancel()
    await stays
    assert await spent_s(http, b) < 1.6 * LONG * STEP_S + LATE_S
    assert a.statistics().running == 0


async def test_one_that_is_stopped_leaves_the_gpus_to_the_other(
    engines: tuple[RunningEngine, ...], http: aiohttp.ClientSession
) -> None:
    a, b = engines
    broken = asyncio.create_task(complete(http, a, "a", 5000))
    await until(lambda: a.statistics().running > 0)
    stays = asyncio.create_task(complete(http, b, "b", LONG))
    await a.stop()
    await stays
    assert b.statistics().generated_tokens == LONG
    with pytest.raises(aiohttp.ClientError):
        await broken


async def test_each_has_a_port_of_its_own_and_knows_no_other_model(
    http: aiohttp.ClientSession,
) -> None:
    arguments = (
        "engine", "--model=qwen3-8b", "--gpu-fraction=0.6", "--beside=qwen3-0.6b=1@0.3",
        "--speedup=50", "--port=0",
    )  # fmt: skip
    async with Service("engines", arguments) as service:
        assert service.announced["model"] == "qwen3-8b"
        (other,) = service.announced["beside"]
        assert other["model"] == "qwen3-0.6b"
        for url, model in ((service.url, "qwen3-8b"), (other["url"], "qwen3-0.6b")):
            async with http.get(f"{url}/v1/models") as response:
                assert [each["id"] for each in (await response.json())["data"]] == [model]


async def test_what_does_not_fit_beside_each_other_is_refused() -> None:
    arguments = ("engine", "--model=qwen3-8b", "--gpu-fraction=0.8", "--beside=qwen3-0.6b=1@0.3")
    with pytest.raises(EngineError, match=r"take turns on 1\.1 of the GPUs' memory"):
        async with Service("engines", (*arguments, "--port=0")):
            pytest.fail("it must not come up")


@pytest.mark.parametrize("text", ["qwen3-8b", "qwen3-8b=1", "=1@0.3", "qwen3-8b=one@0.3"])
def test_what_says_no_share_is_an_input_error(text: str) -> None:
    result = CliRunner().invoke(app, ["engine", "--model=qwen3-0.6b", f"--beside={text}"])
    assert isinstance(result.exception, InputError)
    assert "says no LLM, TP degree and part" in str(result.exception)
