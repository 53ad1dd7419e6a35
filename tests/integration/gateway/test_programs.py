"""Calls wait at the gateway, and go when the dispatcher of programs sends them."""

import asyncio
from collections import Counter
from dataclasses import replace

import orjson
import pytest
from aiohttp import ClientError

from scepsy.engines.emulated import EngineServerConfig, start_engine
from scepsy.gateway import dispatch_pool
from scepsy.gateway.app import GatewayConfig, start_gateway
from scepsy.gateway.capacity import Hardware
from scepsy.gateway.door import DoorLimits
from scepsy.gateway.pool import parse_replicas
from scepsy.policy.dispatch import AtOnce, Capacity
from scepsy.policy.dispatch_program import ByProgram
from scepsy.policy.news import Informed, Late
from scepsy.profiles.silicon import engine_spec
from scepsy.units import GIB

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}
ONE_AT_A_TIME = Hardware(Capacity(kv_tokens=1000, seqs=1, prompt_token_s=1e-3))


async def programs(stage, *engines, **settings):
    settings = {"hardware": {"m": ONE_AT_A_TIME}, **settings}
    return await stage.gateway(*(e.url for e in engines), policy="programs", **settings)


async def ask(stage, gateway, body=CHAT, execution="e", **headers):
    headers = {"x-scepsy-execution": execution, **headers}
    url = f"{gateway.url}/v1/chat/completions"
    async with stage.http.post(url, json=body, headers=headers) as response:
        return response.status, await response.read(), response.headers


def asking(stage, gateway, **given):
    return asyncio.create_task(ask(stage, gateway, **given))


async def waiting(stage, gateway):
    return await stage.metric(gateway, 'waiting_calls{llm="m"}')


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_calls_wait_for_room_and_all_are_answered_once(stage, eventually, body):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine)

    calls = [asking(stage, gateway, body=body, execution=f"e{at}") for at in range(5)]

    async def one_is_served_and_four_wait():
        return len(engine.seen) == 1 and await waiting(stage, gateway) == 4

    await eventually(one_is_served_and_four_wait)
    assert await stage.metric(gateway, 'admitted_executions{llm="m"}') == 1
    assert await stage.inflight(gateway) == 1
    engine.gate.set()
    assert [status for status, *_ in await asyncio.gather(*calls)] == [200] * 5
    assert len(engine.seen) == 5
    assert await waiting(stage, gateway) == await stage.inflight(gateway) == 0
    assert await stage.metric(gateway, 'admitted_executions{llm="m"}') == 0
    assert await stage.metric(gateway, 'door_seconds_count{llm="m"}') == 5


async def test_a_client_that_leaves_while_its_call_waits_is_not_served(stage, eventually):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine)
    first, second, third = (asking(stage, gateway, execution=f"e{at}") for at in range(3))

    async def two_wait():
        return len(engine.seen) == 1 and await waiting(stage, gateway) == 2

    async def one_waits():
        return await waiting(stage, gateway) == 1

    await eventually(two_wait)
    second.cancel()
    await eventually(one_waits)
    engine.gate.set()
    found = await asyncio.gather(first, third)

    assert [status for status, *_ in found] == [200, 200]
    assert len(engine.seen) == 2
    assert await stage.metric(gateway, 'calls_total{llm="m",status="cancelled"}') == 1


async def test_a_client_that_leaves_its_replica_makes_room(stage, eventually):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine)
    first = asking(stage, gateway, execution="e0")

    async def served():
        return len(engine.seen) == 1

    async def next_is_served():
        return len(engine.seen) == 2

    await eventually(served)
    second = asking(stage, gateway, execution="e1")
    first.cancel()
    await eventually(next_is_served)
    engine.gate.set()

    assert (await second)[0] == 200


async def test_too_many_calls_are_told_to_come_again(stage, eventually):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine, door=DoorLimits(calls=1))
    kept = [asking(stage, gateway, execution=f"e{at}") for at in range(2)]

    async def one_waits():
        return len(engine.seen) == 1 and await waiting(stage, gateway) == 1

    await eventually(one_waits)
    status, body, headers = await ask(stage, gateway, execution="e2")
    engine.gate.set()

    assert (status, orjson.loads(body)["error"]["code"]) == (429, "too_many_waiting")
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert [found[0] for found in await asyncio.gather(*kept)] == [200, 200]


