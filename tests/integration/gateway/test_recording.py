"""What is written down of the calls that were served."""

import asyncio
import json
import logging
import resource
import signal
import sys
import threading

import pytest

from scepsy.clock import ScaledClock
from scepsy.model.execution import CallStatus, Endpoint
from scepsy.model.prompt import block_ids, prompt_bytes
from scepsy.traces.store import SqliteTraceStore

PROMPT = "a secret that no file may hold " * 40
CHAT = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}


async def ask(stage, gateway, body, path="/v1/chat/completions", **headers):
    async with stage.http.post(gateway.url + path, json=body, headers=headers) as response:
        await response.read()


def calls_in(path):
    with SqliteTraceStore.open(path, create=False) as store:
        return [call for execution in store.executions() for call in execution.calls]


async def test_a_call_is_recorded_with_all_that_is_known(stage, tmp_path):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, record=tmp_path / "t.db", speedup=10.0)
    before_s = ScaledClock(10.0).now_s()

    await ask(stage, gateway, {**CHAT, "stream": True}, path="/w/rag/e1/writer/v1/chat/completions")
    await ask(stage, gateway, CHAT, **{"x-scepsy-workflow": "rag", "x-scepsy-execution": "e1"})
    await gateway.stop()

    streamed, whole = calls_in(tmp_path / "t.db")
    prompt = prompt_bytes(Endpoint.CHAT, CHAT)
    assert (streamed.workflow, streamed.execution, streamed.role) == ("rag", "e1", "writer")
    assert (streamed.llm, streamed.replica, streamed.endpoint) == ("m", "m-0", Endpoint.CHAT)
    assert before_s < streamed.start_s < streamed.first_token_s < streamed.end_s
    assert streamed.end_s < before_s + 10 * 10
    assert streamed.prefix_blocks == block_ids(prompt)
    assert len(streamed.prefix_blocks) == len(prompt) // 256
    # The engine sent no usage: bytes are counted.
    assert (streamed.prompt_tokens, streamed.output_tokens) == (-(-len(prompt) // 4), 5)
    assert streamed.cached_tokens is None
    assert whole.role == ""
    assert whole.first_token_s is None
    assert (whole.prompt_tokens, whole.output_tokens, whole.cached_tokens) == (100, 7, 64)
    assert whole.status is CallStatus.OK


async def test_the_blocks_of_prompt_and_output_are_those_of_the_next_prompt(stage, tmp_path):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, record=tmp_path / "t.db")
    answer = {"role": "assistant", "content": "The answer is 42."}
    longer = [*CHAT["messages"], answer, {"role": "user", "content": PROMPT}]

    await ask(stage, gateway, CHAT)
    await ask(stage, gateway, {"model": "m", "messages": longer})
    await gateway.stop()

    first, second = calls_in(tmp_path / "t.db")
    assert first.execution == second.execution  # told by the prefix alone
    known = first.prefix_blocks + first.output_blocks
    assert second.prefix_blocks[: len(known)] == known


@pytest.mark.parametrize("record_content", [False, True])
async def test_content_is_kept_only_where_it_was_asked_for(stage, tmp_path, record_content):
    engine = await stage.engine()
    path = tmp_path / "t.db"
    gateway = await stage.gateway(engine.url, record=path, record_content=record_content)

    await ask(stage, gateway, CHAT, Authorization="Bearer sk-secret")
    await ask(stage, gateway, {**CHAT, "stream": True})
    await gateway.stop()

    with SqliteTraceStore.open(path, create=False) as store:
        found = [store.content(call.id) for e in store.executions() for call in e.calls]
    if record_content:
        whole, streamed = found
        assert json.loads(whole.request) == CHAT
        assert json.loads(whole.response)["choices"][0]["message"]["content"] == "The answer is 42."
        assert streamed.response.endswith(b"data: [DONE]\n\n")
    else:
        assert found == [None, None]
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert b"secret" not in stored
        assert b"The answer" not in stored


async def test_calls_that_fail_are_recorded_as_what_they_were(stage, tmp_path, eventually):
    engine = await stage.engine("die in stream")
    gateway = await stage.gateway(engine.url, record=tmp_path / "t.db")

    await ask(stage, gateway, {**CHAT, "stream": True})
    engine.behaviour = "refuse"
    await ask(stage, gateway, CHAT)
    engine.behaviour = "wait"
    call = asyncio.create_task(ask(stage, gateway, CHAT))

    async def arrived():
        return len(engine.seen) == 3

    async def left():
        return await stage.inflight(gateway) == 0

    await eventually(arrived)
    call.cancel()
    await eventually(left)
    await gateway.flush()

    broken, refused, cancelled = calls_in(tmp_path / "t.db")
    assert (broken.status, broken.output_tokens > 0) == (CallStatus.ERROR, True)
    assert broken.first_token_s is not None
    assert refused.status is CallStatus.REJECTED
    assert cancelled.status is CallStatus.CANCELLED


async def test_nothing_that_was_served_is_lost_at_the_stop(stage, tmp_path):
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, record=tmp_path / "t.db")

    await asyncio.gather(*(ask(stage, gateway, CHAT) for _ in range(200)))
    await gateway.stop()

    assert len({call.id for call in calls_in(tmp_path / "t.db")}) == 200


