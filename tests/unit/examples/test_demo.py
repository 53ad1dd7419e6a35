"""The demo's arithmetic: what it calls measured is what was measured."""

from examples.demo.compare import compare_latency
from examples.demo.measure import Window, throughput_per_s
from examples.load import ExecutionRecord
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.plan import Prediction, WorkflowPrediction
from scepsy.model.workflow import LlmName, WorkflowName

W, LLM = WorkflowName("w"), LlmName("m")


def execution(name: str, *ends_s: float) -> Execution:
    calls = tuple(
        Call(
            id=CallId(f"{name}-{end_s}"),
            execution=ExecutionId(name),
            workflow=W,
            llm=LLM,
            start_s=end_s - 1.0,
            end_s=end_s,
            prompt_tokens=1,
            output_tokens=1,
        )
        for end_s in ends_s
    )
    return Execution(ExecutionId(name), W, calls)


def record(name: str, start_s: float, end_s: float) -> ExecutionRecord:
    return ExecutionRecord(
        workflow=W, execution=name, task="t", start_s=start_s, end_s=end_s, ok=True
    )


def test_an_execution_at_the_edge_counts_by_the_calls_that_ended_inside() -> None:
    window = Window(begin_s=10.0, end_s=20.0, records=())
    inside = execution("a", 12.0, 15.0)
    half = execution("b", 8.0, 10.0)  # one call before, one at the very begin
    outside = execution("c", 20.0, 21.0)  # the end is not part of the window
    assert throughput_per_s(window, [inside]) == 0.1
    assert throughput_per_s(window, [inside, half]) == 0.15
    assert throughput_per_s(window, [inside, half, outside]) == 0.15


def test_latency_is_of_those_that_arrived_and_throughput_of_those_that_ended_inside() -> None:
    records = (
        record("before", 5.0, 12.0),
        record("within", 10.0, 14.0),
        record("late", 19.0, 27.0),
        record("after", 20.0, 21.0),
    )
    prediction = Prediction(
        "pipeline",
        (
            WorkflowPrediction(
                workflow=W,
                rate_per_s=0.2,
                execution_s_mean=5.0,
                execution_s_p50=5.0,
                execution_s_p95=8.0,
                execution_s_p99=8.0,
                gap_s_mean=0.0,
                capacity_per_s=1.0,
                capacity_alone_per_s=1.0,
                bottleneck=LLM,
                bottleneck_alone=LLM,
                stages=(),
            ),
        ),
    )
    window = Window(begin_s=10.0, end_s=20.0, records=records)
    found = {c.quantity: c for c in compare_latency(prediction, "x", window, promised=True)}
    assert found["throughput"].measured == 0.2  # `before` and `within`
    assert found["mean latency"].measured == 6.0  # `within` (4 s) and `late` (8 s)
    assert found["p95 latency"].measured == 8.0
    assert found["mean latency"].is_kept is False  # 5 s for 6 s is 16.7 % off
