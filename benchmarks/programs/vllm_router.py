"""vLLM's router in front of emulated engines, as a process of its own.

It knows no scaled clock. With program scheduling its cost models are therefore given: what they
should be for these engines, in real seconds at their speed-up, with how often it reads their
metrics. Its other times keep their defaults, which are then longer than meant.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson

from scepsy.errors import EngineError
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.program_fleet import capacity_of

READY_S = 60.0
_METRICS_S = 2.0
_FOREVER_S = 86_400


def calibration(spec: EngineSpec, speedup: float) -> dict[str, object]:
    """Its configuration of program scheduling for such engines."""
    capacity = capacity_of(spec)

    def step_s(decodes: int, context_tokens: int) -> float:
        return spec.times.decode_run_s(
            decodes=decodes, decode_context_tokens=context_tokens, steps=1
        )

    few, many, context = 1, 9, capacity.kv_tokens // 2
    return {
        "token_capacity_per_dp_rank": capacity.kv_tokens,
        "metrics_interval_seconds": _METRICS_S / speedup,
        "queue_timeout_seconds": _FOREVER_S,
        "prefill_cost_model": {
            "intercept_seconds": 0.0,
            "linear_seconds_per_1k_tokens": 1e3 * capacity.prompt_token_s / speedup,
            "quadratic_seconds_per_1k_tokens_squared": 1e6 * capacity.context_token_s / 2 / speedup,
        },
        "decode_throughput_model": {
            "fixed_step_seconds": step_s(few, 0) / speedup,
            "batch_step_seconds_per_request": max(0.0, step_s(many, 0) - step_s(few, 0))
            / (many - few)
            / speedup,
            "context_step_seconds_per_token": max(0.0, step_s(many, context) - step_s(many, 0))
            / context
            / speedup,
        },
    }


@asynccontextmanager
async def vllm_router(
    program: Path,
    workers: Sequence[str],
    *,
    scheduling: dict[str, object] | None,
    session: aiohttp.ClientSession,
) -> AsyncIterator[str]:
    """Run it until the block ends; give its base URL.

    Raises:
        EngineError: it did not come up.
    """
    port, metrics_port = _free_port(), _free_port()
    process = await asyncio.create_subprocess_exec(
        program,
        *("--worker-urls", *workers),
        *("--port", str(port), "--prometheus-port", str(metrics_port)),
        *("--policy", "cache_aware", "--request-timeout-secs", str(_FOREVER_S)),
        *("--queue-timeout-secs", str(_FOREVER_S), "--disable-retries", "--log-level", "warning"),
        *(
            ()
            if scheduling is None
            else (
                "--enable-program-scheduling",
                "--program-scheduling-config-json",
                orjson.dumps(scheduling).decode(),
            )
        ),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(READY_S):
            while not await _answers(session, url):
                if process.returncode is not None:
                    raise EngineError(f"{program} ended with {process.returncode}")
                await asyncio.sleep(0.2)
        yield url
    except TimeoutError:
        raise EngineError(f"{program} did not come up within {READY_S:g} s") from None
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
