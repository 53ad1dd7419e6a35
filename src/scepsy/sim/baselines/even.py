"""The GPUs split evenly over the LLMs. See ``docs/reference/baselines/even.md``."""

from collections.abc import Iterator

from scepsy.model.plan import Allocation, ReplicaGroup
from scepsy.place.topology import UNITS_PER_GPU
from scepsy.sim.baselines.base import System, Task, allocation_of, fixed_system, is_placeable
from scepsy.sim.baselines.independent import whole_allocation
from scepsy.sim.baselines.ratings import Ratings

NAME = "even"


def even_systems(task: Task) -> tuple[System, ...]:
    """Whole GPUs for each LLM, by each uniform degree; and every GPU shared by all LLMs."""
    ratings = Ratings(task)
    found: dict[Allocation, System] = {}
    for allocation, note in [*_apart(task, ratings), *_together(task, ratings)]:
        if allocation not in found and is_placeable(allocation, task.cluster):
            found[allocation] = fixed_system(task, NAME, allocation, note=note)
    return tuple(found.values())


def _apart(task: Task, ratings: Ratings) -> Iterator[tuple[Allocation, str]]:
    """As many whole GPUs for each LLM, those left over to the ones that are used most."""
    for degrees in ratings.uniform_degrees():
        share, over = divmod(task.gpus, len(degrees))
        if min(share // degree for degree in degrees.values()) < 1:
            continue
        replicas = {llm: share // degree for llm, degree in degrees.items()}
        rated = {llm: ratings.whole(llm, degrees[llm], n) for llm, n in replicas.items()}
        by_use = sorted(rated, key=lambda llm: -(r.utilization if (r := rated[llm]) else 0.0))
        for llm in by_use[:over]:
            replicas[llm] = (share + 1) // degrees[llm]
        allocation = whole_allocation(ratings, degrees, replicas)
        if allocation is not None:
            note = f"{share} whole GPUs each, tensor parallel at most {max(degrees.values())}"
            yield allocation, note


def _together(task: Task, ratings: Ratings) -> Iterator[tuple[Allocation, str]]:
    """The same fraction of every GPU for each LLM, by each degree that all of them come in."""
    fraction = UNITS_PER_GPU // len(ratings.llms) / UNITS_PER_GPU
    shapes = [set(ratings.shapes(llm)) for llm in ratings.llms]
    for degree, part in sorted(set.intersection(*shapes)):
        if part != fraction:
            continue
        replicas = sum(len(domain.gpus) // degree for domain in task.cluster.domains)
        rated = [ratings.rated(llm, (degree, part), replicas) for llm in ratings.llms]
        groups: list[ReplicaGroup] = [each.group for each in rated if each is not None]
        if replicas and len(groups) == len(rated):
            yield allocation_of(groups), f"{part:g} of every GPU each, tensor parallel {degree}"