async def test_a_call_that_waits_for_too_long_is_told_so(stage):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine, door=DoorLimits(wait_s=0.05))
    first = asking(stage, gateway, execution="e0")
    await asyncio.sleep(0)
    found = [await ask(stage, gateway, execution=f"e{at}") for at in (1, 2)]
    engine.gate.set()

    assert [(status, orjson.loads(body)["error"]["code"]) for status, body, _ in found] == [
        (503, "waited_too_long")
    ] * 2
    assert (await first)[0] == 200
    assert len(engine.seen) == 1


async def test_what_a_dead_replica_had_is_served_by_another(stage, eventually):
    doomed, other = await stage.engine("wait"), await stage.engine("answer")
    gateway = await programs(stage, doomed, other)
    calls = [asking(stage, gateway, execution=f"e{at}", body=STREAM) for at in range(4)]

    async def arrived():
        return len(doomed.seen) == 1

    await eventually(arrived)
    await doomed.stop()

    assert [status for status, *_ in await asyncio.gather(*calls)] == [200] * 4
    assert len(other.seen) == 4
    assert await stage.metric(gateway, 'retries_total{reason="lost"}') == 1
    assert await stage.metric(gateway, 'up_replicas{llm="m"}') == 1
    assert await stage.metric(gateway, 'lost_replicas_total{llm="m"}') == 1


async def test_a_connection_that_breaks_does_not_lose_a_replica_that_is_there(stage):
    engine = await stage.engine("stale")
    gateway = await programs(stage, engine)
    engine.behaviour = "die"
    status, body, _ = await ask(stage, gateway)
    engine.behaviour = "answer"

    assert (status, orjson.loads(body)["error"]["code"]) == (502, "no_answer")
    assert len(engine.seen) == 3  # and no more: it may be this call that breaks it
    assert await stage.metric(gateway, 'up_replicas{llm="m"}') == 1
    assert (await ask(stage, gateway))[0] == 200


async def test_calls_wait_for_a_replica_to_come_up(stage, eventually):
    engine = await stage.engine()
    engine.is_up = False
    gateway = await programs(stage, engine)
    call = asking(stage, gateway)

    async def waits():
        return await waiting(stage, gateway) == 1

    await eventually(waits)
    assert await stage.metric(gateway, 'up_replicas{llm="m"}') == 0
    engine.is_up = True

    assert (await call)[0] == 200


async def test_what_an_engine_answers_badly_is_not_sent_again(stage):
    engine = await stage.engine("fail")
    gateway = await programs(stage, engine)

    assert (await ask(stage, gateway))[0] == 500
    assert len(engine.seen) == 1
    assert await stage.inflight(gateway) == 0


async def test_bad_hints_are_counted_and_the_call_is_served(stage):
    engine = await stage.engine()
    gateway = await programs(stage, engine)

    status, *_ = await ask(stage, gateway, **{"x-scepsy-gap": "soon", "x-scepsy-last": "true"})
    async with stage.http.delete(f"{gateway.url}/executions/e%2F1") as response:
        ended = response.status

    assert (status, ended) == (200, 200)
    assert await stage.metric(gateway, 'bad_hints_total{hint="gap_s"}') == 1


async def test_of_calls_that_wait_the_one_with_a_deadline_goes_first(stage, eventually):
    engine = await stage.engine("wait")
    gateway = await programs(stage, engine)
    calls = []
    for at, hints in enumerate(({}, {}, {"x-scepsy-deadline": "600"})):
        body = {**CHAT, "seed": at}
        calls.append(asking(stage, gateway, body=body, execution=f"e{at}", **hints))

        async def waits(served=1, left=at):
            return len(engine.seen) == served and await waiting(stage, gateway) == left

        await eventually(waits)
    engine.gate.set()

    assert [status for status, *_ in await asyncio.gather(*calls)] == [200] * 3
    assert [body["seed"] for *_, body in engine.seen] == [0, 2, 1]


async def test_tenants_beyond_a_number_share_one_share(stage, monkeypatch):
    monkeypatch.setattr(dispatch_pool, "MOST_TENANTS", 2)
    served = []

    class Noting(AtOnce):
        def arrived(self, now_s, call):
            served.append((call.tenant, call.hints.priority))
            super().arrived(now_s, call)

    engine = await stage.engine()
    gateway = await programs(stage, engine, make_dispatcher=Noting)
    for tenant in "abca":
        await ask(stage, gateway, **{"x-scepsy-tenant": tenant, "x-scepsy-priority": "1"})

    assert served == [("a", 1), ("", 1), ("", 1), ("a", 1)]


SPEC = replace(engine_spec("qwen3-8b", "h100", tensor_parallel=1), kv_blocks=400, max_seqs=8)
EXECUTIONS, STEPS, SPEEDUP = 12, 4, 20.0


