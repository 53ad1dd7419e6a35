"""Planning end to end on made-up figures, and why there is no plan."""

import pytest

from scepsy.errors import InputError, MissingError, UnknownNameError
from scepsy.model.cluster import Cluster, GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import WorkflowRate, WorkflowWeight
from scepsy.model.slo import parse_slo
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.place.topology import resized
from scepsy.profiles.curve import ProfileCurve, ProfileSet
from scepsy.search.explain import LlmTooBigError, OverloadError, SloError, UnplaceableError
from scepsy.search.plan import make_plan
from scepsy.search.problem import PlanRequest
from scepsy.traces.demand import ExecutionDemand, StageDemand, WorkflowDemand
from tests.unit.search.made_up import (
    BIG,
    CALL_S,
    H100,
    SHAPES,
    SMALL,
    SPREAD,
    demand,
    profiles,
    request,
)


def test_a_plan_sustains_its_rate_and_sits_on_the_cluster() -> None:
    plan = make_plan(request())

    predicted = plan.prediction.workflow(WorkflowName("w"))
    assert predicted.capacity_per_s > 2.0
    assert plan.objective_s == predicted.execution_s_mean
    assert plan.bound_s is not None
    assert plan.objective_s >= plan.bound_s
    assert plan.allocation.gpus <= 8
    assert {r.llm for r in plan.placement.replicas} == {BIG, SMALL}
    assert max(plan.placement.used.values()) <= 1.0


def test_equal_requests_give_equal_plans() -> None:
    assert make_plan(request()) == make_plan(request())


def test_a_larger_cluster_is_never_slower() -> None:
    objectives_s = [make_plan(request(gpus)).objective_s or 0.0 for gpus in (2, 3, 4, 6, 8)]

    assert objectives_s == sorted(objectives_s, reverse=True)


def test_a_weight_moves_gpus_to_its_workflow() -> None:
    """Two workflows with LLMs of their own: the one that weighs more gets faster."""

    def latency_s(weight: float) -> float:
        names = ("a", "b")
        shapes = {BIG: SHAPES[BIG]}
        demands = []
        curves: list[ProfileCurve] = []
        for name in names:
            own = LlmName(f"big-{name}")
            CALL_S[own] = CALL_S[BIG]
            whole = demand(name)
            first = whole.stages[0]
            stage = StageDemand(
                stage=Stage(WorkflowName(name), own),
                calls_per_execution=first.calls_per_execution,
                calls=SPREAD,
                fan_out=1.0,
                time_share=SPREAD,
                call_s_mean=first.call_s_mean,
                prompt_tokens_mean=100.0,
                output_tokens_mean=10.0,
                cached_fraction=None,
            )
            demands.append(
                WorkflowDemand(
                    workflow=WorkflowName(name),
                    stages=(stage,),
                    executions=(ExecutionDemand((8.0,), 0.0, 8.0),),
                )
            )
            curves += profiles(name, shapes={own: shapes[BIG]}).curves
        plan = make_plan(
            PlanRequest(
                demands=tuple(demands),
                profiles=ProfileSet(tuple(curves)),
                cluster=regular_cluster(H100, nodes=1, gpus_per_node=6),
                rates=tuple(WorkflowRate(WorkflowName(name), 0.5) for name in names),
                weights=(WorkflowWeight(WorkflowName("a"), weight),),
            )
        )
        return plan.prediction.workflow(WorkflowName("a")).execution_s_mean

    assert latency_s(10.0) < latency_s(0.1)


def test_overload_names_the_bottleneck_and_what_would_do() -> None:
    """What the error says would do, does; a little more does not."""
    with pytest.raises(OverloadError, match="2 GPUs do not sustain w=20/s") as caught:
        make_plan(request(2, rate_per_s=20.0))
    error = caught.value

    assert error.bottleneck == BIG
    assert "`big` saturates first" in str(error)
    assert error.hint is not None
    assert f"or use {error.fewest_gpus} GPUs" in error.hint
    within = float(error.hint.split("w=")[1].split("/s")[0])
    assert make_plan(request(2, rate_per_s=within)).allocation.gpus <= 2
    with pytest.raises(OverloadError):
        make_plan(request(2, rate_per_s=20.0 * error.largest_factor * 1.001))
    assert error.fewest_gpus is not None
    pairs = request(2).cluster
    enough = resized(pairs, error.fewest_gpus)
    assert make_plan(request(cluster=enough, rate_per_s=20.0)).allocation.gpus > 2
    with pytest.raises(OverloadError):
        make_plan(request(cluster=resized(pairs, error.fewest_gpus - 1), rate_per_s=20.0))


def test_an_slo_on_the_mean_is_met_or_the_closest_is_named() -> None:
    assert make_plan(request(4, slo="mean <= 10s")).slo == parse_slo("mean <= 10s")

    with pytest.raises(SloError, match="do not meet mean <= 7 s at w=2/s") as caught:
        make_plan(request(4, slo="mean <= 7s"))
    error = caught.value

    best = make_plan(request(4)).prediction.workflow(WorkflowName("w"))
    assert error.closest_s == pytest.approx(best.execution_s_mean)
    assert error.fewest_gpus is not None
    assert error.fewest_gpus > 4
    enough = resized(request(4).cluster, error.fewest_gpus)
    assert make_plan(request(cluster=enough, slo="mean <= 7s")).slo is not None
    assert error.hint is not None
    relaxed = error.hint.split("'")[1]
    assert make_plan(request(4, slo=relaxed)).slo == parse_slo(relaxed)


