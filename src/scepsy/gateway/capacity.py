"""How much fits on a replica, and how fast it is: what a dispatcher needs to know of it.

Of each figure the first that is known counts: what the user says (``--kv-tokens``), what the engine
says (emulated ones say all; vLLM says its KV blocks in ``/metrics``), what the hardware should do
(``--hardware``), and what is assumed. Wrong figures cost time, never a call.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import aiohttp
import orjson

from scepsy.errors import InputError
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.model.workflow import LlmName
from scepsy.policy.dispatch import Capacity
from scepsy.policy.program import TenantName
from scepsy.units import GIB

ASSUMED = Capacity(kv_tokens=200_000, seqs=256, prompt_token_s=1e-4, decode_s=0.02)
"""Of a replica of which nothing is known: about an LLM of 8 B parameters on a large GPU."""
CAPACITY_PATH = "/scepsy/capacity"
"""Where emulated engines say what they are."""
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(\d+)"')
_MOST_BYTES = 4 * 1024**2


def parse_kv_tokens(texts: Sequence[str]) -> Mapping[LlmName, int]:
    """Read ``<llm>=<tokens>`` items.

    Raises:
        InputError: an item of another form, or fewer than one token.
    """
    found: dict[LlmName, int] = {}
    for text in texts:
        llm, _, tokens = text.partition("=")
        if not llm or not tokens.isdecimal() or int(tokens) < 1:
            raise InputError(
                f"`{text}` does not say what fits in KV", hint="write it like qwen3-8b=400000"
            )
        found[LlmName(llm)] = int(tokens)
    return found


def parse_shares(texts: Sequence[str]) -> Mapping[TenantName, float]:
    """Read ``<tenant>=<weight>`` items.

    Raises:
        InputError: an item of another form, or a weight that is not above 0.
    """
    found: dict[TenantName, float] = {}
    for text in texts:
        tenant, _, weight = text.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not tenant or not 0 < value < float("inf"):
            raise InputError(f"`{text}` is not a tenant's weight", hint="write it like research=2")
        found[TenantName(tenant)] = value
    return found


def parse_hardware(texts: Sequence[str]) -> Mapping[LlmName, Capacity]:
    """Read ``<llm>=<gpu>[:<tensor parallel degree>][+<GiB>]`` items.

    Returns:
        What such replicas should do, with so much host memory for their KV.

    Raises:
        InputError: an item of another form.
        ScepsyError: LLM or GPU type are not known, or nothing is published of them.
    """
    if not texts:
        return {}
    # Reads tables at import.
    from scepsy.profiles.silicon import engine_spec, with_host_memory  # noqa: PLC0415
    from scepsy.sim.program_fleet import capacity_of  # noqa: PLC0415

    found: dict[LlmName, Capacity] = {}
    for text in texts:
        llm, _, hardware = text.partition("=")
        gpus, plus, host_gib = hardware.partition("+")
        gpu, _, degree = gpus.partition(":")
        numbers = (degree or "1").isdecimal() and host_gib.isdecimal() == bool(plus)
        if not llm or not gpu or not numbers:
            raise InputError(
                f"`{text}` does not say what a replica runs on",
                hint="write it like qwen3-32b=h100:2, or h100:2+256 with 256 GiB of host memory",
            )
        count = int(degree or "1")
        spec = engine_spec(llm, gpu, tensor_parallel=count)
        if plus:
            host_bytes = int(host_gib) * GIB
            spec = with_host_memory(spec, llm, gpu, tensor_parallel=count, host_bytes=host_bytes)
        found[LlmName(llm)] = capacity_of(spec)
    return found


async def read_capacity(
    session: aiohttp.ClientSession, url: str, otherwise: Capacity, kv_tokens: int | None = None
) -> Capacity:
    """Of a replica that is up.

    Args:
        session: to ask it with.
        url: its base URL, without ``/v1``.
        otherwise: what holds where it says nothing.
        kv_tokens: what fits, where that was told by the user.
    """
    found = await _announced(session, url)
    if found is None:
        said = _kv_tokens_in(await _page(session, f"{url}/metrics"))
        found = otherwise if said is None else replace(otherwise, kv_tokens=said)
    if kv_tokens is not None:
        found = replace(found, kv_tokens=kv_tokens)
    return replace(found, block_tokens=BLOCK_TOKENS)  # of the blocks that the gateway hashes


async def _announced(session: aiohttp.ClientSession, url: str) -> Capacity | None:
    try:
        return Capacity(**orjson.loads(await _page(session, url + CAPACITY_PATH)))
    except (orjson.JSONDecodeError, TypeError, InputError):
        return None  # it is another server


async def _page(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url) as response:
            return await response.content.read(_MOST_BYTES) if response.status == 200 else b""
    except (aiohttp.ClientError, OSError, TimeoutError):
        return b""


def _kv_tokens_in(page: bytes) -> int | None:
    """What vLLM's metrics say."""
    found = _CACHE_CONFIG.search(page.decode(errors="replace"))
    labels = dict(_LABEL.findall(found[1])) if found else {}
    tokens = int(labels.get("num_gpu_blocks", 0)) * int(labels.get("block_size", 0))
    return tokens or None
