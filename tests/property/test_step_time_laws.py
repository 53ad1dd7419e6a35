"""More of anything never makes a step faster, on any published table and any share of a GPU."""

from hypothesis import example, given
from hypothesis import strategies as st

from scepsy.model.cluster import GpuTypeName
from scepsy.profiles.catalog import GPU_TYPES
from scepsy.profiles.silicon import TableStepTimes
from scepsy.profiles.step_table import published_tables

REPLICAS = [
    (gpu, *key) for gpu in sorted(GPU_TYPES) for key in sorted(published_tables(gpu).tables)
]
SHARES = [0.1, 0.3, 0.5, 0.9, 1.0]
TOLERANCE = 1 + 1e-9

replicas = st.sampled_from(REPLICAS)
shares = st.sampled_from(SHARES)
few = st.integers(0, 600) | st.integers(0, 8)
chunks = st.integers(0, 20_000) | st.integers(0, 64)
contexts = st.integers(0, 3_000_000) | st.integers(0, 2_000)
growths = st.integers(0, 3) | st.integers(0, 200_000)

_made: dict[tuple[GpuTypeName, str, int, float], TableStepTimes] = {}


def times_of(replica: tuple[GpuTypeName, str, int], share: float) -> TableStepTimes:
    """Step times are made once for all examples."""
    key = (*replica, share)
    if key not in _made:
        gpu, name, degree = replica
        _made[key] = TableStepTimes(
            published_tables(gpu).tables[name, degree], tensor_parallel=degree, gpu_fraction=share
        )
    return _made[key]


def step_s(times: TableStepTimes, step: tuple[int, int, int, int]) -> float:
    return times.step_s(
        prefill_tokens=step[0],
        prefill_context_tokens=step[1],
        decodes=step[2],
        decode_context_tokens=step[3],
    )


@given(replicas, shares, st.tuples(chunks, contexts, few, contexts), st.integers(0, 3), growths)
@example(
    (GpuTypeName("a100"), "Qwen/Qwen3-0.6B", 1), 0.1, (0, 0, 600, 0), 3, 16_385
)  # off the grid
def test_a_step_never_gets_faster_with_more_work(
    replica: tuple[GpuTypeName, str, int],
    share: float,
    step: tuple[int, int, int, int],
    argument: int,
    growth: int,
) -> None:
    larger = tuple(x + growth if i == argument else x for i, x in enumerate(step))
    times = times_of(replica, share)
    assert step_s(times, step) <= step_s(times, larger) * TOLERANCE  # type: ignore[arg-type]


@given(replicas, shares, st.tuples(chunks, contexts, few, contexts))
def test_a_mixed_step_lies_between_its_larger_half_and_both_halves(
    replica: tuple[GpuTypeName, str, int], share: float, step: tuple[int, int, int, int]
) -> None:
    times = times_of(replica, share)
    prefill_s = step_s(times, (step[0], step[1], 0, 0))
    decode_s = step_s(times, (0, 0, step[2], step[3]))
    mixed_s = step_s(times, step)
    assert max(prefill_s, decode_s) <= mixed_s * TOLERANCE
    assert mixed_s <= (prefill_s + decode_s) * TOLERANCE


@given(replicas, shares, shares, st.tuples(chunks, contexts, few, contexts))
def test_a_smaller_share_of_a_gpu_is_never_faster(
    replica: tuple[GpuTypeName, str, int],
    share: float,
    other: float,
    step: tuple[int, int, int, int],
) -> None:
    less, more = sorted((share, other))
    assert (
        step_s(times_of(replica, more), step) <= step_s(times_of(replica, less), step) * TOLERANCE
    )


@given(replicas, st.integers(1, 512), st.integers(0, 500_000), st.integers(1, 400))
def test_a_run_of_decodes_is_the_sum_of_its_steps(
    replica: tuple[GpuTypeName, str, int], decodes: int, context: int, steps: int
) -> None:
    times = times_of(replica, 1.0)
    one_by_one_s = sum(
        step_s(times, (0, 0, decodes, context + decodes * step)) for step in range(steps)
    )
    run_s = times.decode_run_s(decodes=decodes, decode_context_tokens=context, steps=steps)
    assert abs(run_s - one_by_one_s) <= 0.01 * one_by_one_s
