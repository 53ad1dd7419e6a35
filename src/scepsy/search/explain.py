"""Why there is no plan, and what would do: the answers to an infeasible request.

What an answer proposes was tried: the planner finds a plan there.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from math import ceil, floor, log10

from scepsy.errors import InfeasibleError
from scepsy.model.plan import Plan
from scepsy.model.slo import Slo
from scepsy.model.workflow import LlmName
from scepsy.place.pack import Unplaced
from scepsy.place.topology import largest_domain, resized
from scepsy.search.exact import allocation
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.frontier import LlmLoad, profiled_shapes, shape_units, usable_shapes
from scepsy.search.limits import Limits
from scepsy.search.problem import Problem, slo_value_s
from scepsy.search.reach import fewest_units, reach_of
from scepsy.units import format_duration

_MOST_UNITS = 1_000_000
"""Budget up to which the fewest GPUs for a rate are looked for."""
_MOST_GROWTH = 32
"""Clusters this many times as large are looked at to meet an SLO."""
_PLACED = 100
"""Allocations tried to be placed for each rate and size that may be proposed."""
_PREDICTED = 8
"""Allocations whose percentiles are looked at for each size of cluster."""
_BISECTIONS = 14
_BELOW = 1 - 1e-6
"""A rate this near to saturation stands for saturation."""


class LlmTooBigError(InfeasibleError):
    """An LLM, or all of them together, does not fit whatever the rate."""

    def __init__(self, message: str, *, hint: str, fewest_gpus: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.fewest_gpus = fewest_gpus


class LimitsError(InfeasibleError):
    """What the user, or the target, allows leaves an LLM no shape."""


class OverloadError(InfeasibleError):
    """The cluster does not sustain the rates."""

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        bottleneck: LlmName,
        largest_factor: float,
        fewest_gpus: int | None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.bottleneck = bottleneck
        self.largest_factor = largest_factor
        """All rates times anything below this are sustained, before placement."""
        self.fewest_gpus = fewest_gpus


class SloError(InfeasibleError):
    """The rates are sustained, but the SLO is not met."""

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        closest_s: float,
        largest_factor: float | None,
        fewest_gpus: int | None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.closest_s = closest_s
        """Least value of the SLO's statistic among the allocations tried."""
        self.largest_factor = largest_factor
        self.fewest_gpus = fewest_gpus


class UnplaceableError(InfeasibleError):
    """The GPUs suffice in sum, but no allocation tried fits their NVLink domains."""

    def __init__(self, message: str, *, hint: str, unplaced: Unplaced) -> None:
        super().__init__(message, hint=hint)
        self.unplaced = unplaced


def why_none(problem: Problem, found: NoPlan) -> InfeasibleError:
    """The error that answers a problem for which no plan was found."""
    if found.tried == 0:
        return _why_not_sustained(problem)
    if problem.request.slo is not None:
        return _why_slo_missed(problem, problem.request.slo)
    return _why_unplaced(problem, found)


def fewest_gpus(problem: Problem) -> int | None:
    """GPUs, in domains like the cluster's largest, for which a plan sustains the rates.

    Starts from the units that are needed at least, so nothing less would do. None beyond a
    million units.
    """
    if len(problem.rooms) > 1:
        return None
    budget = problem.room.budget_units
    while budget <= _MOST_UNITS:
        choice = fewest_units(problem.options([budget]))
        if choice is not None:
            least = ceil(choice.units[0] / problem.room.units_per_gpu)
            return _first_with_plan(_without_slo(problem), least)
        budget *= 2
    return None


def _why_not_sustained(problem: Problem) -> InfeasibleError:
    for load in problem.loads:
        if (error := _too_wide(problem, load)) is not None:
            return error
    reach = reach_of(problem)
    if reach is None:
        return _too_big(problem)
    fewest = fewest_gpus(problem)
    stages = next(load.stages for load in problem.loads if load.llm == reach.bottleneck)
    of = ", ".join(f"`{stage.stage}`" for stage in stages)
    need = f"at least {fewest} GPUs are" if fewest else "more GPUs than were looked at are"
    return OverloadError(
        f"{len(problem.request.cluster.gpus)} GPUs do not sustain {_rates(problem)}: {need} "
        f"needed; `{reach.bottleneck}` saturates first (it serves {of})",
        hint=_ways(problem, _placeable_factor(problem, reach.factor), fewest),
        bottleneck=reach.bottleneck,
        largest_factor=reach.factor,
        fewest_gpus=fewest,
    )


