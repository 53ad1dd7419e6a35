"""Independent scaling, and the even split."""

import pytest

from scepsy.model.workflow import LlmName
from scepsy.sim.baselines.base import System
from scepsy.sim.baselines.even import even_systems
from scepsy.sim.baselines.independent import hand_out, independent_systems, wanted_replicas
from scepsy.sim.baselines.ratings import Ratings
from tests.unit.sim.baselines.made_up import TENTHS, Llm, made_task

A, B, C = LlmName("a"), LlmName("b"), LlmName("c")


def shapes_of(system: System) -> dict[str, tuple[int, float, int]]:
    assert system.allocation is not None
    groups = system.allocation.groups
    return {g.llm: (g.tensor_parallel, g.gpu_fraction, g.replicas) for g in groups}


@pytest.mark.parametrize(
    ("call_s", "target", "replicas"),
    [
        (2.3, 0.5, 5),  # 2.3 GPUs busy: ceil(1 x 2.3 / 0.5)
        (2.3, 0.8, 3),  # ceil(2.875); then 0.77 is within a tenth of 0.8
        (0.54, 0.5, 1),  # within a tenth of the target
        (0.56, 0.5, 2),
        (0.01, 0.5, 1),
        (99.0, 0.5, 8),  # no more than there are GPUs
    ],
)
def test_an_autoscaler_wants_replicas_times_utilization_over_target(
    call_s: float, target: float, replicas: int
) -> None:
    ratings = Ratings(made_task({"w": {"a": Llm(call_s)}}, gpus=8))

    assert wanted_replicas(ratings, A, 1, target, 8) == replicas


def test_gpus_are_handed_out_by_utilization() -> None:
    ratings = Ratings(made_task({"w": {"a": Llm(3.0), "b": Llm(1.0)}}, gpus=8))
    one, most = {A: 1, B: 1}, {A: 8, B: 8}

    assert hand_out(ratings, {A: 1, B: 1}, one, most, 8) == {A: 6, B: 2}
    assert hand_out(ratings, {A: 2, B: 1}, one, most, 8) == {A: 3, B: 2}
    assert hand_out(ratings, {A: 1, B: 1}, one, {A: 2, B: 8}, 8) == {A: 2, B: 6}


def test_each_uniform_degree_is_offered_and_no_gpu_is_left_idle() -> None:
    llms = {"a": Llm(1.5, shapes=((2, 1.0), (4, 1.0))), "b": Llm(0.5, shapes=((1, 1.0),))}

    systems = independent_systems(made_task({"w": llms}, gpus=8))

    found = [shapes_of(system) for system in systems]
    assert {"a": (2, 1.0, 3), "b": (1, 1.0, 2)} in found
    assert {"a": (4, 1.0, 1), "b": (1, 1.0, 4)} in found
    assert all(system.gpus == 8 for system in systems)


def test_what_does_not_fit_its_domain_gives_way() -> None:
    """Three nodes of 3 GPUs hold three replicas of 2 GPUs; a fourth finds no pair."""
    llms = {"a": Llm(9.0, shapes=((2, 1.0),)), "b": Llm(0.5, shapes=((1, 1.0),))}

    (system,) = independent_systems(made_task({"w": llms}, gpus=9, nodes=3))

    assert shapes_of(system) == {"a": (2, 1.0, 3), "b": (1, 1.0, 3)}


def test_gpus_left_over_by_an_even_split_go_to_what_is_used_most() -> None:
    llms = {"a": Llm(0.2), "b": Llm(2.0), "c": Llm(1.0)}

    found = [shapes_of(s) for s in even_systems(made_task({"w": llms}, gpus=8))]

    assert {"a": (1, 1.0, 2), "b": (1, 1.0, 3), "c": (1, 1.0, 3)} in found
    assert {"a": (2, 1.0, 1), "b": (2, 1.0, 1), "c": (2, 1.0, 1)} in found


def test_more_llms_than_gpus_share_each_of_them() -> None:
    llms = {name: Llm(0.1, shapes=TENTHS) for name in "abc"}

    (system,) = even_systems(made_task({"w": llms}, gpus=2))

    assert shapes_of(system) == dict.fromkeys("abc", (1, 0.3, 2))
