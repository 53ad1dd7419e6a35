"""``scepsy gateway``: serve several LLMs behind one address, and record what is served."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scepsy.cli.output import JsonOption, print_json_line, say
from scepsy.cli.serving import run_server, stop_asked

if TYPE_CHECKING:
    from scepsy.gateway.app import GatewayConfig


def gateway(
    *,
    replica: Annotated[
        list[str],
        typer.Option(
            help="An LLM's server, as LLM=URL. Repeat it; an LLM may have several.",
            metavar="LLM=URL",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8080,
    record: Annotated[
        Path | None,
        typer.Option(help="Trace store to record calls into; made if it is not there."),
    ] = None,
    record_content: Annotated[
        bool, typer.Option("--record-content", help="Record prompts and answers, too.")
    ] = False,
    speedup: Annotated[
        float, typer.Option(help="How much faster than silicon the emulated engines run.")
    ] = 1.0,
    policy: Annotated[
        str, typer.Option(help="How a replica is picked for a call.")
    ] = "least-loaded",
    max_body_bytes: Annotated[
        str, typer.Option(help="Largest request body; a larger one gets status 413.")
    ] = "32MiB",
    as_json: JsonOption = False,
) -> None:
    """Serve LLMs at one OpenAI-compatible address, and record each call's execution.

    Runs until it is interrupted; calls in flight then have 5 s to end. What is recorded is times,
    token counts and hashes, never what was said, unless --record-content is given.

    Example:
        scepsy gateway --replica qwen3-32b=http://127.0.0.1:9001 --record traces.db
    """
    from scepsy.gateway.app import GatewayConfig
    from scepsy.gateway.pool import parse_replicas
    from scepsy.units import parse_bytes

    config = GatewayConfig(
        replicas=parse_replicas(replica),
        host=host,
        port=port,
        record=record,
        record_content=record_content,
        speedup=speedup,
        policy=policy,
        max_body_bytes=parse_bytes(max_body_bytes),
    )
    run_server(_serve(config, as_json=as_json))


async def _serve(config: "GatewayConfig", *, as_json: bool) -> None:
    from scepsy.gateway.app import is_loopback, start_gateway

    stopped = stop_asked()
    running = await start_gateway(config)
    try:
        if as_json:
            llms = sorted({replica.llm for replica in config.replicas})
            print_json_line({"url": running.url, "llms": llms})
        else:
            say(f"serving at {running.url}/v1; stop with Ctrl-C")
        if not is_loopback(config.host):
            say(f"there is no authentication: whoever reaches {config.host} may call")
        await stopped.wait()
    finally:
        await running.stop()
    if config.record is not None:
        say(f"recorded into {config.record}")
