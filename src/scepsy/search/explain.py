"""Why there is no plan, and what would do: the answers to an infeasible request."""

from collections.abc import Callable
from math import ceil, floor, log10

from scepsy.errors import InfeasibleError
from scepsy.model.plan import Allocation
from scepsy.model.slo import Slo
from scepsy.model.workflow import LlmName
from scepsy.place.bounds import least_gpus
from scepsy.place.pack import Unplaced, pack
from scepsy.place.topology import largest_domain, resized, shapes
from scepsy.search.exact import Choice, allocation
from scepsy.search.frontier import Options, profiled_shapes, shape_units
from scepsy.search.problem import Problem
from scepsy.search.reach import fewest_units, largest_factor
from scepsy.units import format_duration

_MOST_UNITS = 1_000_000
"""Budget up to which the fewest GPUs for a rate are looked for."""
_MOST_GROWTH = 32
"""Clusters this many times as large are looked at to meet an SLO."""
_SLO_CANDIDATES = 8
"""Allocations tried for each rate and size when an SLO is explained."""
_BISECTIONS = 16


class LlmTooBigError(InfeasibleError):
    """An LLM, or all of them together, does not fit whatever the rate."""

    def __init__(self, message: str, *, hint: str, fewest_gpus: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.fewest_gpus = fewest_gpus


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


def why_overloaded(problem: Problem) -> InfeasibleError:
    """The error for a problem without any allocation that sustains the rates."""
    for load in problem.loads:
        if (error := _too_wide(problem, load.llm)) is not None:
            return error
    llms = problem.options()
    reach = largest_factor(llms, problem.room.budget_units)
    have = len(problem.request.cluster.gpus)
    if reach is None:
        return _too_big(problem)
    fewest = fewest_gpus(problem)
    stages = next(load.stages for load in problem.loads if load.llm == reach.bottleneck)
    of = ", ".join(sorted({f"`{stage.stage}`" for stage in stages}))
    need = f"at least {fewest} GPUs are" if fewest else "more GPUs than were looked at are"
    do = f", or use {fewest} GPUs" if fewest else ""
    return OverloadError(
        f"{have} GPUs do not sustain {_rates(problem)}: {need} needed; "
        f"`{reach.bottleneck}` saturates first (it serves {of})",
        hint=f"lower the rates to {_rates(problem, reach.factor)}{do}",
        bottleneck=reach.bottleneck,
        largest_factor=reach.factor,
        fewest_gpus=fewest,
    )


def why_slo_missed(problem: Problem, slo: Slo, closest_s: float) -> SloError:
    """The error for a problem whose allocations sustain the rates but miss the SLO."""
    factor = _largest_factor_within_slo(problem)
    fewest = _fewest_gpus_within_slo(problem)
    ways = [f"relax the SLO to '{slo.statistic} <= {_rounded(closest_s, ceil):g}s'"]
    if factor is not None:
        ways.append(f"lower the rates to {_rates(problem, factor)}")
    if fewest is not None:
        ways.append(f"use {fewest} GPUs")
    have = len(problem.request.cluster.gpus)
    never = "" if fewest else f", nor would {have * _MOST_GROWTH} GPUs"
    return SloError(
        f"{have} GPUs do not meet {slo} at {_rates(problem)}{never}: "
        f"the closest is {slo.statistic} = {format_duration(closest_s)}",
        hint=", or ".join(ways),
        closest_s=closest_s,
        largest_factor=factor,
        fewest_gpus=fewest,
    )


def why_unplaced(problem: Problem, unplaced: Unplaced, tried: int) -> UnplaceableError:
    """The error for a problem of which no allocation tried can be placed."""
    fewest = fewest_gpus(problem)
    return UnplaceableError(
        f"none of the {tried} best allocations can be placed: {unplaced.reason}",
        hint=f"{fewest} GPUs would do, or lower the rates" if fewest else "lower the rates",
        unplaced=unplaced,
    )


def fewest_gpus(problem: Problem) -> int | None:
    """GPUs, in domains like the cluster's largest, that sustain the rates and can be placed.

    The units are the fewest there are; placement may add a GPU. None beyond a million units.
    """
    budget = problem.room.budget_units
    while budget <= _MOST_UNITS:
        llms = problem.options(budget)
        choice = fewest_units(llms)
        if choice is not None:
            return _gpus_for(problem, llms, choice)
        budget *= 2
    return None


def _gpus_for(problem: Problem, llms: list[Options], choice: Choice) -> int | None:
    """The fewest GPUs, by the packing heuristic, that an allocation can be placed on."""
    groups: Allocation = allocation(llms, choice)
    units_per_gpu = problem.room.units_per_gpu
    cluster = problem.request.cluster
    least = least_gpus(shapes(groups, units_per_gpu), units_per_gpu)
    for gpus in range(least, least + 2 * largest_domain(cluster) + 1):
        if not isinstance(
            pack(groups, resized(cluster, gpus), units_per_gpu=units_per_gpu), Unplaced
        ):
            return gpus
    return None


def _too_wide(problem: Problem, llm: LlmName) -> LlmTooBigError | None:
    load = next(load for load in problem.loads if load.llm == llm)
    degrees = [t for t, _ in profiled_shapes(load, problem.request.profiles, problem.room.gpu_type)]
    widest = problem.room.max_tensor_parallel
    if min(degrees) <= widest:
        return None
    return LlmTooBigError(
        f"`{llm}` needs tensor parallel {min(degrees)} by its profiles, and the largest NVLink "
        f"domain has {widest} GPU{'s' if widest > 1 else ''}",
        hint="use a cluster with larger NVLink domains, GPUs with more memory, or a smaller LLM",
    )


def _too_big(problem: Problem) -> LlmTooBigError:
    """The LLMs do not fit together even without load."""
    request, room = problem.request, problem.room
    parts: list[tuple[int, LlmName]] = []
    for load in problem.loads:
        units = [
            shape_units(shape, room.units_per_gpu)
            for shape in profiled_shapes(load, request.profiles, room.gpu_type)
            if shape[0] <= room.max_tensor_parallel
        ]
        usable = [n for n in units if n > 0]
        if not usable:
            return LlmTooBigError(
                f"no profiled shape of `{load.llm}` is a whole number of 1/{room.units_per_gpu} "
                "GPUs",
                hint="share GPUs in finer units, or profile it on other GPU fractions",
            )
        parts.append((min(usable), load.llm))
    fewest = ceil(sum(units for units, _ in parts) / room.units_per_gpu)
    listed = ", ".join(f"`{llm}` {units / room.units_per_gpu:g}" for units, llm in parts)
    return LlmTooBigError(
        f"the LLMs do not fit in the memory of {len(request.cluster.gpus)} GPUs at any rate: "
        f"the smallest profiled shapes take {listed} GPUs",
        hint=f"use at least {fewest} GPUs, or profile smaller GPU fractions if they fit",
        fewest_gpus=fewest,
    )


def _largest_factor_within_slo(problem: Problem) -> float | None:
    """The largest factor on all rates within the SLO, to 3 digits; None if no rate is."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        met = problem.scaled(middle).first_within_slo(candidates=_SLO_CANDIDATES)[1]
        low, high = (middle, high) if met is not None else (low, middle)
    return low or None


def _fewest_gpus_within_slo(problem: Problem) -> int | None:
    """GPUs that meet the SLO at the rates, to the unit; None up to many times the cluster."""

    def meets(budget: int) -> tuple[list[Options], Choice] | None:
        _, choice, llms = problem.first_within_slo(budget, candidates=_SLO_CANDIDATES)
        return None if choice is None else (llms, choice)

    low = problem.room.budget_units
    high, found = low, None
    while found is None and high < low * _MOST_GROWTH:
        high *= 2
        found = meets(high)
    if found is None:
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        better = meets(middle)
        if better is None:
            low = middle
        else:
            high, found = middle, better
    return _gpus_for(problem, *found)


def _rates(problem: Problem, factor: float = 1.0) -> str:
    """The rates as given, or times a factor and then rounded down so that they hold."""
    rates = [(w.rate.workflow, w.rate.rate_per_s * factor) for w in problem.workflows]
    if factor != 1:
        rates = [(name, _rounded(rate * (1 - 1e-9), floor)) for name, rate in rates]
    return ", ".join(f"{name}={rate:g}/s" for name, rate in rates)


def _rounded(value: float, towards: Callable[[float], int]) -> float:
    """Three significant digits, rounded down or up."""
    step = 10.0 ** (floor(log10(value)) - 2)
    return float(f"{towards(value / step) * step:.6g}")
