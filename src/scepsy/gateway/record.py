"""Writes calls down, beside the serving: one thread, a bounded queue, a transaction a batch.

Serving never waits for it. What cannot be written (a full disk, a queue that is full because the
disk is slow) is counted, and said once, not once a call.
"""

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter

from scepsy.errors import StoreError
from scepsy.model.execution import Call, CallId

LINGER_S = 0.05
"""How long the writer gathers calls before it writes them in one transaction (real s)."""
MAX_BATCH_CALLS = 512
MAX_QUEUED_CALLS = 20_000
MAX_QUEUED_CONTENT_BYTES = 256 * 1024**2
_FLUSH_S = 30.0

log = logging.getLogger(__name__)


class CallSink(Protocol):
    """Where calls are written; used from one thread at a time."""

    def append(self, calls: Sequence[Call]) -> int:
        """Store calls in one transaction; give how many were new."""
        ...

    def append_content(self, call_id: CallId, request: bytes, response: bytes) -> None:
        """Store what a call sent and got."""
        ...

    def close(self) -> None:
        """Close it; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Content:
    """What a call sent and got."""

    request: bytes
    response: bytes

    def __repr__(self) -> str:  # content has no place in a log
        return f"Content({len(self.request)} bytes, {len(self.response)} bytes)"

    def __len__(self) -> int:
        return len(self.request) + len(self.response)


@dataclass(frozen=True, slots=True)
class RecordCounters:
    """What is told to those who watch."""

    recorded: Counter
    unrecorded: Counter
    unrecorded_contents: Counter


_Item = tuple[Call, Content | None]


class Recorder:
    """Hands calls to a sink through a thread of its own. Owns the sink; must be closed."""

    def __init__(self, sink: CallSink, counters: RecordCounters) -> None:
        """Start the thread."""
        self._sink = sink
        self._counters = counters
        self._queue: queue.SimpleQueue[_Item | threading.Event] = queue.SimpleQueue()
        self._content_bytes = 0
        self._content_lock = threading.Lock()
        self._lost_since_said: int | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="scepsy-recorder", daemon=True)
        self._thread.start()

    def put(self, call: Call, content: Content | None = None) -> None:
        """Take a call to be written soon. Never blocks and never fails."""
        if self._queue.qsize() >= MAX_QUEUED_CALLS:
            self._lost(1, "the queue to the disk is full")
            return
        if content is not None and not self._reserve(len(content)):
            self._counters.unrecorded_contents.inc()
            content = None
        self._queue.put((call, content))

    def flush(self) -> None:
        """Wait until what was put before is written, or counted as not written.

        Raises:
            StoreError: it takes longer than 30 s.
        """
        if not self._thread.is_alive():
            return
        written = threading.Event()
        self._queue.put(written)
        if not written.wait(_FLUSH_S):
            raise StoreError(f"the recorded calls were not written within {_FLUSH_S:g} s")

    def close(self) -> None:
        """Write what is left and close the sink; may be called twice."""
        if self._is_closing:
            return
        self._is_closing = True
        try:
            self.flush()
            self._thread.join(_FLUSH_S)
        finally:
            self._sink.close()

    def _run(self) -> None:
        while not self._is_closing or not self._queue.empty():
            batch, flushed = self._next_batch()
            if batch:
                self._write(batch)
            if flushed is not None:
                flushed.set()

    def _next_batch(self) -> tuple[list[_Item], threading.Event | None]:
        """Gather until someone waits for it, the batch is full, or the time is up."""
        batch: list[_Item] = []
        until_s = float("inf")
        while len(batch) < MAX_BATCH_CALLS:
            try:
                left_s = until_s - time.monotonic()
                item = self._queue.get(timeout=None if not batch else max(left_s, 0.0))
            except queue.Empty:
                break
            if isinstance(item, threading.Event):
                return batch, item
            if not batch:
                until_s = time.monotonic() + LINGER_S
            batch.append(item)
        return batch, None

    def _write(self, batch: Sequence[_Item]) -> None:
        calls = [call for call, _ in batch]
        try:
            self._sink.append(calls)
        except Exception as error:  # noqa: BLE001 - whatever the disk does, serving goes on
            self._lost(len(calls), str(error))
        else:
            self._counters.recorded.inc(len(calls))
            self._recovered()
        for call, content in batch:
            if content is not None:
                self._write_content(call, content)

    def _write_content(self, call: Call, content: Content) -> None:
        try:
            self._sink.append_content(call.id, content.request, content.response)
        except Exception as error:  # noqa: BLE001 - as above
            self._counters.unrecorded_contents.inc()
            self._say_lost(str(error))
        finally:
            self._reserve(-len(content))

    def _reserve(self, size: int) -> bool:
        with self._content_lock:
            if self._content_bytes + size > MAX_QUEUED_CONTENT_BYTES:
                return False
            self._content_bytes += size
            return True

    def _lost(self, calls: int, reason: str) -> None:
        self._counters.unrecorded.inc(calls)
        self._say_lost(reason)
        if self._lost_since_said is not None:
            self._lost_since_said += calls

    def _say_lost(self, reason: str) -> None:
        if self._lost_since_said is None:
            self._lost_since_said = 0
            log.error("calls are served but not recorded: %s", reason)

    def _recovered(self) -> None:
        if self._lost_since_said is not None:
            log.warning("calls are recorded again; %d were not", self._lost_since_said)
            self._lost_since_said = None
