"""Laws of constraint programming: it states the heuristic's rules, also across nodes."""

from collections import Counter

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from scepsy.model.cluster import (
    Cluster,
    DomainName,
    Gpu,
    GpuId,
    GpuType,
    GpuTypeName,
    NodeName,
    RackName,
)
from scepsy.model.plan import Allocation, Placement, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.place.by_gpu import ByGpu
from scepsy.place.by_pattern import ByPattern
from scepsy.place.exact import place_exactly
from scepsy.place.pack import pack
from scepsy.place.rules import NO_RULES, PlaceRules

LIMIT_S = 20.0
TYPES = tuple(GpuType(name=GpuTypeName(name), memory_bytes=1) for name in ("a", "b"))


@st.composite
def clusters(draw: st.DrawFn, of: str | None = None) -> Cluster:
    """Up to 4 nodes; NVLink within a half of a node, a node, two nodes of a rack, or two racks."""
    size = draw(st.sampled_from([1, 2, 4]))
    nodes = draw(st.integers(1, 4 if size < 4 else 2))
    of = of or draw(st.sampled_from(["half", "node", "rack", "racks"]))
    kinds = draw(st.sampled_from([TYPES[:1], TYPES]))
    gpus = []
    for node in range(nodes):
        rack = node // 2
        kind = kinds[rack % len(kinds)].name
        domain = {
            "half": f"node-{node}/{{}}",
            "node": f"node-{node}",
            "rack": f"rack-{rack}",
            "racks": f"racks-{kind}",
        }[of]
        gpus += [
            Gpu(
                id=GpuId(f"node-{node}/gpu-{n}"),
                type=kind,
                node=NodeName(f"node-{node}"),
                domain=DomainName(domain.format(n // 2)),
                rack=RackName(f"rack-{rack}"),
            )
            for n in range(size)
        ]
    return Cluster(tuple(gpus), TYPES)


@st.composite
def allocations(draw: st.DrawFn, cluster: Cluster) -> Allocation:
    kinds = sorted({gpu.type for gpu in cluster.gpus})
    return Allocation(
        tuple(
            ReplicaGroup(
                llm=LlmName(f"llm-{n}"),
                gpu_type=draw(st.sampled_from(kinds)),
                tensor_parallel=draw(st.sampled_from([1, 1, 2, 3, 4])),
                replicas=draw(st.integers(1, 4)),
                gpu_fraction=draw(st.sampled_from([1, 2, 3, 4, 5, 6, 10])) / 10,
            )
            for n in range(draw(st.integers(1, 4)))
        )
    )


@st.composite
def rules(draw: st.DrawFn, groups: Allocation) -> PlaceRules:
    limited = draw(st.lists(st.sampled_from([g.llm for g in groups.groups]), max_size=2))
    return PlaceRules(
        max_together={llm: draw(st.integers(1, 2)) for llm in limited},
        by_rack=draw(st.booleans()),
        equal_shares=draw(st.booleans()),
    )


def check(placement: Placement, groups: Allocation, cluster: Cluster, rules: PlaceRules) -> None:
    """The laws, and the rules."""
    gpus = {gpu.id: gpu for gpu in cluster.gpus}
    together: Counter[tuple[LlmName, str]] = Counter()
    shares: dict[str, set[float]] = {}
    for replica in placement.replicas:
        group = groups.group(replica.llm)
        on = [gpus[gpu] for gpu in replica.gpus]
        assert len(set(replica.gpus)) == len(replica.gpus) == group.tensor_parallel
        assert len({gpu.domain for gpu in on}) == 1
        assert {gpu.type for gpu in on} == {group.gpu_type}
        together.update({(replica.llm, rules.scope(gpu)) for gpu in on})
        for gpu in on:
            shares.setdefault(gpu.node, set()).add(replica.gpu_fraction)
    assert Counter(r.llm for r in placement.replicas) == {g.llm: g.replicas for g in groups.groups}
    assert max(placement.used.values()) <= 1 + 1e-9
    assert all(together[llm, on] <= rules.max_together.get(llm, 99) for llm, on in together)
    assert not rules.equal_shares or all(len(units) == 1 for units in shares.values())


@pytest.mark.no_cover
@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 2), st.booleans())
def test_replicas_across_nodes_count_once_for_each(
    data: st.DataObject, most: int, by_rack: bool
) -> None:
    """Where NVLink spans racks, what the heuristic spreads is allowed by constraint programming."""
    cluster = data.draw(clusters(of="racks"))
    groups = data.draw(allocations(cluster))
    limits = {group.llm: most for group in groups.groups}
    spread = PlaceRules(max_together=limits, by_rack=by_rack)
    found = pack(groups, cluster, rules=spread)

    proof = place_exactly(groups, cluster, limit_s=LIMIT_S, rules=spread)

    if isinstance(found, Placement):
        check(found, groups, cluster, spread)
        assert proof.placement is not None
        assert proof.touched_bound <= len(found.used)
    if proof.placement is not None:
        check(proof.placement, groups, cluster, spread)


@pytest.mark.no_cover
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_the_heuristic_places_is_allowed_and_never_below_the_bound(
    data: st.DataObject,
) -> None:
    """And what constraint programming places keeps the laws and the rules."""
    cluster = data.draw(clusters())
    groups = data.draw(allocations(cluster))
    also = data.draw(st.one_of(st.just(NO_RULES), rules(groups)))
    found = pack(groups, cluster, rules=also)

    start = found if isinstance(found, Placement) else None
    proof = place_exactly(groups, cluster, limit_s=LIMIT_S, rules=also, start=start)

    event("placed" if start else "infeasible" if proof.infeasible else "missed")
    if start is not None:
        check(start, groups, cluster, also)
        assert proof.placement is not None
        assert proof.touched_bound <= len(start.used)
        allowed = PlaceRules(
            max_together=also.max_together,
            by_rack=also.by_rack,
            equal_shares=also.equal_shares,
            max_gpus=Counter(
                next(g.type for g in cluster.gpus if g.id == gpu) for gpu in start.used
            ),
        )
        again = place_exactly(groups, cluster, limit_s=LIMIT_S, rules=allowed)
        assert again.placement is not None
    if proof.placement is not None:
        check(proof.placement, groups, cluster, also)
        assert proof.proven
        assert proof.touched == len(proof.placement.used)
        assert proof.part_free == len(proof.placement.part_free)


@pytest.mark.no_cover
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_both_models_prove_the_same(data: st.DataObject) -> None:
    """By counts of patterns and by named GPUs: as many touched, as many part free, or none."""
    cluster = data.draw(clusters())
    groups = data.draw(allocations(cluster))
    counted = ByPattern(groups, cluster, 10, NO_RULES)
    named = ByGpu(groups, cluster, 10, NO_RULES, ())

    for model in (counted, named):
        touched = model.minimize(model.touched, LIMIT_S)
        assert model.infeasible or touched.value == touched.bound
        if not model.infeasible:
            model.minimize(model.part_free, LIMIT_S)

    assert counted.infeasible == named.infeasible
    if not counted.infeasible:
        assert counted.value(counted.touched) == named.value(named.touched)
        assert counted.value(counted.part_free) == named.value(named.part_free)
