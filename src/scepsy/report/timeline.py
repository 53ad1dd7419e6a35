"""Simulated calls as a timeline in Chrome's trace format: open it in Perfetto or chrome://tracing.

Each replica is a process; its calls lie in lanes, as many as it had at once. A call is three
slices: waiting, prefill, decode. Executions are a process of their own, a slice each.
"""

import gzip
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from typing import TypeVar

import orjson

from scepsy.errors import InputError
from scepsy.sim.run import ServedCall, ServedExecution

_T = TypeVar("_T")
_EXECUTIONS = 0
_US = 1e6


def write_timeline(path: Path, executions: Sequence[ServedExecution]) -> int:
    """Write a .json or .json.gz file; give the number of slices. Equal executions, equal bytes.

    Raises:
        InputError: the file cannot be written.
    """
    events = list(_events(executions))
    content = orjson.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
    try:
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    except OSError as error:
        raise InputError(f"cannot write the timeline to {path}: {error.strerror}") from error
    return sum(event["ph"] == "X" for event in events)


def _events(executions: Sequence[ServedExecution]) -> Iterator[dict[str, object]]:
    yield _name(_EXECUTIONS, "executions")
    for lane, execution in _lanes(executions, lambda e: (e.start_s, e.end_s)):
        name = f"{execution.workflow} {execution.number}"
        yield _slice(name, _EXECUTIONS, lane, execution.start_s, execution.end_s)
    on_replica: dict[str, list[tuple[ServedExecution, ServedCall]]] = {}
    for execution in executions:
        for call in execution.calls:
            on_replica.setdefault(str(call.replica), []).append((execution, call))
    for process, replica in enumerate(sorted(on_replica), start=1):
        yield _name(process, replica)
        calls = sorted(on_replica[replica], key=lambda pair: pair[1].start_s)
        for lane, (execution, call) in _lanes(calls, lambda p: (p[1].start_s, p[1].end_s)):
            yield from _call_slices(process, lane, execution, call)


def _call_slices(
    process: int, lane: int, execution: ServedExecution, call: ServedCall
) -> Iterator[dict[str, object]]:
    about = {
        "execution": execution.number,
        "role": call.stage.role,
        "prompt_tokens": call.prompt_tokens,
        "cached_tokens": call.cached_tokens,
        "output_tokens": call.output_tokens,
        "preemptions": call.preemptions,
    }
    first_s = call.start_s + call.ttft_s
    if call.scheduled_s > call.start_s:
        yield _slice("waiting", process, lane, call.start_s, call.scheduled_s)
    yield {**_slice("prefill", process, lane, call.scheduled_s, first_s), "args": about}
    if call.end_s > first_s:
        yield {**_slice("decode", process, lane, first_s, call.end_s), "args": about}


def _lanes(
    things: Sequence[_T], span: Callable[[_T], tuple[float, float]]
) -> Iterator[tuple[int, _T]]:
    """Each with the lowest lane that is free when it starts; things come by start."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    fresh = count()
    for thing in things:
        start_s, end_s = span(thing)
        while busy and busy[0][0] <= start_s:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else next(fresh)
        heappush(busy, (end_s, lane))
        yield lane, thing


def _name(process: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}


def _slice(name: str, process: int, lane: int, start_s: float, end_s: float) -> dict[str, object]:
    return {
        "ph": "X",
        "name": name,
        "pid": process,
        "tid": lane,
        "ts": round(start_s * _US, 3),
        "dur": round((end_s - start_s) * _US, 3),
    }