async def test_a_full_disk_stops_the_recording_but_not_the_calls(stage, tmp_path, caplog):
    engine = await stage.engine()
    store = SqliteTraceStore.open(tmp_path / "t.db")
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    gateway = await stage.gateway(engine.url, sink=store)
    caplog.set_level(logging.WARNING, "scepsy.gateway")

    for number in range(60):  # each with blocks of its own, so the file must grow
        text = f"{number} {PROMPT}"
        await ask(stage, gateway, {"model": "m", "messages": [{"role": "user", "content": text}]})
        await gateway.flush()
    lost = await stage.metric(gateway, "unrecorded_calls_total")
    said_while_full = [record.message for record in caplog.records]
    store._connection.execute("PRAGMA max_page_count = 100000")
    await ask(stage, gateway, CHAT)
    await gateway.flush()

    assert await stage.metric(gateway, 'calls_total{llm="m",status="ok"}') == 61
    assert 0 < lost < 60
    assert len(said_while_full) == 1
    assert "not recorded" in said_while_full[0]
    assert "full" in said_while_full[0]
    assert [r.message for r in caplog.records][1:] == [
        f"calls are recorded again; {lost:.0f} were not"
    ]
    await gateway.stop()
    assert len(calls_in(tmp_path / "t.db")) == 61 - lost


async def test_a_disk_too_slow_costs_records_not_calls(stage, monkeypatch, caplog):
    monkeypatch.setattr("scepsy.gateway.record.MAX_QUEUED_CALLS", 5)
    engine = await stage.engine()
    sink = StuckSink()
    gateway = await stage.gateway(engine.url, sink=sink)

    await ask(stage, gateway, CHAT)
    assert await asyncio.to_thread(sink.is_writing.wait, 5)
    for _ in range(11):
        await ask(stage, gateway, CHAT)
    lost = await stage.metric(gateway, "unrecorded_calls_total")
    sink.disk.set()
    await gateway.stop()

    assert lost == 6
    assert len(sink.calls) == 6
    assert sink.is_closed
    assert [r.levelname for r in caplog.records if r.levelno >= logging.ERROR] == ["ERROR"]


async def test_content_beyond_the_bound_is_left_out_and_counted(stage, tmp_path, monkeypatch):
    monkeypatch.setattr("scepsy.gateway.record.MAX_QUEUED_CONTENT_BYTES", 100)
    engine = await stage.engine()
    gateway = await stage.gateway(engine.url, record=tmp_path / "t.db", record_content=True)

    await ask(stage, gateway, CHAT)
    await gateway.flush()

    assert await stage.metric(gateway, "unrecorded_contents_total") == 1
    assert await stage.metric(gateway, "recorded_calls_total") == 1


async def test_content_that_cannot_be_written_is_counted(stage, tmp_path):
    engine = await stage.engine()
    store = SqliteTraceStore.open(tmp_path / "t.db")
    store._connection.execute("DROP TABLE contents")
    gateway = await stage.gateway(engine.url, sink=store, record_content=True)

    await ask(stage, gateway, CHAT)
    await gateway.flush()

    assert await stage.metric(gateway, "unrecorded_contents_total") == 1
    assert await stage.metric(gateway, "recorded_calls_total") == 1


class StuckSink:
    """A disk that answers only when it is let."""

    def __init__(self):
        self.disk = threading.Event()
        self.is_writing = threading.Event()
        self.calls = []
        self.is_closed = False

    def append(self, calls):
        self.is_writing.set()
        self.disk.wait(10)
        self.calls.extend(calls)
        return len(calls)

    def append_content(self, call_id, request, response):
        raise AssertionError("no content was asked for")

    def close(self):
        self.is_closed = True


async def start_command(*arguments, limit_bytes=None):
    def limit():
        if limit_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scepsy", "gateway", *arguments),
        stdout=pipe,
        stderr=pipe,
        preexec_fn=limit,
    )


async def test_the_command_serves_records_and_stops_and_survives_a_file_that_may_not_grow(
    stage, tmp_path
):
    engine = await stage.engine()
    process = await start_command(
        *("--replica", f"m={engine.url}/v1", "--port", "0", "--json"),
        *("--record", str(tmp_path / "t.db")),
        limit_bytes=100_000,
    )
    said = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    gateway = type("Gateway", (), {"url": said["url"]})
    for number in range(100):
        text = f"{number} {PROMPT * 4}"
        await ask(stage, gateway, {"model": "m", "messages": [{"role": "user", "content": text}]})
    served = await stage.metric(gateway, 'calls_total{llm="m",status="ok"}')
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), 20)

    assert said["llms"] == ["m"]
    assert served == 100
    assert (process.returncode, out) == (0, b"")
    assert err.decode().count("not recorded") == 1
    assert "Traceback" not in err.decode()
    assert 0 < len(calls_in(tmp_path / "t.db")) < 100


async def test_the_command_says_that_the_port_is_taken_and_exits_with_1(stage):
    engine = await stage.engine()
    port = engine.url.rpartition(":")[2]

    process = await start_command("--replica", f"m={engine.url}", "--port", port)
    out, err = await asyncio.wait_for(process.communicate(), 20)

    assert (process.returncode, out) == (1, b"")
    assert f"127.0.0.1:{port} is taken" in err.decode()
    assert "hint:" in err.decode()
