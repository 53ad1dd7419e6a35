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
            help="An LLM's server, as LLM=URL. Repeat it; an LLM may have several. With --plan: a "
            "replica's of the plan, as NAME=URL.",
            metavar="LLM=URL",
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            help="The plan that the replicas serve. Says which LLMs take turns: they are routed by "
            "what goes on beside each replica."
        ),
    ] = None,
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
        str | None,
        typer.Option(
            help="How a replica is picked for a call. Default: the plan's, or least-loaded."
        ),
    ] = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            help="What an LLM's replicas run on, GPUs of a replica behind the colon. Repeatable.",
            metavar="LLM=GPU[:N]",
        ),
    ] = None,
    kv_tokens: Annotated[
        list[str] | None,
        typer.Option(help="KV tokens that fit on an LLM's replica.", metavar="LLM=TOKENS"),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(help="Low favours the slowest calls, high the number of calls a second."),
    ] = 1.25,
    share: Annotated[
        list[str] | None,
        typer.Option(help="A tenant's weight; 1 where not given.", metavar="TENANT=WEIGHT"),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(help="Calls of an LLM that may wait; a further one gets status 429.")
    ] = 4096,
    max_wait_s: Annotated[
        float, typer.Option(help="How long a call may wait for a replica; then it gets 503.")
    ] = 600.0,
    max_body_bytes: Annotated[
        str, typer.Option(help="Largest request body; a larger one gets status 413.")
    ] = "32MiB",
    as_json: JsonOption = False,
) -> None:
    """Serve LLMs at one OpenAI-compatible address, and record each call's execution.

    Runs until it is interrupted; calls in flight then have 5 s to end. What is recorded is times,
    token counts and hashes, never what was said, unless --record-content is given.

    With --policy programs, calls wait here until a replica has room for them, near what their
    executions left behind; --hardware and what follows it is for that policy.

    Example:
        scepsy gateway --replica qwen3-32b=http://127.0.0.1:9001 --record traces.db
    """
    from scepsy.files.plan_file import load_plan
    from scepsy.gateway.app import GatewayConfig
    from scepsy.gateway.capacity import parse_hardware, parse_kv_tokens, parse_shares
    from scepsy.gateway.door import DoorLimits
    from scepsy.gateway.pool import parse_replicas
    from scepsy.gateway.turns import planned_replicas, planned_turns
    from scepsy.policy.dispatch_settings import Settings
    from scepsy.policy.route import DEFAULT_POLICY
    from scepsy.units import parse_bytes

    served = None if plan is None else load_plan(plan)
    config = GatewayConfig(
        replicas=parse_replicas(replica) if served is None else planned_replicas(served, replica),
        host=host,
        port=port,
        record=record,
        record_content=record_content,
        speedup=speedup,
        policy=policy or (served.route if served else DEFAULT_POLICY),
        turns=planned_turns(served) if served else None,
        programs=Settings(patience=patience, weights=parse_shares(share or ())),
        door=DoorLimits(calls=max_waiting, wait_s=max_wait_s),
        hardware=parse_hardware(hardware or ()),
        kv_tokens=parse_kv_tokens(kv_tokens or ()),
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
