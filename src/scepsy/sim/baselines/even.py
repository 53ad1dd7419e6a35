"""The GPUs split evenly over the LLMs. See ``docs/reference/baselines/even.md``."""

from collections.abc import Iterator

from scepsy.place.topology import UNITS_PER_GPU
from scepsy.sim.baselines.base import System, Task, fixed_system, is_placeable
from scepsy.sim.baselines.independent import whole_offer
from scepsy.sim.baselines.ratings import Offer, Ratings, computation

NAME = "even"


def even_systems(task: Task) -> tuple[System, ...]:
    """Whole GPUs for each LLM, by each largest degree; and every GPU shared by all LLMs."""
    ratings = Ratings(task)
    offers = [*_apart(task, ratings), *_together(task, ratings)]
    distinct = {offer.allocation: offer.note for offer in offers}
    return tuple(
        fixed_system(task, NAME, allocation, note=note)
        for allocation, note in distinct.items()
        if is_placeable(allocation, task.cluster)
    )


def _apart(task: Task, ratings: Ratings) -> Iterator[Offer]:
    """As many whole GPUs for each LLM, those left over to the ones that keep most GPUs busy."""
    share, over = divmod(task.gpus, len(ratings.llms))
    by_use = sorted(ratings.llms, key=lambda llm: (-computation(ratings, llm), llm))
    gpus = {llm: share + (at < over) for at, llm in enumerate(by_use)}
    for most in sorted({degree for llm in gpus for degree in ratings.degrees(llm)}):
        degrees = {llm: ratings.degree_within(llm, min(n, most)) for llm, n in gpus.items()}
        if not all(degrees.values()):
            continue
        replicas = {llm: n // degrees[llm] for llm, n in gpus.items()}
        note = f"{share} whole GPUs each, tensor parallel at most {most}"
        offer = whole_offer(ratings, degrees, replicas, note)
        if offer is not None:
            yield offer


def _together(task: Task, ratings: Ratings) -> Iterator[Offer]:
    """The same fraction of every GPU for each LLM, by each degree that all of them come in."""
    fraction = UNITS_PER_GPU // len(ratings.llms) / UNITS_PER_GPU
    shapes = [set(ratings.shapes(llm)) for llm in ratings.llms]
    for degree, part in sorted(set.intersection(*shapes)):
        replicas = sum(len(domain.gpus) // degree for domain in task.cluster.domains)
        if part != fraction or not replicas:
            continue
        rated = [ratings.rated(llm, (degree, part), replicas) for llm in ratings.llms]
        known = tuple(each for each in rated if each is not None)
        if len(known) == len(rated):
            yield Offer(known, f"{part:g} of every GPU each, tensor parallel {degree}")
