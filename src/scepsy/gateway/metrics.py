"""What the gateway counts of itself, for Prometheus. Seconds are those of the scaled clock."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from scepsy.gateway.identify import Rung
from scepsy.gateway.pool import Replica, Replicas
from scepsy.model.execution import CallStatus
from scepsy.model.workflow import LlmName

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)


def _inflight(replicas: Replicas, replica: Replica) -> float:
    return replicas.by_llm[replica.llm].inflight(replica.name).calls


class GatewayMetrics:
    """The gateway's own registry: nothing else of the process shows up in it."""

    def __init__(self, replicas: Replicas, registry: CollectorRegistry | None = None) -> None:
        """Make the metrics; what is in flight is read when they are scraped."""
        self.registry = registry or CollectorRegistry()
        self._calls = self._counter("calls", "Calls that ended", "llm", "status")
        self._refused = self._counter("refused", "Requests refused before routing", "code")
        self._identified = self._counter("identified", "Calls by what told their execution", "rung")
        self._retries = self._counter("retries", "Calls sent again, by why", "reason")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of calls", "llm")
        self._output_tokens = self._counter("output_tokens", "Output tokens of calls", "llm")
        self.recorded = self._counter("recorded_calls", "Calls written to the trace store")
        self.unrecorded = self._counter(
            "unrecorded_calls", "Calls that could not be written to the trace store"
        )
        self.unrecorded_contents = self._counter(
            "unrecorded_contents", "Contents of calls that could not be written"
        )
        self._call_s = self._histogram("call_seconds", "Arrival to last byte")
        self._first_token_s = self._histogram(
            "first_token_seconds", "Arrival to first output token, streamed calls"
        )
        inflight = Gauge(
            "scepsy_gateway_inflight_calls",
            "Calls in flight on a replica",
            ("llm", "replica"),
            registry=self.registry,
        )
        for replica in replicas:
            looks = partial(_inflight, replicas, replica)
            inflight.labels(replica.llm, replica.name).set_function(looks)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"scepsy_gateway_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"scepsy_gateway_{name}", text, ("llm",), buckets=_SECONDS, registry=self.registry
        )

    def ended(self, llm: LlmName, status: CallStatus, e2e_s: float, ttft_s: float | None) -> None:
        """Count a call that ended."""
        self._calls.labels(llm, status).inc()
        self._call_s.labels(llm).observe(e2e_s)
        if ttft_s is not None:
            self._first_token_s.labels(llm).observe(ttft_s)

    def tokens(self, llm: LlmName, prompt: int, output: int) -> None:
        """Count a call's tokens."""
        self._prompt_tokens.labels(llm).inc(prompt)
        self._output_tokens.labels(llm).inc(output)

    def refused(self, code: str) -> None:
        """Count a request that never became a call."""
        self._refused.labels(code).inc()

    def identified(self, rung: Rung) -> None:
        """Count what told a call's execution."""
        self._identified.labels(rung).inc()

    def retried(self, reason: str) -> None:
        """Count a call that is sent again: the connection was ``stale``, or the replica is lost."""
        self._retries.labels(reason).inc()

    def page(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
