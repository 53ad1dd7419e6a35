"""What the gateway costs a call: its CPU time, and the latency it adds.

    python -m benchmarks.gateway_overhead [policy]   # one JSON line on stdout

A gateway process that records stands before an engine that answers at once. CPU time is that of
the gateway's process, from /proc (Linux). Added latency is one call at a time, median, through the
gateway minus straight to the engine. Best of REPEATS, as noise only ever adds time; compare only on
one machine.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import uvloop

from benchmarks.host import report

CALLS, CONCURRENCY, REPEATS = 1000, 8, 3
CHUNK = {"id": "r", "object": "chat.completion.chunk", "model": "m"}
EVENT = (
    b"data: %b\n\n"
    % json.dumps({**CHUNK, "choices": [{"index": 0, "delta": {"content": "word"}}]}).encode()
)
EVENTS = 50
REPLY = json.dumps(
    {
        "id": "r",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 50}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50},
    }
).encode()


def request(prompt_bytes: int, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": ("some words " * (prompt_bytes // 11))}]
    body = json.dumps({"model": "m", "messages": messages, "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"x-scepsy-workflow: bench\r\nx-scepsy-execution: e\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once, for as long as the connection lives."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET /health"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            if head.startswith(b"GET "):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            low = head.lower()
            length = int(low.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b'"stream": true' in body:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
                for event in [*[EVENT] * EVENTS, b"data: [DONE]\n\n"]:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(REPLY), REPLY))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def client(port: int, data: bytes, calls: int) -> list[float]:
    """Seconds of each of so many calls, one after another on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took_s = []
    for _ in range(calls):
        start = perf_counter()
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length" in head:
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        took_s.append(perf_counter() - start)
    writer.close()
    return took_s


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(pid: int, gateway: int, direct: int, data: bytes) -> tuple[float, float]:
    """CPU microseconds a call, and milliseconds added to one."""
    await client(gateway, data, 50)
    cpu_us, added_ms = [], []
    for _ in range(REPEATS):
        before = cpu_s(pid)
        await asyncio.gather(
            *(client(gateway, data, CALLS // CONCURRENCY) for _ in range(CONCURRENCY))
        )
        cpu_us.append((cpu_s(pid) - before) / CALLS * 1e6)
        through, straight = await client(gateway, data, 200), await client(direct, data, 200)
        added_ms.append((statistics.median(through) - statistics.median(straight)) * 1e3)
    return min(cpu_us), min(added_ms)


async def main(policy: str) -> None:
    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    direct = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "scepsy", "gateway", "--port", "0", "--json"),
            *("--replica", f"m=http://127.0.0.1:{direct}", "--record", f"{folder}/traces.db"),
            *("--policy", policy),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        port = int(url.rpartition(":")[2])
        figures: dict[str, Any] = {}
        cases = {
            "small": request(400, stream=False),
            "stream_50": request(400, stream=True),
            "prompt_40kb": request(40_000, stream=False),
        }
        for name, data in cases.items():
            cpu_us, added_ms = await measure(process.pid, port, direct, data)
            figures[f"{name}_cpu_us"] = round(cpu_us)
            figures[f"{name}_added_ms_p50"] = round(added_ms, 3)
        process.terminate()
        await process.wait()
    report("gateway_overhead", repeats=REPEATS, policy=policy, calls=CALLS, **figures)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "least-loaded"))
