"""Each LLM scaled by its own utilization, on whole GPUs: a horizontal pod autoscaler for each.

See ``docs/reference/baselines/independent.md``.
"""

from collections.abc import Mapping
from math import ceil, inf

from scepsy.model.workflow import LlmName
from scepsy.sim.baselines.base import System, Task, fixed_system, is_placeable
from scepsy.sim.baselines.ratings import Offer, Ratings, shortlist

NAME = "independent"
TARGETS = (0.5, 0.6, 0.7, 0.8)
"""Utilizations that an operator would aim at."""
TOLERANCE = 0.1
"""Part of the target within which nothing is changed: Kubernetes' default."""

MOST = 4
"""Configurations of most throughput that are offered, and of least latency."""

Counts = Mapping[LlmName, int]
"""Of each LLM: replicas, or GPUs for each of them."""


def independent_systems(task: Task) -> tuple[System, ...]:
    """What the autoscalers settle on, by each choice of degrees and each target; the best of it."""
    ratings = Ratings(task)
    settled = (
        _settled(task, ratings, degrees, target)
        for degrees in ratings.degree_choices()
        for target in TARGETS
    )
    return tuple(
        fixed_system(task, NAME, offer.allocation, note=offer.note)
        for offer in shortlist((offer for offer in settled if offer is not None), MOST)
    )


def wanted_replicas(ratings: Ratings, llm: LlmName, degree: int, target: float, most: int) -> int:
    """What one autoscaler settles on, from one replica, if it gets all it asks for.

    Each time it asks for ``ceil(replicas x utilization / target)``.
    """
    replicas = 1
    for _ in range(most):
        ratio = _utilization(ratings, llm, degree, replicas) / target
        if abs(ratio - 1) <= TOLERANCE:
            return replicas
        asked = most if ratio == inf else min(most, max(1, ceil(replicas * ratio - 1e-9)))
        if asked == replicas:
            return replicas
        replicas = asked
    return replicas


def hand_out(
    ratings: Ratings, degrees: Counts, replicas: Counts, most: Counts, gpus: int
) -> dict[LlmName, int]:
    """Give GPUs away, one replica at a time to the LLM that is used most.

    Args:
        ratings: of the LLMs.
        degrees: GPUs of a replica.
        replicas: those there are already.
        most: replicas that each LLM may have.
        gpus: for all replicas together.
    """
    given = dict(replicas)
    left = gpus - sum(degrees[llm] * n for llm, n in given.items())
    used = {llm: _utilization(ratings, llm, degrees[llm], n) for llm, n in given.items()}
    while able := [llm for llm in given if degrees[llm] <= left and given[llm] < most[llm]]:
        llm = max(able, key=used.__getitem__)
        given[llm] += 1
        left -= degrees[llm]
        used[llm] = _utilization(ratings, llm, degrees[llm], given[llm])
    return given


def whole_offer(ratings: Ratings, degrees: Counts, replicas: Counts, note: str) -> Offer | None:
    """Groups on whole GPUs; None where one is not profiled."""
    rated = [ratings.whole(llm, degree, replicas[llm]) for llm, degree in degrees.items()]
    known = tuple(each for each in rated if each is not None)
    return Offer(known, note) if len(known) == len(rated) else None


def _settled(task: Task, ratings: Ratings, degrees: Counts, target: float) -> Offer | None:
    """What all autoscalers settle on together; None where not one replica of each fits.

    What they want beyond the GPUs is cut, what they leave is handed out: by utilization.
    """
    if sum(degrees.values()) > task.gpus:
        return None
    one = dict.fromkeys(degrees, 1)
    wanted = {
        llm: wanted_replicas(ratings, llm, degree, target, task.gpus)
        for llm, degree in degrees.items()
    }
    most = dict.fromkeys(degrees, task.gpus)
    while True:
        at_first = {llm: min(wanted[llm], most[llm]) for llm in most}
        replicas = hand_out(ratings, degrees, one, at_first, task.gpus)
        replicas = hand_out(ratings, degrees, replicas, most, task.gpus)
        offer = whole_offer(ratings, degrees, replicas, f"target {target:g}")
        if offer is None or is_placeable(offer.allocation, task.cluster):
            return offer
        cut = [llm for llm, n in replicas.items() if n > 1]
        if not cut:
            return None
        widest = max(cut, key=degrees.__getitem__)
        most[widest] = replicas[widest] - 1


def _utilization(ratings: Ratings, llm: LlmName, degree: int, replicas: int) -> float:
    rated = ratings.whole(llm, degree, replicas)
    return inf if rated is None else rated.utilization
