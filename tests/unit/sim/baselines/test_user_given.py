"""The user's allocation is the best of all on whole GPUs."""

from itertools import product

from scepsy.sim.baselines.ratings import Ratings
from scepsy.sim.baselines.user_given import user_given_systems
from tests.unit.sim.baselines.made_up import BOTH, Llm, made_task


def test_the_best_of_all_allocations_of_whole_gpus_is_among_them() -> None:
    llms = {"a": Llm(1.5, shapes=BOTH), "b": Llm(0.7, shapes=BOTH)}
    task = made_task({"w": llms}, gpus=6)
    ratings = Ratings(task)
    a, b = ratings.llms
    every = [
        sum(rated.cost_s for rated in pair if rated is not None)
        for pair in product(
            (ratings.whole(a, degree, n) for degree in (1, 2) for n in range(1, 7)),
            (ratings.whole(b, degree, n) for degree in (1, 2) for n in range(1, 7)),
        )
        if sum(rated.group.gpus for rated in pair if rated is not None) <= 6
    ]

    systems = user_given_systems(task)

    offered = []
    for system in systems:
        assert system.allocation is not None
        groups = system.allocation.groups
        assert all(group.gpu_fraction == 1 for group in groups)
        rated = [ratings.whole(g.llm, g.tensor_parallel, g.replicas) for g in groups]
        offered.append(sum(one.cost_s for one in rated if one is not None))
    assert abs(min(offered) - min(every)) < 1e-9
    assert len(systems) == len({system.allocation for system in systems}) <= 12
