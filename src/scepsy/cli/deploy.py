"""``scepsy deploy``: from a plan to something that serves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.host_memory import HostGib
from scepsy.cli.output import JsonOption, print_json_line, progress, say
from scepsy.cli.serving import stop_asked

if TYPE_CHECKING:
    from scepsy.deploy.local import GatewayOptions
    from scepsy.deploy.render import EngineCommand

app = typer.Typer(help="Start what a plan says.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Start what a plan says."""


@app.command()
def local(
    *,
    plan: Annotated[Path, typer.Argument(help="A plan written by `scepsy plan`.")],
    speedup: Annotated[
        float, typer.Option(help="Times faster than the silicon that the engines stand for.")
    ] = 1.0,
    script: Annotated[
        list[Path] | None,
        typer.Option(help="Python file that scripts the engines' answers; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the gateway; 0 takes a free one.")] = 8080,
    policy: Annotated[
        str | None, typer.Option(help="How the gateway serves calls. Default: the plan's.")
    ] = None,
    host_gib: HostGib = None,
    record: Annotated[
        Path | None, typer.Option(help="Trace store that calls are recorded into.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a plan on this host: an emulated engine for each replica, the gateway in front.

    Engines that take turns on the same GPUs share a process, which knows whose turn it is. Needs no
    GPU: engines answer with the timing of the plan's GPUs. Those that offload KV to host memory
    (`--host-gib`) tell the gateway, which counts on it with `--policy programs`. Ends with Ctrl-C.

    **Example:**

        scepsy deploy local plan.json --speedup 4 --record served.db
    """
    import asyncio

    from scepsy.cli.host_memory import parse_host_gib
    from scepsy.deploy.local import GatewayOptions
    from scepsy.deploy.render import emulated_engines
    from scepsy.files.plan_file import load_plan
    from scepsy.policy.by_name import find_dispatcher

    loaded = load_plan(plan)
    served_by = policy or loaded.route
    find_dispatcher(served_by)  # before any engine starts
    options = GatewayOptions(
        speedup=speedup, host=host, port=port, policy=served_by, record=record, plan=plan
    )
    commands = emulated_engines(
        loaded,
        speedup=speedup,
        scripts=tuple(script or ()),
        host_bytes=parse_host_gib(host_gib, [group.llm for group in loaded.allocation.groups]),
    )
    asyncio.run(_serve(commands, options, as_json=as_json))


async def _serve(
    commands: "Sequence[EngineCommand]", options: "GatewayOptions", *, as_json: bool
) -> None:
    import asyncio
    from contextlib import AsyncExitStack

    from scepsy.deploy.local import first_to_end, serve_locally
    from scepsy.errors import EngineError

    stop = stop_asked()
    async with AsyncExitStack() as stack:
        with progress("starting engines", total=len(commands)) as advance:
            deployment = serve_locally(commands, options, on_ready=advance.at)
            served = await stack.enter_async_context(deployment)
        if as_json:
            engines = [
                {"replica": replica.name, "llm": replica.llm, "url": replica.url}
                for replica in served.replicas
            ]
            print_json_line({"url": served.url, "engines": engines})
        say(f"serving {len(served.replicas)} replicas at {served.url}/v1 (Ctrl-C ends)")
        death = asyncio.create_task(first_to_end(served.engines))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({death, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if death.done():
            engine = death.result()
            raise EngineError(f"{engine.name} died: {engine.last_words}")
        death.cancel()
    say("stopped")
