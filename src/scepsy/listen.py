"""Listen on an address, or say why not."""

import errno

from aiohttp import web

from scepsy.errors import InputError


async def listen(runner: web.ServerRunner, host: str, port: int) -> str:
    """Start a server on an address; give the URL that reaches it.

    Args:
        runner: of the server, set up.
        host: name or IP address.
        port: 0 takes a free one.

    Raises:
        InputError: the port is taken, or the address is none of this machine's.
    """
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"{where} is taken", hint="give another --port, or 0 for any that is free"
            ) from error
        raise InputError(f"cannot listen on {where}: {error.strerror or error}") from error
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{site.port}"
