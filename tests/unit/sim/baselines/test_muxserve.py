"""MuxServe-like units: mesh groups, and what is placed where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.workflow import LlmName
from scepsy.place.topology import UNITS_PER_GPU
from scepsy.sim.baselines.muxserve import headroom, mesh_groups, muxserve_systems, partitions
from scepsy.sim.baselines.ratings import Ratings, computation
from scepsy.sim.baselines.units import Meshes, place_units
from tests.unit.sim.baselines.made_up import TENTHS, WHOLE, Llm, made_task

A, B = LlmName("a"), LlmName("b")


def test_all_ways_to_cut_a_node() -> None:
    assert set(partitions(4, (1, 2, 4))) == {(4,), (2, 2), (2, 1, 1), (1, 1, 1, 1)}
    assert len(list(partitions(8, (1, 2, 4, 8)))) == 10


@pytest.mark.parametrize(("gpus", "nodes"), [(4, 1), (6, 1), (8, 2), (9, 3), (64, 16), (64, 8)])
def test_meshes_of_a_group_use_all_gpus_of_their_domains(gpus: int, nodes: int) -> None:
    task = made_task({"w": {"a": Llm(0.1)}}, gpus=gpus, nodes=nodes)

    found = list(mesh_groups(task, Ratings(task)))

    assert all(sum(meshes) == gpus for meshes in found)
    assert len(found) == len(set(found)) > 1
    assert (1,) * gpus in found
    if gpus // nodes == 4:
        assert (4,) * nodes in found


def test_gpus_that_are_too_few_for_any_mesh_stay_idle() -> None:
    task = made_task({"w": {"a": Llm(0.1, shapes=((2, 1.0),))}}, gpus=3)

    assert list(mesh_groups(task, Ratings(task))) == [(2,)]


def test_the_least_share_that_serves_the_load_is_taken() -> None:
    """0.35 and 0.15 of a GPU are busy: shares of 0.4 and 0.2 on one."""
    llms = {"a": Llm(0.35, shapes=TENTHS), "b": Llm(0.15, shapes=TENTHS)}
    ratings = Ratings(made_task({"w": llms}, gpus=1))

    units = place_units(ratings, Meshes([1]), 1.0)

    assert units is not None
    assert units.serves_all
    assert {r.group.llm: r.group.gpu_fraction for r in units.placed} == {A: 0.4, B: 0.2}


def test_what_is_left_is_given_to_what_is_used_most() -> None:
    llms = {"a": Llm(0.35, shapes=TENTHS), "b": Llm(0.15, shapes=TENTHS)}
    ratings = Ratings(made_task({"w": llms}, gpus=1))

    units = place_units(ratings, Meshes([1]), 1.0, to_the_full=True)

    assert units is not None
    assert {r.group.llm: r.group.gpu_fraction for r in units.placed} == {A: 0.7, B: 0.3}


def test_those_with_most_to_compute_come_first_and_have_the_larger_mesh() -> None:
    llms = {"a": Llm(0.2), "b": Llm(1.5)}
    ratings = Ratings(made_task({"w": llms}, gpus=3))

    units = place_units(ratings, Meshes([2, 1]), 1.0)

    assert computation(ratings, B) > computation(ratings, A)
    assert units is not None
    assert {r.group.llm: r.group.tensor_parallel for r in units.placed} == {A: 1, B: 2}


def test_copies_are_made_only_where_one_does_not_do() -> None:
    ratings = Ratings(made_task({"w": {"a": Llm(2.5, shapes=((1, 1.0),))}}, gpus=4))

    units = place_units(ratings, Meshes([1] * 4), 1.0)

    assert units is not None
    assert [r.group.replicas for r in units.placed] == [3]


def test_an_llm_without_a_place_fails_the_mesh_group() -> None:
    ratings = Ratings(made_task({"w": {"a": Llm(0.1), "b": Llm(0.1)}}, gpus=1))

    assert place_units(ratings, Meshes([1]), 1.0) is None
    assert headroom(ratings, [1]) == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from((1, 2, 4)), min_size=1, max_size=5),
    st.lists(
        st.builds(Llm, call_s=st.floats(0.01, 4), shapes=st.sampled_from((TENTHS, WHOLE))),
        min_size=1,
        max_size=4,
    ),
)
def test_no_mesh_holds_more_than_it_has(sizes: list[int], llms: list[Llm]) -> None:
    task = made_task({"w": dict(zip("abcd", llms, strict=False))}, gpus=4)
    meshes = Meshes(sizes)

    units = place_units(Ratings(task), meshes, 1.0, to_the_full=True)

    if units is not None:
        taken = sum(r.group.gpus for r in units.placed)
        assert abs(sum(sizes) - meshes.free_units / UNITS_PER_GPU - taken) < 1e-6
        assert meshes.free_units >= 0


def test_the_mesh_group_that_serves_most_comes_first() -> None:
    """2.4 and 0.6 GPUs are busy: of 4, three and one make 0.8 the fullest."""
    llms = {"a": Llm(2.4, shapes=WHOLE), "b": Llm(0.6, shapes=WHOLE)}

    first = muxserve_systems(made_task({"w": llms}, gpus=4))[0]

    assert first.allocation is not None
    assert [group.gpus for group in first.allocation.groups] == [3, 1]
