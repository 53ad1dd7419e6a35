"""Why there is no plan, and what would do: the answers to an infeasible request.

What an answer proposes was tried: the planner finds a plan there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, floor, log10

from scepsy.errors import InfeasibleError
from scepsy.model.slo import Slo
from scepsy.model.workflow import LlmName
from scepsy.place.pack import Unplaced
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.frontier import LlmLoad, profiled_shapes, shape_units, usable_shapes
from scepsy.search.grow import MOST_GROWTH, has_plan, more_gpus
from scepsy.search.limits import Limits
from scepsy.search.problem import Problem, slo_value_s
from scepsy.search.reach import bisect, reach_of
from scepsy.units import format_duration

_BELOW = 1 - 1e-6
"""A rate this near to saturation stands for saturation."""


class More:
    """GPUs with which there is a plan: of each type alone, that many more than there are."""

    def __init__(self, problem: Problem) -> None:
        self.by_type = more_gpus(problem)
        """Types that do not help are left out."""
        self.fewest: int | None = None
        """In all, where the cluster has one GPU type."""
        self.ways: list[str]
        """What to do, in words."""
        if len(problem.rooms) == 1:
            have = len(problem.request.cluster.gpus)
            self.fewest = next((have + more for more in self.by_type.values()), None)
            self.ways = [f"use {self.fewest} GPUs"] if self.fewest is not None else []
        else:
            self.ways = [f"add {more} GPUs of {kind}" for kind, more in self.by_type.items()]


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
        more: More,
    ) -> None:
        super().__init__(message, hint=hint)
        self.bottleneck = bottleneck
        self.largest_factor = largest_factor
        """All rates times anything below this are sustained, before placement."""
        self.fewest_gpus = more.fewest
        self.more_gpus = more.by_type


class SloError(InfeasibleError):
    """The rates are sustained, but the SLO is not met."""

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        closest_s: float,
        largest_factor: float | None,
        more: More,
    ) -> None:
        super().__init__(message, hint=hint)
        self.closest_s = closest_s
        """Least value of the SLO's statistic among the allocations tried."""
        self.largest_factor = largest_factor
        self.fewest_gpus = more.fewest
        self.more_gpus = more.by_type


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


def _why_not_sustained(problem: Problem) -> InfeasibleError:
    for load in problem.loads:
        if (error := _too_wide(problem, load)) is not None:
            return error
    reach = reach_of(problem)
    if reach is None:
        return _too_big(problem)
    more = More(_without_slo(problem))
    stages = next(load.stages for load in problem.loads if load.llm == reach.bottleneck)
    of = ", ".join(f"`{stage.stage}`" for stage in stages)
    need = f"at least {more.fewest} GPUs are" if more.fewest else "more GPUs are"
    if not more.by_type:
        need = "more GPUs than were looked at are"
    return OverloadError(
        f"{len(problem.request.cluster.gpus)} GPUs do not sustain {_rates(problem)}: {need} "
        f"needed; `{reach.bottleneck}` saturates first (it serves {of})",
        hint=_ways(problem, _placeable_factor(problem, reach.factor), more.ways),
        bottleneck=reach.bottleneck,
        largest_factor=reach.factor,
        more=more,
    )


def _why_unplaced(problem: Problem, found: NoPlan) -> UnplaceableError:
    assert found.unplaced is not None  # without an SLO, what is no plan was not placed
    return UnplaceableError(
        f"the {len(problem.request.cluster.gpus)} GPUs suffice in sum, but none of the "
        f"{found.tried} best allocations fits their NVLink domains: {found.unplaced.reason}",
        hint=_ways(problem, _placeable_factor(problem, 1.0), More(_without_slo(problem)).ways),
        unplaced=found.unplaced,
    )


def _why_slo_missed(problem: Problem, slo: Slo) -> InfeasibleError:
    anyhow = find_plan(_without_slo(problem))
    if isinstance(anyhow, NoPlan):
        return why_none(_without_slo(problem), anyhow)
    closest_s = slo_value_s(anyhow.prediction, slo)
    factor = bisect(lambda part: has_plan(problem.scaled(part)), 1.0) or None
    more = More(problem)
    have = len(problem.request.cluster.gpus)
    never = "" if more.by_type else f", nor would {have * MOST_GROWTH} GPUs"
    relaxed = f"relax the SLO to '{slo.statistic} <= {_rounded(closest_s, ceil):g}s'"
    return SloError(
        f"{have} GPUs do not meet {slo} at {_rates(problem)}{never}: "
        f"the closest is {slo.statistic} = {format_duration(closest_s)}",
        hint=_ways(problem, factor, more.ways, relaxed),
        closest_s=closest_s,
        largest_factor=factor,
        more=more,
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
    kept_free = request.limits.free_gpus + len(request.limits.keep_free)
    fewest: int | None = ceil(sum(units for units, _ in parts) / per_gpu) + kept_free
    ways = [f"use at least {fewest} GPUs"]
    if len(problem.rooms) > 1:
        fewest, ways = None, More(_without_slo(problem)).ways or ["use more GPUs"]
    use = ", or ".join(ways)
    listed = ", ".join(f"`{llm}` {units / per_gpu:g}" for units, llm in parts)
    if request.limits != Limits():
        return LlmTooBigError(
            f"the limits leave no room on {problem.gpus} GPUs at any rate: "
            f"the LLMs take at least {listed} GPUs",
            hint=f"{use} on more nodes, or loosen the limits",
            fewest_gpus=fewest,
        )
    return LlmTooBigError(
        f"the LLMs do not fit in the memory of {len(request.cluster.gpus)} GPUs at any rate: "
        f"the smallest profiled shapes take {listed} GPUs",
        hint=f"{use}, or profile smaller GPU fractions if they fit",
        fewest_gpus=fewest,
    )


def _too_limited(load: LlmLoad) -> InfeasibleError:
    return LimitsError(
        f"the limits leave `{load.llm}` no profiled shape",
        hint="pin a degree that was profiled, let it share GPUs, or profile it on what is allowed",
    )


def _without_slo(problem: Problem) -> Problem:
    return replace(problem, request=replace(problem.request, slo=None))


def _placeable_factor(problem: Problem, factor: float) -> float | None:
    """The largest factor on all rates, up to one that is sustained in sum, that has a plan."""
    rated = _without_slo(problem)
    if has_plan(rated.scaled(factor * _BELOW)):
        return factor
    return bisect(lambda part: has_plan(rated.scaled(part)), factor) or None


def _ways(
    problem: Problem, factor: float | None, more: Sequence[str], relaxed: str | None = None
) -> str:
    """What would do, in a sentence."""
    ways = [relaxed] if relaxed else []
    if factor is not None:
        ways.append(f"lower the rates to {_rates(problem, factor)}")
    ways += more
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
