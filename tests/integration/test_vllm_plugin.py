"""The plugin in a real vLLM, on the CPU: `make vllm` installs it, else these are skipped."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession

from benchmarks.vllm_eviction import ENVIRONMENT, ROOT, environment, made_up, missing, replay
from scepsy.gateway.app import GatewayConfig, start_gateway
from scepsy.gateway.pool import parse_replicas

pytestmark = [
    pytest.mark.slow,
    pytest.mark.no_cover,
    pytest.mark.timeout(1800),  # vLLM takes half a minute to start on a core of its own
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
PYTHON = ENVIRONMENT / "bin" / "python"
SEED, BLOCKS = 1, 160


def run(code: str, plugin: str = "scepsy") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-c", code], env=environment(plugin), capture_output=True, text=True, check=False
    )


def test_more_is_found_in_the_cache_and_every_answer_is_the_same() -> None:
    programs = made_up(SEED)
    lru = replay(programs, blocks=BLOCKS, plugin=False)
    value = replay(programs, blocks=BLOCKS, plugin=True)
    told = replay(programs, blocks=BLOCKS, plugin=True, tells_ends=True)

    assert (lru["is_by_value"], value["is_by_value"]) == (False, True)
    assert lru["calls"] == sum(len(program.turns) for program in programs)
    assert lru["answers"] == value["answers"] == told["answers"]
    assert value["hit_fraction"] > 1.03 * lru["hit_fraction"]
    assert told["hit_fraction"] > 1.05 * value["hit_fraction"]
    for found in (lru, value, told):
        assert found["free_blocks_at_end"] == BLOCKS - 1  # one is vLLM's own
    assert value["us_per_eviction"] < 200  # on a busy machine; a few, on a quiet one


UNKNOWN = """
import vllm
{change}
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
before = dict(vars(KVCacheManager))
from scepsy.vllm_plugin import register
register()
assert dict(vars(KVCacheManager)) == before
"""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ('vllm.__version__ = "0.99.0"', "this is vLLM 0.99.0, and only 0.32.x is known"),
        (
            "from vllm.v1.core.kv_cache_manager import KVCacheManager as m; del m.free",
            "has no KVCacheManager.free",
        ),
    ],
)
def test_a_real_vllm_that_is_not_known_is_left_alone(change: str, why: str) -> None:
    done = run(UNKNOWN.format(change=change))
    assert done.returncode == 0, done.stderr
    assert why in done.stdout + done.stderr


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    code = """
from vllm.plugins import load_general_plugins
from vllm.v1.core.kv_cache_manager import KVCacheManager
load_general_plugins()
print("in" if hasattr(KVCacheManager, "_scepsy_retainer") else "out")
"""
    assert [run(code, plugin).stdout.split()[-1] for plugin in ("scepsy", "other")] == ["in", "out"]


ORDER = """
from random import Random
from scepsy.policy.retain import Lru
from scepsy.policy.retain_value import ByValue
from scepsy.vllm_plugin.free_list import RetainedFreeList
from scepsy.vllm_plugin.retainer import Retainer
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import BlockHash, make_block_hash_with_group_id

def pool_by(retention):
    pool = BlockPool(num_gpu_blocks=40, enable_caching=True, hash_block_size=16)
    if retention is not None:
        retainer = Retainer(pool, retention=retention, now_s=lambda: 0.0)
        pool.free_block_queue = RetainedFreeList(pool.free_block_queue, pool.blocks, retainer)
    return pool

def act(pool, seed):
    rng, held, taken = Random(seed), [], []
    for step in range(3000):
        what = rng.random()
        if what < 0.4:
            for block in pool.get_new_blocks(min(rng.randint(0, 6), pool.get_num_free_blocks())):
                assert block.ref_cnt == 1
                taken.append(block.block_id)
                held.append(block)
                if rng.random() < 0.7:
                    name = BlockHash(f"{step}/{block.block_id}".encode())
                    pool._insert_block_hash(make_block_hash_with_group_id(name, 0), block, 16)
        elif what < 0.6:
            cached = [each for each in pool.blocks if each.block_hash and rng.random() < 0.1]
            pool.touch(cached)
            held += cached
        elif held:
            rng.shuffle(held)
            some = [held.pop() for _ in range(rng.randint(1, len(held)))]
            pool.free_blocks(some)
        in_use = {each.block_id for each in held}
        free = {each.block_id for each in pool.free_block_queue.get_all_free_blocks()}
        assert len(free) == pool.get_num_free_blocks()
        assert sorted([0, *in_use, *free]) == list(range(40))
    return taken

for seed in range(5):
    assert act(pool_by(Lru()), seed) == act(pool_by(None), seed)
    act(pool_by(ByValue()), seed)
print("held")
"""


def test_on_the_real_block_pool_no_block_is_lost_and_lru_is_vllms_own_order() -> None:
    done = run(ORDER)
    assert done.stdout.endswith("held\n"), done.stderr


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A vLLM that serves over HTTP: its URL, and its log."""
    model, log = tmp_path / "model", tmp_path / "log"
    write = f"import pathlib, vllm_replay; vllm_replay.write_model(pathlib.Path({str(model)!r}))"
    made = subprocess.run(
        [PYTHON, "-c", write], check=False, cwd=ROOT / "benchmarks", env=environment("none")
    )
    assert made.returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "model": model, "served-model-name": "m", "dtype": "float32", "max-model-len": 2048,
        "block-size": 32, "num-gpu-blocks-override": 100, "kv-cache-memory-bytes": 64 * 1024**2,
        "distributed-executor-backend": "uni", "host": "127.0.0.1", "port": port,
    }  # fmt: skip
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += ["--skip-tokenizer-init", *(f"--{key}={value}" for key, value in options.items())]
    variables = {**environment("scepsy"), "VLLM_LOGGING_LEVEL": "DEBUG"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=variables, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


async def is_ready(http: ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/health") as response:
            return response.status == 200
    except ClientError:
        return False


async def test_the_gateway_tells_the_plugin_whose_a_call_is(engine: tuple[str, Path]) -> None:
    url, log = engine
    gateway = await start_gateway(GatewayConfig(replicas=parse_replicas([f"m={url}"]), port=0))
    body = {"model": "m", "prompt": list(range(5, 90)), "max_tokens": 3, "ignore_eos": True}
    try:
        async with ClientSession() as http:
            deadline_s = time.monotonic() + 600
            while not await is_ready(http, url):
                assert time.monotonic() < deadline_s, log.read_text()[-2000:]
                await asyncio.sleep(0.5)
            for path in ("/w/rag/e1/judge/v1", "/v1"):
                async with http.post(f"{gateway.url}{path}/completions", json=body) as response:
                    assert response.status == 200
                    assert (await response.json())["usage"]["completion_tokens"] == 3
    finally:
        await gateway.stop()

    told = re.findall(r"call \S+ is of program (\S+)", log.read_text())
    assert told[0] == "rag/judge/e1"
    assert told[1].startswith("?")
