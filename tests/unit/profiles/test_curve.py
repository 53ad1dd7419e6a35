import math

import pytest

from scepsy.errors import InputError
from scepsy.model.cluster import GpuTypeName
from scepsy.model.provenance import Provenance
from scepsy.model.workflow import LlmName, Role, Stage, WorkflowName
from scepsy.profiles.curve import ProfileCurve, ProfileKey, ProfilePoint, ProfileSet, rising

H100 = GpuTypeName("h100")
STAGE = Stage(WorkflowName("rag"), LlmName("qwen3-8b"), Role("generator"))
OTHER = Stage(WorkflowName("rag"), LlmName("qwen3-8b"), Role("reranker"))


def point(utilization: float, latency_s: float) -> ProfilePoint:
    return ProfilePoint(
        utilization=utilization,
        latency_s_mean=latency_s,
        latency_s_p95=2 * latency_s,
        ttft_s_mean=latency_s / 10,
    )


def curve(
    *points: tuple[float, float],
    capacity_per_s: float = 10.0,
    stage: Stage = STAGE,
    tensor_parallel: int = 1,
    gpu_fraction: float = 1.0,
    replicas: int = 1,
    provenance: Provenance = Provenance.SIMULATED,
) -> ProfileCurve:
    return ProfileCurve(
        key=ProfileKey(
            stage=stage,
            gpu_type=H100,
            tensor_parallel=tensor_parallel,
            gpu_fraction=gpu_fraction,
            replicas=replicas,
        ),
        capacity_per_s=capacity_per_s,
        points=tuple(point(*p) for p in points or ((0.1, 1.0), (0.5, 2.0), (0.9, 8.0))),
        provenance=provenance,
        source="test",
    )


def test_latency_is_linear_between_points_and_infinite_from_saturation() -> None:
    one = curve()
    assert one.latency_s(0.0) == one.latency_s(0.1) == 1.0
    assert one.latency_s(0.3) == pytest.approx(1.5)
    assert one.latency_s(0.95) == pytest.approx(16.0)
    assert one.latency_s(1.0) == math.inf


def test_a_point_has_all_statistics_of_its_load() -> None:
    one = curve()
    for load in (0.0, 0.1, 0.3, 0.5, 0.95):
        read = one.point(load)
        assert read.utilization == load
        assert read.latency_s_mean == pytest.approx(one.latency_s(load))
        assert read.latency_s_p95 == pytest.approx(2 * read.latency_s_mean)
        assert read.ttft_s_mean == pytest.approx(read.latency_s_mean / 10)


@pytest.mark.parametrize(
    "points",
    [
        ((0.5, 1.0), (0.1, 2.0)),
        ((0.1, 1.0), (0.1, 2.0)),
        ((0.1, 2.0), (0.5, 1.0)),
        ((0.1, 1.0), (1.0, 2.0)),
        ((-0.1, 1.0), (0.5, 2.0)),
    ],
)
def test_a_curve_that_runs_backwards_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(InputError, match="profile of rag/qwen3-8b:generator"):
        curve(*points)


def test_a_curve_without_capacity_or_shape_is_refused() -> None:
    with pytest.raises(InputError, match="capacity"):
        curve(capacity_per_s=0.0)
    with pytest.raises(InputError, match="gpu_fraction"):
        curve(gpu_fraction=1.1)


def test_noise_that_dips_is_raised_to_what_came_before() -> None:
    points = rising([point(0.5, 1.9), point(0.1, 2.0), point(0.9, 3.0)])
    assert [(p.utilization, p.latency_s_mean) for p in points] == [(0.1, 2.0), (0.5, 2.0), (0.9, 3)]
    assert [p.latency_s_p95 for p in points] == [4.0, 4.0, 6.0]


def test_what_was_profiled_is_given_as_it_is() -> None:
    one = curve(gpu_fraction=0.3)
    assert ProfileSet((one,)).curve(STAGE, H100, 1, 0.1 + 0.2, 1) is one


