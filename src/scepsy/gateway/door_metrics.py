"""What is counted where calls wait. Seconds are those of the scaled clock."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from scepsy.gateway.door import Door
from scepsy.gateway.hints import Told
from scepsy.model.workflow import LlmName

_WAIT_S = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)


class DoorMetrics:
    """Counts of all doors of a gateway."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """They are shown in a registry."""
        self._wait_s = Histogram(
            "scepsy_gateway_door_seconds",
            "How long calls waited before they were sent",
            ("llm",),
            buckets=_WAIT_S,
            registry=registry,
        )

        def counter(name: str, text: str, label: str) -> Counter:
            return Counter(f"scepsy_gateway_{name}", text, (label,), registry=registry)

        self._passes = counter("passed_over", "Calls sent while an earlier one waited on", "llm")
        self._lost = counter("lost_replicas", "Times that a replica was lost", "llm")
        self._bad_hints = counter("bad_hints", "Hints that could not be read", "hint")

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"scepsy_gateway_{name}", text, ("llm",), registry=registry)

        self._waiting = gauge("waiting_calls", "Calls that no replica has yet")
        self._admitted = gauge("admitted_executions", "Executions with a call on a replica")
        self._up = gauge("up_replicas", "Replicas that take calls")

    def watch(self, llm: LlmName, door: Door) -> None:
        """Read what is there now when it is asked for."""
        looks: tuple[tuple[Gauge, Callable[[], float]], ...] = (
            (self._waiting, lambda: door.waiting_calls),
            (self._admitted, lambda: door.admitted_executions),
            (self._up, lambda: door.replicas_up),
        )
        for gauge, look in looks:
            gauge.labels(llm).set_function(look)

    def sent(self, llm: LlmName, waited_s: float, passes: bool) -> None:
        """A call was sent."""
        self._wait_s.labels(llm).observe(waited_s)
        if passes:
            self._passes.labels(llm).inc()

    def lost(self, llm: LlmName) -> None:
        """A replica was."""
        self._lost.labels(llm).inc()

    def told(self, told: Told) -> None:
        """Count hints that were left out."""
        for name in told.bad:
            self._bad_hints.labels(name).inc()
