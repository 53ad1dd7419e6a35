"""How much fits on a replica, and how fast it is: what a dispatcher needs to know of it.

Of each figure the first that is known counts: what the user says (``--kv-tokens``, ``--host-gib``),
what the engine says (emulated ones say all; vLLM says its KV blocks, and the host memory that it
offloads to, in ``/metrics``), what the hardware should do (``--hardware``), and what is assumed.
Wrong figures cost time, never a call.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import aiohttp
import orjson

from scepsy.errors import InputError
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.model.workflow import LlmName
from scepsy.policy.dispatch import Capacity
from scepsy.policy.program import TenantName
from scepsy.profiles.catalog import find_llm
from scepsy.profiles.step_time import EngineSpec
from scepsy.units import GIB


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a replica should do by what it runs on, and what host memory would be to it."""

    capacity: Capacity
    """Where its engine says nothing."""
    token_bytes: float = 0.0
    """KV of one token, over all its GPUs; 0 where unknown."""
    host_token_s: float = 0.0
    """To bring that back from host memory."""

    def offloading(self, capacity: Capacity, host_bytes: float) -> Capacity:
        """With so much host memory for KV; none is counted on where its worth is unknown."""
        if not self.token_bytes:
            return capacity
        tokens = int(host_bytes / self.token_bytes)
        return replace(capacity, host_tokens=tokens, host_token_s=self.host_token_s)


ASSUMED = Hardware(Capacity(kv_tokens=200_000, seqs=256, prompt_token_s=1e-4, decode_s=0.02))
"""Of a replica of which nothing is known: about an LLM of 8 B parameters on a large GPU."""
CAPACITY_PATH = "/scepsy/capacity"
"""Where emulated engines say what they are."""
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{([^}]*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]+)?")
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


def hardware_of(spec: EngineSpec, llm: str, gpu_type: str, tensor_parallel: int) -> Hardware:
    """Of a replica that is such an engine.

    Raises:
        UnknownNameError: no such LLM or GPU type.
    """
    # Both read tables at import.
    from scepsy.profiles.silicon import with_host_memory  # noqa: PLC0415
    from scepsy.sim.program_fleet import capacity_of  # noqa: PLC0415

    one = with_host_memory(spec, llm, gpu_type, tensor_parallel=tensor_parallel, host_bytes=0)
    token_bytes = find_llm(llm).replica_kv_bytes_per_token(tensor_parallel)
    return Hardware(capacity_of(spec), token_bytes, one.host_block_s / one.block_tokens)


def parse_hardware(texts: Sequence[str]) -> Mapping[LlmName, Hardware]:
    """Read ``<llm>=<gpu>[:<tensor parallel degree>][+<GiB>]`` items.

    Returns:
        What such replicas should do, with so much host memory for their KV.

    Raises:
        InputError: an item of another form.
        ScepsyError: LLM or GPU type are not known, or nothing is published of them.
    """
    if not texts:
        return {}
    from scepsy.profiles.silicon import engine_spec  # noqa: PLC0415 - reads tables at import

    found: dict[LlmName, Hardware] = {}
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
        made = hardware_of(engine_spec(llm, gpu, tensor_parallel=count), llm, gpu, count)
        if plus:
            more = made.offloading(made.capacity, int(host_gib) * GIB)
            made = replace(made, capacity=more)
        found[LlmName(llm)] = made
    return found


async def read_capacity(
    session: aiohttp.ClientSession,
    url: str,
    hardware: Hardware = ASSUMED,
    kv_tokens: int | None = None,
    host_bytes: float | None = None,
) -> Capacity:
    """Of a replica that is up.

    Args:
        session: to ask it with.
        url: its base URL, without ``/v1``.
        hardware: what holds where it says nothing.
        kv_tokens: what fits, where that was told by the user.
        host_bytes: host memory that it offloads KV to, where that was told by the user.
    """
    found = await _announced(session, url)
    if found is None:
        page = await _page(session, f"{url}/metrics")
        found = _said_by_vllm(page.decode(errors="replace"), hardware)
    if kv_tokens is not None:
        found = replace(found, kv_tokens=kv_tokens)
    if host_bytes is not None:
        found = hardware.offloading(found, host_bytes)
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


def _said_by_vllm(page: str, hardware: Hardware) -> Capacity:
    """What vLLM's metrics say, and of the rest what the hardware should do."""
    config = _CACHE_CONFIG.search(page)
    labels = dict(_LABEL.findall(config[1])) if config else {}
    found = hardware.capacity
    tokens = _number(labels, "num_gpu_blocks") * _number(labels, "block_size")
    if tokens:
        found = replace(found, kv_tokens=int(tokens))
    host_gib = _number(labels, "kv_offloading_size")  # of all ranks
    if host_gib and labels.get("kv_offloading_backend", "native") == "native":
        found = hardware.offloading(found, host_gib * GIB)
    return found


def _number(labels: Mapping[str, str], name: str) -> float:
    """0 where there is none."""
    text = labels.get(name, "")
    return float(text) if _NUMBER.fullmatch(text) else 0.0
