"""Other goals than the least latency, and limits: on figures that a person can check."""

from collections import Counter
from dataclasses import replace

import pytest

from scepsy.errors import InfeasibleError, InputError, UnknownNameError
from scepsy.model.cluster import Cluster, GpuId, GpuType, GpuTypeName, regular_cluster
from scepsy.model.plan import Allocation, Plan, WorkflowRate
from scepsy.model.slo import parse_slo
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.profiles.curve import ProfileSet
from scepsy.search.explain import LimitsError, LlmTooBigError, OverloadError, SloError
from scepsy.search.goals import MAX_UTILIZATION, Goal
from scepsy.search.grow import grown, more_gpus
from scepsy.search.limits import Limits, LlmLimits, Scope, Target, parse_survive
from scepsy.search.loss import worst_loss
from scepsy.search.plan import best_plans, make_plan
from scepsy.search.problem import Objective, PlanRequest, problem
from tests.unit.search.made_up import BIG, H100, SMALL, demand, profiles, request

W = WorkflowName("w")
A100 = GpuType(name=GpuTypeName("a100"), memory_bytes=80 * 1024**3, price_per_hour=1.0)


def two_types(h100s: int, a100s: int, *, price: float = 3.0) -> PlanRequest:
    """Both types have the same profiles; an A100 costs 1 an hour."""
    fast = profiles("w")
    slow = [replace(c, key=replace(c.key, gpu_type=A100.name)) for c in fast.curves]
    dear = replace(H100, price_per_hour=price)
    gpus = (
        *regular_cluster(dear, nodes=1, gpus_per_node=h100s).gpus,
        *(
            replace(gpu, id=GpuId(f"a-{gpu.id}"), node=f"a-{gpu.node}", domain=f"a-{gpu.domain}")
            for gpu in regular_cluster(A100, nodes=1, gpus_per_node=a100s).gpus
        ),
    )
    return replace(
        request(),
        profiles=ProfileSet((*fast.curves, *slow)),
        cluster=Cluster(gpus, (dear, A100)),
    )


def test_the_largest_rate_is_just_below_saturation() -> None:
    plan = make_plan(request(4), Goal.RATE)

    used = {s.stage.llm: s.utilization for s in plan.prediction.workflows[0].stages}
    assert max(used.values()) == pytest.approx(MAX_UTILIZATION)
    assert plan.rates[0].rate_per_s == pytest.approx(plan.prediction.workflows[0].rate_per_s)
    more = plan.rates[0].rate_per_s / MAX_UTILIZATION
    assert make_plan(request(4, rate_per_s=more * 0.999)).allocation.gpus <= 4


def test_the_largest_rate_within_an_slo_meets_it_and_a_higher_one_does_not() -> None:
    slo = "p95 <= 20s"
    plan = make_plan(request(4, slo=slo), Goal.RATE)

    assert plan.prediction.workflows[0].execution_s_p95 <= 20
    with pytest.raises(SloError):
        make_plan(request(4, rate_per_s=plan.rates[0].rate_per_s * 1.01, slo=slo))


def test_fewer_gpus_than_the_fewest_do_not_do() -> None:
    plan = make_plan(request(8, slo="mean <= 10s"), Goal.GPUS)
    touched = len(plan.placement.used)

    assert plan.prediction.workflows[0].execution_s_mean <= 10
    assert touched < 8
    with pytest.raises(SloError):
        make_plan(request(touched - 1, slo="mean <= 10s"))


def test_the_cheapest_gpus_are_of_the_cheaper_type() -> None:
    plan = make_plan(two_types(4, 4), Goal.COST)

    assert {group.gpu_type for group in plan.allocation.groups} == {A100.name}
    fewest = make_plan(request(4), Goal.GPUS)
    assert len(plan.placement.used) == len(fewest.placement.used)


def test_what_one_type_cannot_hold_is_spread_over_both() -> None:
    """Two GPUs of each type sustain what two of one do not."""
    asked = two_types(2, 2)
    asked = replace(asked, rates=(WorkflowRate(W, 3.5),))

    plan = make_plan(asked)

    types = {gpu.id: gpu.type for gpu in asked.cluster.gpus}
    assert len({group.gpu_type for group in plan.allocation.groups}) == 2
    for replica in plan.placement.replicas:
        kind = plan.allocation.group(replica.llm).gpu_type
        assert {types[gpu] for gpu in replica.gpus} == {kind}


def test_a_gpu_may_be_kept_free_of_either_type() -> None:
    """The GPU that is left free is of the type that the plan can do without."""
    asked = two_types(1, 2)
    slow = [replace(c, capacity_per_s=c.capacity_per_s / 9) for c in asked.profiles.curves]
    curves = [
        slow[n] if c.key.gpu_type == A100.name else c for n, c in enumerate(asked.profiles.curves)
    ]
    asked = replace(asked, profiles=ProfileSet(tuple(curves)), limits=Limits(free_gpus=1))

    plan = make_plan(replace(asked, rates=(WorkflowRate(W, 1.0),)))

    types = {gpu.id: gpu.type for gpu in asked.cluster.gpus}
    assert Counter(types[gpu] for gpu in plan.placement.used) == {H100.name: 1, A100.name: 1}