def test_between_fractions_time_is_linear_in_the_inverse_share() -> None:
    profiles = ProfileSet(
        (
            curve((0.0, 4.0), (0.5, 8.0), gpu_fraction=0.25, capacity_per_s=2.5),
            curve((0.0, 1.0), (0.5, 2.0), gpu_fraction=1.0, capacity_per_s=10.0),
        )
    )
    half = profiles.curve(STAGE, H100, 1, 0.5, 1)
    assert half is not None
    assert half.capacity_per_s == pytest.approx(5.0)
    assert half.latency_s(0.0) == pytest.approx(2.0)
    assert half.latency_s(0.25) == pytest.approx(3.0)
    assert half.provenance is Provenance.INTERPOLATED
    assert half.key.gpu_fraction == 0.5
    assert profiles.curve(STAGE, H100, 1, 0.5, 1) is half


def test_an_interpolated_number_is_as_good_as_its_worst() -> None:
    profiles = ProfileSet(
        (curve(gpu_fraction=0.5, provenance=Provenance.ASSUMED), curve(gpu_fraction=1.0))
    )
    between = profiles.curve(STAGE, H100, 1, 0.7, 1)
    assert between is not None
    assert between.provenance is Provenance.ASSUMED


def test_between_replica_counts_delay_is_pooled_and_beyond_the_most_taken() -> None:
    profiles = ProfileSet((curve((0.5, 3.0), replicas=1), curve((0.5, 2.0), replicas=4)))
    two = profiles.curve(STAGE, H100, 1, 1.0, 2)
    nine = profiles.curve(STAGE, H100, 1, 1.0, 9)
    assert two is not None
    assert nine is not None
    assert two.latency_s(0.5) == pytest.approx(2.5)
    assert nine.latency_s(0.5) == 2.0
    assert nine.key.replicas == 9
    assert nine.provenance is Provenance.INTERPOLATED


def test_outside_what_was_profiled_there_is_no_curve() -> None:
    profiles = ProfileSet((curve(gpu_fraction=0.4), curve(gpu_fraction=0.8, replicas=2)))
    assert profiles.curve(STAGE, H100, 1, 0.3, 1) is None
    assert profiles.curve(STAGE, H100, 1, 0.9, 1) is None
    assert profiles.curve(STAGE, H100, 2, 0.4, 1) is None
    assert profiles.curve(STAGE, GpuTypeName("a100"), 1, 0.4, 1) is None
    assert profiles.curve(OTHER, H100, 1, 0.4, 1) is None
    assert profiles.curve(STAGE, H100, 1, 0.8, 1) is None
    assert profiles.curve(STAGE, H100, 1, 0.6, 1) is None


def test_shapes_are_tenths_that_serve_every_stage() -> None:
    profiles = ProfileSet(
        (
            curve(gpu_fraction=0.35),
            curve(gpu_fraction=0.8),
            curve(gpu_fraction=1.0, tensor_parallel=2),
            curve(gpu_fraction=0.5, stage=OTHER),
            curve(gpu_fraction=1.0, stage=OTHER),
        )
    )
    llm = LlmName("qwen3-8b")
    assert profiles.shapes(llm, H100) == ((1, 0.5), (1, 0.6), (1, 0.7), (1, 0.8))
    assert profiles.shapes(llm, H100, [STAGE])[:2] == ((1, 0.4), (1, 0.5))
    assert (2, 1.0) in profiles.shapes(llm, H100, [STAGE])
    assert profiles.shapes(LlmName("none"), H100) == ()
    assert profiles.stages == (STAGE, OTHER)
    assert profiles.gpu_types == (H100,)
    for degree, fraction in profiles.shapes(llm, H100):
        assert profiles.curve(OTHER, H100, degree, fraction, 1) is not None


def test_two_curves_of_one_shape_are_refused_but_a_new_one_replaces_the_old() -> None:
    old, new = curve(), curve(capacity_per_s=11.0)
    with pytest.raises(InputError, match="two profiles"):
        ProfileSet((old, new))
    assert ProfileSet((old,)).updated([new]).curves == (new,)
