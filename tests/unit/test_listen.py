"""Listening on an address."""

import socket

import pytest
from aiohttp import ClientSession, web

from scepsy.errors import InputError
from scepsy.listen import listen


async def _answer(_request: web.BaseRequest) -> web.Response:
    return web.Response(text="here")


async def _runner() -> web.ServerRunner:
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    return runner


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_url_reaches_the_server(host: str) -> None:
    runner = await _runner()
    try:
        url = await listen(runner, host, 0)
        async with ClientSession() as client, client.get(url) as response:
            assert await response.text() == "here"
    finally:
        await runner.cleanup()


async def test_says_that_a_port_is_taken() -> None:
    runner = await _runner()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        try:
            with pytest.raises(InputError, match=f"127.0.0.1:{port} is taken"):
                await listen(runner, "127.0.0.1", port)
        finally:
            await runner.cleanup()
