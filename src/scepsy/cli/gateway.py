"""``scepsy gateway``: serve several LLMs behind one address, and record what is served."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scepsy.cli import gateway_options as given
from scepsy.cli.output import JsonOption, print_json_line, say
from scepsy.cli.serving import run_server, stop_asked
from scepsy.errors import InputError

if TYPE_CHECKING:
    from scepsy.gateway.app import GatewayConfig
    from scepsy.model.workflow import LlmName


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
    host_gib: given.HostGib = None,
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
    from scepsy.gateway.capacity import parse_hardware, parse_kv_tokens, parse_shares
    from scepsy.gateway.door import DoorLimits
    from scepsy.policy.by_name import SERVED
    from scepsy.units import parse_bytes

    served = _served(replica, plan, policy)
    runs_on = {**served.hardware, **parse_hardware(hardware or ())}
    config = replace(
        served,
        host=host,
        port=port,
        record=record,
        record_content=record_content,
        speedup=speedup,
        programs=replace(SERVED, patience=patience, weights=parse_shares(share or ())),
        door=DoorLimits(calls=max_waiting, wait_s=max_wait_s),
        hardware=runs_on,
        host_bytes=_host_bytes(host_gib, replace(served, hardware=runs_on)),
        kv_tokens=parse_kv_tokens(kv_tokens or ()),
        max_body_bytes=parse_bytes(max_body_bytes),
    )
    run_server(_serve(config, as_json=as_json))


def _served(replicas: Sequence[str], plan: Path | None, policy: str | None) -> "GatewayConfig":
    """What answers calls, and what a plan says of it."""
    from scepsy.files.plan_file import load_plan
    from scepsy.gateway.app import GatewayConfig
    from scepsy.gateway.pool import parse_replicas
    from scepsy.gateway.turns import planned_hardware, planned_replicas, planned_turns
    from scepsy.policy.by_name import PROGRAMS
    from scepsy.policy.route import DEFAULT_POLICY

    if plan is None:
        return GatewayConfig(replicas=parse_replicas(replicas), policy=policy or DEFAULT_POLICY)
    planned = load_plan(plan)
    served = GatewayConfig(
        replicas=planned_replicas(planned, replicas), policy=policy or planned.route
    )
    if served.policy == PROGRAMS:
        return replace(served, hardware=planned_hardware(planned))
    return replace(served, turns=planned_turns(planned))


def _host_bytes(texts: Sequence[str] | None, served: "GatewayConfig") -> "Mapping[LlmName, float]":
    """Raises ``InputError`` where it would not be counted on."""
    from scepsy.cli.host_memory import parse_host_gib
    from scepsy.policy.by_name import PROGRAMS

    found = parse_host_gib(texts, [each.llm for each in served.replicas])
    if found and served.policy != PROGRAMS:
        raise InputError(
            f"`--host-gib` says nothing to the policy `{served.policy}`",
            hint=f"add `--policy {PROGRAMS}`, or leave `--host-gib` out",
        )
    for llm in found.keys() - served.hardware.keys():
        raise InputError(
            f"`--host-gib {llm}=...`: what fits there depends on what its replicas run on",
            hint=f"add it, like `--hardware {llm}=h100:2`",
        )
    return found


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
