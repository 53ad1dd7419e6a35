import orjson
import pytest
from aiohttp import ClientSession, web

from scepsy.errors import InputError, UnknownNameError
from scepsy.gateway.capacity import (
    ASSUMED,
    CAPACITY_PATH,
    Hardware,
    parse_hardware,
    parse_kv_tokens,
    parse_shares,
    read_capacity,
)
from scepsy.model.execution import BLOCK_TOKENS
from scepsy.policy.dispatch import Capacity
from scepsy.profiles.catalog import find_llm
from scepsy.units import GIB

SAID = Capacity(kv_tokens=777, seqs=3, prompt_token_s=0.5, host_tokens=9, block_tokens=16)
VLLM = b"""# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="5000",engine="0"} 1.0
"""
OFFLOADING = b"""vllm:cache_config_info{block_size="16",gpu_memory_utilization="0.9",\
kv_offloading_backend="%s",kv_offloading_size="%s",num_gpu_blocks="5000",engine="0"} 1.0
"""
NOT_YET = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0\n'


async def read(pages, otherwise=ASSUMED, **told):
    async def handle(request):
        page = pages.get(request.path)
        return web.Response(body=page) if page is not None else web.Response(status=404)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with ClientSession() as session:
            url = f"http://127.0.0.1:{site.port}"
            return await read_capacity(session, url, otherwise, **told)
    finally:
        await runner.cleanup()


async def test_an_engine_that_says_all_is_believed_in_blocks_of_the_gateway():
    found = await read({CAPACITY_PATH: orjson.dumps(SAID), "/metrics": VLLM})

    assert (found.kv_tokens, found.seqs, found.host_tokens) == (777, 3, 9)
    assert found.block_tokens == BLOCK_TOKENS


async def test_vllm_says_its_kv_in_its_metrics():
    found = await read({"/metrics": VLLM}, otherwise=Hardware(SAID))

    assert (found.kv_tokens, found.seqs, found.host_tokens) == (80_000, 3, 9)


ON_HOST = Hardware(SAID, token_bytes=GIB / 1000, host_token_s=0.25)
"""1,000 tokens a GiB."""


@pytest.mark.parametrize(
    ("backend", "size", "host_tokens"),
    [
        (b"native", b"64.0", 64_000),
        (b"native", b"0.5", 500),
        (b"native", b"None", 9),
        (b"native", b"nan", 9),
        (b"native", b"9" * 400, 9),
        (b"lmcache", b"64.0", 9),
    ],
)
async def test_vllm_says_what_host_memory_it_offloads_to(backend, size, host_tokens):
    found = await read({"/metrics": OFFLOADING % (backend, size)}, otherwise=ON_HOST)

    assert (found.kv_tokens, found.host_tokens) == (80_000, host_tokens)
    assert found.host_token_s == (0.0 if host_tokens == 9 else 0.25)


async def test_host_memory_is_not_counted_on_where_nobody_knows_what_it_holds():
    found = await read({"/metrics": OFFLOADING % (b"native", b"64.0")})

    assert (found.kv_tokens, found.host_tokens) == (80_000, 0)


@pytest.mark.parametrize(
    "pages",
    [{}, {"/metrics": b""}, {"/metrics": NOT_YET}, {CAPACITY_PATH: b"{}"}, {CAPACITY_PATH: b"x"}],
)
async def test_of_an_engine_that_says_nothing_the_rest_holds(pages):
    assert await read(pages) == ASSUMED.capacity


@pytest.mark.parametrize(
    "pages",
    [{"/metrics": OFFLOADING % (b"native", b"64.0")}, {CAPACITY_PATH: orjson.dumps(SAID)}],
)
async def test_the_user_knows_best(pages):
    found = await read(pages, otherwise=ON_HOST, kv_tokens=5, host_bytes=2 * GIB)

    assert (found.kv_tokens, found.host_tokens, found.host_token_s) == (5, 2000, 0.25)


def capacity(text):
    return parse_hardware([text])["qwen3-32b"].capacity


def test_hardware_says_what_a_replica_should_do():
    one, two = (capacity(f"qwen3-32b=h100{n}") for n in ("", ":2"))

    assert two.kv_tokens > 2 * one.kv_tokens
    assert two.prompt_token_s < one.prompt_token_s
    assert parse_hardware([]) == {}
    assert (two.host_tokens, two.host_token_s) == (0, 0.0)


def test_host_memory_holds_its_bytes_and_each_gpu_has_its_link():
    one, two = (capacity(f"qwen3-32b=h100:{n}+64") for n in (1, 2))

    token_bytes = find_llm("qwen3-32b").replica_kv_bytes_per_token(2)
    assert two.host_tokens == pytest.approx(64 * GIB / token_bytes, rel=1e-4)
    assert one.host_token_s == pytest.approx(2 * two.host_token_s)
    assert 0 < two.host_token_s < two.prompt_token_s
    without = parse_hardware(["qwen3-32b=h100:2"])["qwen3-32b"]
    assert without.offloading(without.capacity, 64 * GIB) == two


def test_what_users_say_of_tenants_and_kv():
    assert parse_shares(["a=2", "b=c=0.5"]) == {"a": 2.0, "b=c": 0.5}
    assert parse_kv_tokens(["m=12"]) == {"m": 12}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_shares, "a"),
        (parse_shares, "a=0"),
        (parse_shares, "=1"),
        (parse_kv_tokens, "m=0"),
        (parse_kv_tokens, "m=1e5"),
        (parse_hardware, "qwen3-32b"),
        (parse_hardware, "qwen3-32b=h100:two"),
        (parse_hardware, "qwen3-32b=h100+"),
        (parse_hardware, "qwen3-32b=h100:2+1TiB"),
    ],
)
def test_bad_options_are_input_errors(parse, text):
    with pytest.raises(InputError) as caught:
        parse([text])

    assert str(caught.value.hint).startswith("write it like")


def test_an_unknown_gpu_is_said_to_be_unknown():
    with pytest.raises(UnknownNameError):
        parse_hardware(["qwen3-32b=h1000"])