@pytest.mark.parametrize("limits", [Limits(), Limits(free_gpus=1), Limits(survive=Scope.NODE)])
def test_with_several_gpu_types_more_of_each_are_proposed(limits: Limits) -> None:
    """What is proposed of a type does; one less of it does not."""
    asked = replace(two_types(2, 2), rates=(WorkflowRate(W, 20.0),), limits=limits)

    with pytest.raises((OverloadError, LlmTooBigError)) as caught:
        make_plan(asked)

    more = more_gpus(problem(asked))
    assert set(more) == {H100.name, A100.name}
    for kind, gpus in more.items():
        assert f"add {gpus} GPUs of {kind}" in (caught.value.hint or "")
        make_plan(replace(asked, cluster=grown(asked.cluster, kind, gpus)))
        with pytest.raises(InfeasibleError):
            make_plan(replace(asked, cluster=grown(asked.cluster, kind, gpus - 1)))


def test_with_several_gpu_types_more_meet_an_slo() -> None:
    asked = replace(two_types(4, 4), slo=parse_slo("mean <= 7s"))
    asked = replace(asked, rates=(WorkflowRate(W, 4.0),))

    with pytest.raises(SloError, match="the closest is mean") as caught:
        make_plan(asked)

    assert set(caught.value.more_gpus) == {H100.name, A100.name}
    for kind, gpus in caught.value.more_gpus.items():
        assert make_plan(replace(asked, cluster=grown(asked.cluster, kind, gpus))).slo is not None


def test_gpus_kept_free_by_name_are_known_to_the_answer() -> None:
    """More GPUs are proposed beside those that stay free."""
    limits = Limits(keep_free=frozenset({GpuId("node-0/gpu-1")}))

    with pytest.raises(OverloadError) as caught:
        make_plan(replace(request(4, rate_per_s=20.0), limits=limits))

    with pytest.raises(OverloadError) as without:
        make_plan(request(4, rate_per_s=20.0))
    assert caught.value.fewest_gpus == (without.value.fewest_gpus or 0) + 1


def test_a_low_rate_within_an_slo_has_four_digits_too() -> None:
    """Far below what the GPUs sustain, the largest rate is still found to four digits."""
    light_s = make_plan(request(2, rate_per_s=0.02)).prediction.workflows[0].execution_s_mean
    asked = request(2, rate_per_s=0.001, slo=f"mean <= {light_s * (1 + 1e-5):.6f}s")

    plan = make_plan(asked, Goal.RATE)

    rate_per_s = plan.rates[0].rate_per_s
    more = replace(asked, rates=(WorkflowRate(W, rate_per_s * 1.0002),))
    with pytest.raises(SloError):
        make_plan(more)


def test_a_price_that_is_not_known_is_asked_for() -> None:
    with pytest.raises(InputError, match="GPU type h100 has no price"):
        make_plan(request(4), Goal.COST)


def test_the_best_plans_are_distinct_and_in_order() -> None:
    plans = best_plans(problem(request(8)), 6)

    assert len({plan.allocation for plan in plans}) == 6
    objectives_s = [plan.objective_s for plan in plans]
    assert objectives_s == sorted(objectives_s)
    assert plans[0] == make_plan(request(8))


def test_max_min_does_not_starve_the_light_workflow() -> None:
    """By mean seconds the long workflow takes all; by slowdown the short one has its part."""
    names = {"long": 1.0, "short": 0.1}
    curves, demands = [], []
    for name, scale in names.items():
        own = {BIG: LlmName(f"big-{name}"), SMALL: LlmName(f"small-{name}")}
        whole = demand(name)
        demands.append(
            replace(
                whole,
                stages=tuple(
                    replace(s, stage=replace(s.stage, llm=own[s.stage.llm])) for s in whole.stages
                ),
            )
        )
        for curve in profiles(name).curves:
            stage = replace(curve.key.stage, llm=own[curve.key.stage.llm])
            curves.append(
                replace(
                    curve,
                    key=replace(curve.key, stage=stage),
                    points=tuple(
                        replace(p, latency_s_mean=p.latency_s_mean * scale) for p in curve.points
                    ),
                )
            )
    asked = PlanRequest(
        demands=tuple(demands),
        profiles=ProfileSet(tuple(curves)),
        cluster=regular_cluster(H100, nodes=1, gpus_per_node=6),
        rates=tuple(WorkflowRate(WorkflowName(name), 0.5) for name in names),
    )

    def worst(plan: Plan) -> float:
        alone = {
            name: make_plan(
                replace(asked, rates=(WorkflowRate(WorkflowName(name), 0.5),))
            ).prediction.workflows[0]
            for name in names
        }
        return max(
            w.execution_s_mean / alone[str(w.workflow)].execution_s_mean
            for w in plan.prediction.workflows
        )

    fair = make_plan(replace(asked, objective=Objective.MAX_MIN))
    assert worst(fair) < worst(make_plan(asked))


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_a_pinned_llm_has_its_degree(degree: int) -> None:
    limits = Limits(llms={BIG: LlmLimits(tensor_parallel=degree)})

    plan = make_plan(replace(request(8), limits=limits))

    assert plan.allocation.group(BIG).tensor_parallel == degree