async def answered(stage, url, body, headers, tries):
    for left in reversed(range(tries)):
        try:
            async with stage.http.post(
                f"{url()}/v1/chat/completions", json=body, headers=headers
            ) as response:
                found = await response.json()
                assert response.status == 200, found
                return found
        except ClientError:  # the gateway is gone
            if not left:
                raise
            await asyncio.sleep(0.05)
    raise AssertionError


async def task(stage, url, number, answers, tries=1):
    """An execution that grows, each call with the answer before."""
    said = [{"role": "user", "content": f"{number:03d} " * 500}]
    for step in range(STEPS):
        body = {"model": "qwen3-8b", "messages": said, "max_tokens": 30, "ignore_eos": True}
        headers = {"x-scepsy-execution": f"e{number}", "x-scepsy-workflow": "w"}
        found = await answered(stage, url, body, headers, tries)
        message = found["choices"][0]["message"]
        answers[number, step] += 1
        said = [*said, message, {"role": "user", "content": f"go on {step}"}]


async def emulated(stage, count):
    config = EngineServerConfig(llm="qwen3-8b", spec=SPEC, speedup=SPEEDUP, drain_s=0.0)
    engines = [await start_engine(config) for _ in range(count)]
    for engine in engines:
        stage._stack.push_async_callback(engine.stop)
    return engines


def on_old_news():
    return Informed(ByProgram(), Late(1.0))


@pytest.mark.parametrize("make", [None, on_old_news])
async def test_nothing_is_lost_with_a_replica_of_emulated_engines(stage, eventually, make):
    engines = await emulated(stage, 3)
    gateway = await stage.gateway(
        *(e.url for e in engines),
        llm="qwen3-8b",
        policy="programs",
        make_dispatcher=make,
        speedup=SPEEDUP,
    )
    answers = Counter()
    tasks = [
        asyncio.create_task(task(stage, lambda: gateway.url, number, answers))
        for number in range(EXECUTIONS)
    ]

    async def under_way():
        return sum(answers.values()) >= EXECUTIONS

    await eventually(under_way)
    await engines[0].stop()
    await asyncio.gather(*tasks)

    assert answers == {(n, s): 1 for n in range(EXECUTIONS) for s in range(STEPS)}
    assert await stage.inflight(gateway) == 0
    assert await stage.metric(gateway, 'calls_total{llm="qwen3-8b",status="ok"}') == len(answers)


async def test_a_gateway_that_is_started_anew_goes_on_with_what_clients_send_again(
    stage, eventually
):
    engines = await emulated(stage, 2)
    urls = [engine.url for engine in engines]
    settings = {"llm": "qwen3-8b", "policy": "programs", "speedup": SPEEDUP}
    gateways = [await stage.gateway(*urls, **settings)]
    answers = Counter()

    async def under_way():
        return sum(answers.values()) >= EXECUTIONS

    tasks = [
        asyncio.create_task(task(stage, lambda: gateways[-1].url, number, answers, tries=50))
        for number in range(EXECUTIONS)
    ]
    await eventually(under_way)
    await gateways[0].stop()
    gateways.append(await stage.gateway(*urls, **settings))
    await asyncio.gather(*tasks)

    assert answers == {(n, s): 1 for n in range(EXECUTIONS) for s in range(STEPS)}
    assert await stage.inflight(gateways[1]) == 0


async def test_a_gateway_learns_what_emulated_engines_hold(stage):
    (engine,) = await emulated(stage, 1)

    async with stage.http.get(f"{engine.url}/scepsy/capacity") as response:
        found = Capacity(**await response.json())

    assert found.kv_tokens == SPEC.kv_blocks * SPEC.block_tokens
    assert found.seqs == 8


@pytest.mark.parametrize("told", [{}, {"host_bytes": {"m": GIB}}])
async def test_a_dispatcher_knows_the_host_memory_that_the_gateway_was_told_of(stage, told):
    joined = []

    class Noting(AtOnce):
        def joined(self, now_s, replica, capacity):
            joined.append(capacity.host_tokens)
            super().joined(now_s, replica, capacity)

    hardware = replace(ONE_AT_A_TIME, token_bytes=GIB / 500)
    settings = {"hardware": {"m": hardware}, "make_dispatcher": Noting, **told}
    await programs(stage, await stage.engine(), **settings)

    assert joined == [500 if told else 0]


async def test_an_unknown_policy_names_those_there_are():
    config = GatewayConfig(replicas=parse_replicas(["m=http://a"]), port=0, policy="program")

    with pytest.raises(Exception, match="unknown routing policy `program`"):
        await start_gateway(config)