def test_a_lower_rate_may_meet_a_percentile() -> None:
    """The rate that is proposed meets the SLO; the one that was asked for does not."""
    loaded_s = make_plan(request(2, rate_per_s=1.4)).prediction.workflows[0].execution_s_p95
    slo = f"p95 <= {loaded_s * 0.95:.2f}s"

    with pytest.raises(SloError) as caught:
        make_plan(request(2, rate_per_s=1.4, slo=slo))
    factor = caught.value.largest_factor

    assert factor is not None
    plan = make_plan(request(2, rate_per_s=1.4 * factor, slo=slo))
    assert plan.prediction.workflows[0].execution_s_p95 <= loaded_s * 0.95


def test_an_slo_below_the_least_latency_cannot_be_bought() -> None:
    with pytest.raises(SloError, match="nor would 64 GPUs") as caught:
        make_plan(request(2, rate_per_s=0.1, slo="p99 <= 1s"))

    assert caught.value.fewest_gpus is None
    assert caught.value.largest_factor is None
    assert (caught.value.hint or "").startswith("relax the SLO to 'p99 <= ")


def test_an_llm_wider_than_the_domains_says_so() -> None:
    with pytest.raises(LlmTooBigError, match=r"`big` needs tensor parallel 4 .* domain has 2 GPUs"):
        make_plan(request(8, nodes=4, shapes={**SHAPES, BIG: ((4, 1.0),)}))


def test_llms_that_do_not_fit_together_say_so() -> None:
    with pytest.raises(LlmTooBigError, match=r"at any rate.*`big` 1, `small` 0.2 GPUs") as caught:
        make_plan(request(1))

    assert caught.value.fewest_gpus == 2


def test_shares_coarser_than_all_profiles_say_so() -> None:
    shapes = {**SHAPES, SMALL: ((1, 0.2),)}
    coarse = PlanRequest(
        demands=(demand("w"),),
        profiles=profiles("w", shapes=shapes),
        cluster=regular_cluster(H100, nodes=1, gpus_per_node=4),
        rates=(WorkflowRate(WorkflowName("w"), 1.0),),
        units_per_gpu=1,
    )

    with pytest.raises(LlmTooBigError, match="no profiled shape of `small` is a whole number"):
        make_plan(coarse)


def test_gpus_in_domains_that_none_fits_are_unplaceable() -> None:
    """Three GPUs hold 2 x TP 2 by halves and a whole, but pairs and a single do not."""
    shapes = {BIG: ((2, 1.0),), SMALL: ((2, 0.5),)}
    single = regular_cluster(H100, nodes=3, gpus_per_node=1).gpus
    pair = regular_cluster(H100, nodes=1, gpus_per_node=2).gpus
    cluster = Cluster((*pair, *single[1:2]), (H100,))

    with pytest.raises(UnplaceableError, match=r"none of the .* best allocations") as caught:
        make_plan(request(cluster=cluster, rate_per_s=0.1, shapes=shapes))
    assert caught.value.unplaced.placed == 1
    assert "use 5 GPUs" in (caught.value.hint or "")  # with one more pair


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": ()}, "no rate is given"),
        ({"rates": (WorkflowRate(WorkflowName("w"), 1.0),) * 2}, "more than one rate"),
        ({"units_per_gpu": 0}, "must be >= 1"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(
    changes: dict[str, object], message: str
) -> None:
    base = request()
    fields = {
        "demands": base.demands,
        "profiles": base.profiles,
        "cluster": base.cluster,
        "rates": base.rates,
    }
    with pytest.raises(InputError, match=message):
        make_plan(PlanRequest(**{**fields, **changes}))


def test_a_workflow_that_was_not_recorded_is_named() -> None:
    base = request()
    asked = PlanRequest(
        demands=base.demands,
        profiles=base.profiles,
        cluster=base.cluster,
        rates=(WorkflowRate(WorkflowName("v"), 1.0),),
    )
    with pytest.raises(UnknownNameError, match="unknown workflow `v`"):
        make_plan(asked)


def test_a_gpu_type_without_profiles_stays_idle() -> None:
    other = GpuType(name=GpuTypeName("a100"), memory_bytes=80 * 1024**3)
    both = Cluster(
        (
            *regular_cluster(H100, nodes=1, gpus_per_node=4).gpus,
            *regular_cluster(other, nodes=2, gpus_per_node=1).gpus[1:],
        ),
        (H100, other),
    )

    plan = make_plan(request(cluster=both))

    assert {group.gpu_type for group in plan.allocation.groups} == {H100.name}
    assert plan.allocation == make_plan(request(4)).allocation


def test_a_stage_without_a_profile_is_named() -> None:
    shapes = {BIG: SHAPES[BIG]}
    with pytest.raises(MissingError, match="stage `w/small` has no profile on GPU type h100"):
        make_plan(request(shapes=shapes))
