"""vLLM's own option and metric for KV in host memory, which it cannot use without a GPU."""

import subprocess

import pytest
from aiohttp import ClientSession, web

from benchmarks.vllm_eviction import ENVIRONMENT, environment, missing
from scepsy.gateway.capacity import parse_hardware, read_capacity
from scepsy.listen import listen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.no_cover,
    pytest.mark.timeout(600),  # to import vLLM takes half a minute on a busy core
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

PAGE = """
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from vllm.config import CacheConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser

options = ["--kv-offloading-backend=native", "--kv-offloading-size=64"]
asked = EngineArgs.add_cli_args(FlexibleArgumentParser()).parse_args(options)
backend, size = asked.kv_offloading_backend, asked.kv_offloading_size
config = CacheConfig(kv_offloading_backend=backend, kv_offloading_size=size)
config.num_gpu_blocks = 5000
labels = config.metrics_info()
registry = CollectorRegistry()
gauge = Gauge("vllm:cache_config_info", "as vLLM makes it", labels, registry=registry)
gauge.labels(**labels).set(1)
print(generate_latest(registry).decode())
"""


@pytest.fixture
def page() -> str:
    """Of metrics."""
    done = subprocess.run(
        [ENVIRONMENT / "bin" / "python", "-c", PAGE],
        env=environment("none"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


async def test_the_gateway_reads_what_host_memory_vllm_was_given(page: str) -> None:
    async def metrics(request: web.BaseRequest) -> web.Response:
        is_known = request.path == "/metrics"
        return web.Response(text=page) if is_known else web.Response(status=404)

    runner = web.ServerRunner(web.Server(metrics))
    await runner.setup()
    try:
        url = await listen(runner, "127.0.0.1", 0)
        async with ClientSession() as http:
            hardware = parse_hardware(["llama-3.1-70b=h100:4"])["llama-3.1-70b"]
            found = await read_capacity(http, url, hardware)
    finally:
        await runner.cleanup()

    offloading = parse_hardware(["llama-3.1-70b=h100:4+64"])["llama-3.1-70b"].capacity
    assert found.kv_tokens == 5000 * 16
    assert (found.host_tokens, found.host_token_s) == (
        offloading.host_tokens,
        offloading.host_token_s,
    )
