"""Laws of profile curves, of sets of them, and of replayed workloads."""

from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.model.execution import Call, CallId, Execution, ExecutionId
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet, rising
from scepsy.profiles.workload import Segment, SegmentRun, stage_workload

H100 = GpuTypeName("h100")
STAGE = Stage(WorkflowName("w"), LlmName("m"))

times = st.floats(1e-3, 1e3)
loads = st.floats(0, 0.99)
points = st.lists(
    st.builds(
        ProfilePoint,
        utilization=loads,
        latency_s_mean=times,
        latency_s_p95=times,
        ttft_s_mean=times,
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda point: point.utilization,
)


@st.composite
def profile_sets(draw: st.DrawFn) -> ProfileSet:
    fractions = draw(st.lists(st.integers(1, 10), min_size=1, max_size=4, unique=True))
    replicas = draw(st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True))
    return ProfileSet(
        tuple(
            ProfileCurve(
                key=ProfileKey(
                    stage=STAGE,
                    gpu_type=H100,
                    tensor_parallel=1,
                    gpu_fraction=fraction / 10,
                    replicas=count,
                ),
                capacity_per_s=draw(times),
                points=rising(draw(points)),
                provenance=Provenance.SIMULATED,
                source="drawn",
            )
            for fraction in fractions
            for count in replicas
        )
    )


@given(profile_sets(), st.integers(1, 10), st.integers(1, 12), loads, loads)
def test_every_curve_of_a_set_rises_and_lies_between_its_neighbours(
    profiles: ProfileSet, tenths: int, replicas: int, one: float, other: float
) -> None:
    curve = profiles.curve(STAGE, H100, 1, tenths / 10, replicas)
    fractions = [c.key.gpu_fraction for c in profiles.curves]
    fewest = min(c.key.replicas for c in profiles.curves)
    inside = min(fractions) <= tenths / 10 <= max(fractions) and replicas >= fewest
    assert (curve is not None) == inside
    if curve is None:
        return
    capacities = [c.capacity_per_s for c in profiles.curves]
    assert min(capacities) * (1 - 1e-9) <= curve.capacity_per_s <= max(capacities) * (1 + 1e-9)
    low, high = sorted((one, other))
    assert curve.latency_s(low) <= curve.latency_s(high) * (1 + 1e-9)
    assert curve.latency_s(1.0) == float("inf")


@given(profile_sets())
def test_every_shape_that_a_set_names_has_a_curve(profiles: ProfileSet) -> None:
    fewest = min(c.key.replicas for c in profiles.curves)
    for degree, fraction in profiles.shapes(STAGE.llm, H100):
        assert profiles.curve(STAGE, H100, degree, fraction, fewest) is not None


@st.composite
def recorded_executions(draw: st.DrawFn) -> Execution:
    instants = st.integers(0, 30)
    spans = draw(
        st.lists(st.tuples(instants, st.integers(0, 10)), min_size=1, max_size=12).map(sorted)
    )
    calls = [
        Call(
            id=CallId(str(at)),
            execution=ExecutionId("e"),
            workflow=STAGE.workflow,
            llm=STAGE.llm,
            start_s=float(start),
            end_s=float(start + length),
            prompt_tokens=1,
            output_tokens=1,
        )
        for at, (start, length) in enumerate(spans)
    ]
    return Execution(ExecutionId("e"), STAGE.workflow, tuple(calls))


def replayed(segment: Segment, durations_s: list[float]) -> dict[int, float]:
    """Start of each call when the calls take so long: what a replay does, one call at a time."""
    run = SegmentRun(segment)
    starts = {at: segment.calls[at].after_s for at in run.first()}
    pending = dict(starts)
    while pending:
        at = min(pending, key=lambda call: (pending[call] + durations_s[call], call))
        end_s = pending.pop(at) + durations_s[at]
        for following in run.ended(at):
            starts[following] = pending[following] = end_s + segment.calls[following].after_s
    assert run.is_over
    return starts


@given(recorded_executions())
@settings(max_examples=200)
def test_a_replay_with_the_recorded_durations_gives_the_recorded_starts(
    execution: Execution,
) -> None:
    segment = stage_workload([execution], STAGE).segments[0]
    starts = replayed(segment, [call.e2e_s for call in execution.calls])
    origin = execution.calls[0].start_s
    for at, call in enumerate(execution.calls):
        assert abs(starts[at] + origin - call.start_s) < 1e-6


@given(recorded_executions(), st.floats(1.0, 5.0))
def test_a_slower_replay_starts_no_call_before_those_it_followed_have_ended(
    execution: Execution, slower: float
) -> None:
    segment = stage_workload([execution], STAGE).segments[0]
    durations = [call.e2e_s * slower for call in execution.calls]
    starts = replayed(segment, durations)
    for at, call in enumerate(execution.calls):
        for other, before in enumerate(execution.calls):
            if before.e2e_s and before.end_s <= call.start_s:
                assert starts[other] + durations[other] <= starts[at] + 1e-6


@given(recorded_executions(), st.floats(0.0, 50.0))
def test_a_resumed_segment_serves_each_call_exactly_once(
    execution: Execution, age_s: float
) -> None:
    segment = stage_workload([execution], STAGE).segments[0]
    times_s = segment.times_s(1.0)
    run = SegmentRun(segment)
    began = [at for at, (start_s, _) in enumerate(times_s) if start_s < age_s]
    queue = [at for at, _ in run.resume(times_s, age_s)]
    served = []
    while queue:
        served.append(queue.pop())
        queue += run.ended(served[-1])
    assert sorted([*began, *served]) == list(range(len(segment.calls)))