def _why_unplaced(problem: Problem, found: NoPlan) -> UnplaceableError:
    assert found.unplaced is not None  # without an SLO, what is no plan was not placed
    return UnplaceableError(
        f"the {len(problem.request.cluster.gpus)} GPUs suffice in sum, but none of the "
        f"{found.tried} best allocations fits their NVLink domains: {found.unplaced.reason}",
        hint=_ways(problem, _placeable_factor(problem, 1.0), fewest_gpus(problem)),
        unplaced=found.unplaced,
    )


def _why_slo_missed(problem: Problem, slo: Slo) -> InfeasibleError:
    anyhow = find_plan(_without_slo(problem))
    if isinstance(anyhow, NoPlan):
        return _why_unplaced(problem, anyhow)
    closest_s = slo_value_s(anyhow.prediction, slo)
    factor = _bisect(lambda part: _has_plan(problem.scaled(part)), 1.0)
    fewest = _fewest_gpus_within_slo(problem)
    have = len(problem.request.cluster.gpus)
    never = "" if fewest else f", nor would {have * _MOST_GROWTH} GPUs"
    relaxed = f"relax the SLO to '{slo.statistic} <= {_rounded(closest_s, ceil):g}s'"
    return SloError(
        f"{have} GPUs do not meet {slo} at {_rates(problem)}{never}: "
        f"the closest is {slo.statistic} = {format_duration(closest_s)}",
        hint=_ways(problem, factor, fewest, relaxed),
        closest_s=closest_s,
        largest_factor=factor,
        fewest_gpus=fewest,
    )


def _too_wide(problem: Problem, load: LlmLoad) -> LlmTooBigError | None:
    by_room = profiled_shapes(load, problem.surfaces, problem.rooms)
    pairs = list(zip(problem.rooms, by_room, strict=True))
    if any(t <= room.max_tensor_parallel for room, shapes in pairs for t, _ in shapes):
        return None
    least = min(t for shapes in by_room for t, _ in shapes)
    widest = max(room.max_tensor_parallel for room in problem.rooms)
    return LlmTooBigError(
        f"`{load.llm}` needs tensor parallel {least} by its profiles, and the largest "
        f"NVLink domain has {widest} GPU{'s' if widest > 1 else ''}",
        hint="use a cluster with larger NVLink domains, GPUs with more memory, or a smaller LLM",
    )


def _least_units(problem: Problem, load: LlmLoad, limits: Limits) -> int | None:
    """Units that one replica of an LLM takes at least; None where it has no shape."""
    by_room = profiled_shapes(load, problem.surfaces, problem.rooms)
    units = [
        shape_units(shape, room.units_per_gpu)
        for room, shapes in zip(problem.rooms, by_room, strict=True)
        for shape in shapes
        if shape[0] <= room.max_tensor_parallel
    ]
    allowed = [
        each
        for room, shapes in zip(problem.rooms, by_room, strict=True)
        for _, each in usable_shapes(load, shapes, replace(room, budget_units=10**9), limits)
    ]
    return min((n for n in allowed if n in units), default=None)


def _too_big(problem: Problem) -> InfeasibleError:
    """The LLMs do not fit together even without load."""
    request, per_gpu = problem.request, problem.room.units_per_gpu
    parts: list[tuple[int, LlmName]] = []
    for load in problem.loads:
        least = _least_units(problem, load, request.limits)
        if least is None:
            if _least_units(problem, load, Limits()) is not None:
                return _too_limited(load)
            return LlmTooBigError(
                f"no profiled shape of `{load.llm}` is a whole number of 1/{per_gpu} GPUs",
                hint="share GPUs in finer units, or profile it on other GPU fractions",
            )
        replicas = request.limits.of(load.llm).min_replicas + (request.limits.survive is not None)
        parts.append((least * replicas, load.llm))
    fewest = ceil(sum(units for units, _ in parts) / per_gpu)
    listed = ", ".join(f"`{llm}` {units / per_gpu:g}" for units, llm in parts)
    if request.limits != Limits():
        return LlmTooBigError(
            f"the limits leave no room on {problem.gpus} GPUs at any rate: "
            f"the LLMs take at least {listed} GPUs",
            hint=f"use at least {fewest} GPUs on more nodes, or loosen the limits",
            fewest_gpus=fewest,
        )
    return LlmTooBigError(
        f"the LLMs do not fit in the memory of {len(request.cluster.gpus)} GPUs at any rate: "
        f"the smallest profiled shapes take {listed} GPUs",
        hint=f"use at least {fewest} GPUs, or profile smaller GPU fractions if they fit",
        fewest_gpus=fewest,
    )


