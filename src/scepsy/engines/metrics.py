"""What an emulated engine counts, under vLLM's metric names. Seconds are emulated ones."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from scepsy.engines.pace import Ticket
from scepsy.sim.engine import EngineStatistics

_TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5)
_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_REQUEST_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
"""Bucket bounds: vLLM's, without the longest."""


class _Histogram:
    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        self._name, self._about, self._bounds = name, about, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value_s: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value_s)] += times
        self._sum += value_s * times

    def family(self, model: str) -> Metric:
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family = HistogramMetricFamily(self._name, self._about, labels=["model_name"])
        family.add_metric([model], buckets, self._sum)
        return family


class EngineMetrics:
    """Counts of one engine, in a registry of its own."""

    def __init__(self, model: str, statistics: Callable[[], EngineStatistics]) -> None:
        self._model = model
        self._statistics = statistics
        self._finished: Counter[str] = Counter()
        self._ttft = _Histogram("vllm:time_to_first_token_seconds", "Arrival to first.", _TTFT_S)
        self._gap = _Histogram("vllm:inter_token_latency_seconds", "Between tokens.", _TOKEN_S)
        self._per_token = _Histogram(
            "vllm:request_time_per_output_token_seconds", "Its mean over a call.", _TOKEN_S
        )
        self._e2e = _Histogram(
            "vllm:e2e_request_latency_seconds", "Arrival to last token.", _REQUEST_S
        )
        self._queue = _Histogram(
            "vllm:request_queue_time_seconds", "Arrival to first step.", _REQUEST_S
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def finished(self, ticket: Ticket) -> None:
        """Count the times of a call that has finished."""
        event = ticket.finished
        assert event is not None, "counted before it finished"
        self._e2e.observe(event.at_s - ticket.arrived_s)
        self._queue.observe(event.scheduled_s - ticket.arrived_s)
        first_s = event.at_s if ticket.first_token_s is None else ticket.first_token_s
        self._ttft.observe(first_s - ticket.arrived_s)
        if (gaps := event.output_tokens - 1) > 0:
            gap_s = (event.at_s - first_s) / gaps
            self._gap.observe(gap_s, gaps)
            self._per_token.observe(gap_s)

    def succeeded(self, reason: str) -> None:
        """Count a call that was answered, by the reason it ended."""
        self._finished[reason] += 1

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are not checked for clashes, as the registry holds nothing else."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give all metrics, as of now."""
        now = self._statistics()
        gauges = (
            ("vllm:num_requests_running", "Calls in the batch.", now.running),
            ("vllm:num_requests_waiting", "Calls that wait.", now.waiting),
            ("vllm:kv_cache_usage_perc", "KV blocks in use; 1 is all.", now.kv_used_fraction),
        )
        for name, about, value in gauges:
            gauge = GaugeMetricFamily(name, about, labels=["model_name"])
            gauge.add_metric([self._model], value)
            yield gauge
        counters = (
            ("vllm:prefix_cache_queries", "Prompt tokens looked up.", now.prompt_tokens),
            ("vllm:prefix_cache_hits", "Prompt tokens found in KV.", now.cached_tokens),
            ("vllm:prompt_tokens", "Prompt tokens.", now.prompt_tokens),
            ("vllm:generation_tokens", "Output tokens.", now.generated_tokens),
            ("vllm:num_preemptions", "Calls that lost their KV.", now.preemptions),
        )
        for name, about, total in counters:
            counter = CounterMetricFamily(name, about, labels=["model_name"])
            counter.add_metric([self._model], total)
            yield counter
        success = CounterMetricFamily(
            "vllm:request_success", "Answered calls.", labels=["model_name", "finished_reason"]
        )
        for reason, count in sorted(self._finished.items()):
            success.add_metric([self._model, reason], count)
        yield success
        for histogram in (self._ttft, self._gap, self._per_token, self._e2e, self._queue):
            yield histogram.family(self._model)
