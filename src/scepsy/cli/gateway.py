"""``scepsy gateway``: serve several LLMs behind one address, and record what is served."""

from dataclasses import replace
from typing import TYPE_CHECKING

from scepsy.cli import gateway_options as given
from scepsy.cli.output import JsonOption, print_json_line, say
from scepsy.cli.serving import run_server, stop_asked

if TYPE_CHECKING:
    from scepsy.gateway.app import GatewayConfig


def gateway(
    *,
    replica: given.Replicas,
    plan: given.PlanPath = None,
    host: given.Host = "127.0.0.1",
    port: given.Port = 8080,
    record: given.Record = None,
    record_content: given.RecordContent = False,
    speedup: given.Speedup = 1.0,
    policy: given.Policy = None,
    hardware: given.Hardware = None,
    kv_tokens: given.KvTokens = None,
    patience: given.Patience = 1.25,
    share: given.Shares = None,
    max_waiting: given.MaxWaiting = 4096,
    max_wait_s: given.MaxWait = 600.0,
    max_body_bytes: given.MaxBody = "32MiB",
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
    from scepsy.policy.by_name import SERVED
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
        programs=replace(SERVED, patience=patience, weights=parse_shares(share or ())),
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
