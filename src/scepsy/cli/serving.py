"""What all commands share that serve until they are told to stop."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def run_server(work: Coroutine[None, None, None]) -> None:
    """Run a server's coroutine to its end, on the fastest event loop there is."""
    import asyncio
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        runner.run(work)


def stop_asked() -> "asyncio.Event":
    """Set when SIGINT or SIGTERM comes, from now on. Call it in the running event loop."""
    import asyncio
    import signal

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def _new_event_loop() -> "asyncio.AbstractEventLoop":
    import asyncio

    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