def _too_limited(load: LlmLoad) -> InfeasibleError:
    return LimitsError(
        f"the limits leave `{load.llm}` no profiled shape",
        hint="pin a degree that was profiled, let it share GPUs, or profile it on what is allowed",
    )


def _without_slo(problem: Problem) -> Problem:
    return replace(problem, request=replace(problem.request, slo=None))


def _has_plan(problem: Problem) -> bool:
    few = replace(problem.request, max_candidates=_PLACED)
    return isinstance(find_plan(replace(problem, request=few)), Plan)


def _first_with_plan(problem: Problem, gpus: int) -> int | None:
    """The first number of GPUs from one on that has a plan; looks two domains far."""
    cluster = problem.request.cluster
    numbers = range(gpus, gpus + 2 * largest_domain(cluster) + 1)
    return next((n for n in numbers if _has_plan(problem.on(resized(cluster, n)))), None)


def _placeable_factor(problem: Problem, factor: float) -> float | None:
    """The largest factor on all rates, up to one that is sustained in sum, that has a plan."""
    rated = _without_slo(problem)
    if _has_plan(rated.scaled(factor * _BELOW)):
        return factor
    return _bisect(lambda part: _has_plan(rated.scaled(part)), factor)


def _bisect(holds: Callable[[float], bool], high: float) -> float | None:
    """The largest factor below a bound that holds, to 4 digits; None if none of those tried."""
    low = 0.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low or None


def _fewest_gpus_within_slo(problem: Problem) -> int | None:
    """GPUs for which a plan meets the SLO at the rates; None up to many times the cluster."""
    if len(problem.rooms) > 1:
        return None
    units_per_gpu = problem.room.units_per_gpu

    def meets(gpus: int) -> bool:
        return _meets_slo(problem, gpus * units_per_gpu)

    have = high = len(problem.request.cluster.gpus)
    while not meets(high):
        high *= 2
        if high > have * _MOST_GROWTH:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return _first_with_plan(problem, high)


def _meets_slo(problem: Problem, budget_units: int) -> bool:
    """Whether one of the best allocations within a budget meets the SLO, placeable or not.

    Exact where ``best_decides``; elsewhere it may miss one that does.
    """
    llms = problem.options([budget_units])
    slo = problem.request.slo
    return any(
        slo is None or slo_value_s(problem.predict(allocation(llms, choice)), slo) <= slo.bound_s
        for choice in islice(
            problem.choices(llms, [budget_units], problem.worst_per_s(llms)), _PREDICTED
        )
    )


def _ways(
    problem: Problem, factor: float | None, fewest: int | None, relaxed: str | None = None
) -> str:
    """What would do, in a sentence."""
    ways = [relaxed] if relaxed else []
    if factor is not None:
        ways.append(f"lower the rates to {_rates(problem, factor)}")
    if fewest is not None:
        ways.append(f"use {fewest} GPUs")
    return ", or ".join(ways) or "lower the rates, or use more GPUs"


def _rates(problem: Problem, factor: float = 1.0) -> str:
    """The rates as given, or times a factor and then rounded down so that they hold."""
    rates = [(w.rate.workflow, w.rate.rate_per_s * factor) for w in problem.workflows]
    if factor != 1:
        rates = [(name, _rounded(rate * _BELOW, floor)) for name, rate in rates]
    return ", ".join(f"{name}={rate:g}/s" for name, rate in rates)


def _rounded(value: float, towards: Callable[[float], int]) -> float:
    """Three significant digits, rounded down or up."""
    step = 10.0 ** (floor(log10(value)) - 2)
    return float(f"{towards(value / step) * step:.6g}")