def test_replicas_gpus_and_sharing_keep_their_limits() -> None:
    base = request(4)
    least = make_plan(replace(base, limits=Limits(llms={BIG: LlmLimits(min_replicas=2)})))
    assert least.allocation.group(BIG).replicas >= 2

    alone = make_plan(replace(request(3), limits=Limits(share=False)))
    assert all(used == 1 for used in alone.placement.used.values())
    assert {g.gpu_fraction for g in alone.allocation.groups} == {1.0}

    spare = make_plan(replace(base, limits=Limits(free_gpus=1)))
    assert len(spare.placement.used) <= 3
    named = GpuId("node-0/gpu-1")
    kept = make_plan(replace(base, limits=Limits(keep_free=frozenset({named}))))
    assert named not in kept.placement.used
    assert kept.objective_s == pytest.approx(spare.objective_s)


def test_any_node_may_be_lost() -> None:
    """On whichever node is lost, the replicas elsewhere still carry the rate."""
    asked = replace(request(12, nodes=3), limits=Limits(survive=Scope.NODE))

    plan = make_plan(asked)

    nodes = {gpu.id: gpu.node for gpu in asked.cluster.gpus}
    demands = {s.stage.llm: s.calls_per_execution for s in asked.demands[0].stages}
    for lost in set(nodes.values()):
        left = Counter(
            r.llm for r in plan.placement.replicas if lost not in {nodes[g] for g in r.gpus}
        )
        for group in plan.allocation.groups:
            stage = next(s.stage for s in asked.demands[0].stages if s.stage.llm == group.llm)
            curve = asked.profiles.curve(
                stage,
                group.gpu_type,
                group.tensor_parallel,
                group.gpu_fraction,
                left[group.llm],
            )
            assert curve is not None
            assert 2.0 * demands[group.llm] < left[group.llm] * curve.capacity_per_s


def test_the_latency_after_the_worst_loss_is_told() -> None:
    """It is that of the replicas that are left; no node's loss is worse."""
    asked = replace(request(12, nodes=3), limits=Limits(survive=Scope.NODE))
    plan = make_plan(asked)
    loss = worst_loss(problem(asked), plan)

    assert loss is not None
    assert (plan.objective_s or 0.0) <= loss.objective_s < float("inf")
    nodes = {gpu.id: gpu.node for gpu in asked.cluster.gpus}
    means_s = []
    for lost in sorted(set(nodes.values())):
        left = Counter(r.llm for r in plan.placement.replicas if nodes[r.gpus[0]] != lost)
        groups = tuple(replace(g, replicas=left[g.llm]) for g in plan.allocation.groups)
        prediction = problem(asked).predict(Allocation(groups))
        means_s.append(prediction.workflows[0].execution_s_mean)
    assert loss.objective_s == pytest.approx(max(means_s))
    assert worst_loss(problem(request(8)), make_plan(request(8))) is None


def test_one_node_cannot_be_survived() -> None:
    with pytest.raises(LlmTooBigError, match="the limits leave no room on 8 GPUs"):
        make_plan(replace(request(8), limits=Limits(survive=Scope.NODE)))


def test_equal_shares_are_of_one_size_on_a_node() -> None:
    asked = replace(request(4, nodes=2, rate_per_s=0.5), limits=Limits(target=Target.K8S_MPS_EQUAL))

    plan = make_plan(replace(asked, slo=parse_slo("mean <= 60s")), Goal.GPUS)

    nodes = {gpu.id: gpu.node for gpu in asked.cluster.gpus}
    shares: dict[str, set[float]] = {}
    for replica in plan.placement.replicas:
        for gpu in replica.gpus:
            shares.setdefault(nodes[gpu], set()).add(replica.gpu_fraction)
    assert all(len(found) == 1 for found in shares.values())
    for group in plan.allocation.groups:
        assert group.gpu_fraction == 1 or group.tensor_parallel == 1
        assert 1 / group.gpu_fraction == pytest.approx(round(1 / group.gpu_fraction))


def test_limits_that_leave_an_llm_nothing_say_so() -> None:
    with pytest.raises(LimitsError, match="the limits leave `big` no profiled shape"):
        make_plan(replace(request(8), limits=Limits(llms={BIG: LlmLimits(tensor_parallel=3)})))
    with pytest.raises(UnknownNameError, match="unknown LLM `bog`"):
        make_plan(replace(request(8), limits=Limits(llms={LlmName("bog"): LlmLimits()})))
    with pytest.raises(InputError, match="no GPU is left"):
        make_plan(replace(request(2), limits=Limits(free_gpus=2)))


def test_what_can_be_survived_is_one_node_or_rack() -> None:
    assert parse_survive("1 rack") is Scope.RACK
    with pytest.raises(InputError, match="`2 nodes` is not what a plan can survive"):
        parse_survive("2 nodes")
