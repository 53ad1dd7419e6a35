"""The systems that are compared: ours, ours without one of its parts, and the baselines.

Each gives configurations; which of them it runs is decided by simulations on seeds that are kept
for tuning. Ours: the allocations that the search proposes; the best of them behind each of a few
policies.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.plan import Allocation, Plan, WorkflowPrediction
from scepsy.model.workflow import LlmName
from scepsy.policy.order import find_order
from scepsy.policy.route import find_policy
from scepsy.predict import critical_path, pipeline
from scepsy.search.exact import allocation, choices
from scepsy.search.goals import largest_rates
from scepsy.search.limits import Limits, LlmLimits
from scepsy.search.problem import PlanRequest, Problem, problem
from scepsy.search.rank import contenders, ranked
from scepsy.search.turns import taking_turns
from scepsy.sim.baselines.base import System, Task, is_placeable
from scepsy.sim.baselines.ratings import Ratings
from scepsy.sim.baselines.registry import BASELINES
from scepsy.sim.serve import fleet_of
from scepsy.sim.specs import check_calls_fit, specs_of

OURS = "ours"
NOT_CAUTIOUS = "no caution"
_PROPOSED = 10
"""Allocations that are simulated."""
_PROPOSED_TURNS = 16
"""Allocations in which LLMs take turns that are simulated too."""
_PLAIN = ("least-loaded", "first-come")
"""Router and order that all allocations are tried with."""
_POLICIES = (
    ("prefix-aware", "first-come"),
    ("least-loaded", "oldest-execution"),
    ("prefix-aware", "oldest-execution"),
)
"""Those that the best one is tried with then."""
_LOOKED_AT = 2000
_LEAST_FACTOR = 0.01


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration that can be made into a system for any task with its LLMs."""

    allocation: Allocation
    router: str
    order: str

    def system(self, task: Task) -> System:
        """Ready to be simulated, with the step times of the task."""
        specs = specs_of(self.allocation, task.spec_of)
        make_router = find_policy(self.router)
        return System(
            name=OURS,
            gpus=self.allocation.gpus,
            make=lambda: fleet_of(self.allocation, specs, make_router=make_router),
            order=find_order(self.order),
            allocation=self.allocation,
            note=f"{described(self.allocation)}; {self.router}, {self.order}",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A configuration of a system, and how to make it for another task."""

    system: System
    make_for: Callable[[Task], System]
    others: tuple["Candidate", ...] = ()
    """To be tried beside it in the second round of tuning, if it is among the best of the first."""
    is_own: bool = False
    """Whether it is tuned in a last round as well."""
    is_cautious: bool = False
    """Whether it is tuned at more load as well, as executions may well be longer than recorded."""


def candidates(name: str, task: Task) -> tuple[Candidate, ...]:
    """The configurations that a system chooses from."""
    if name in OUR_VARIANTS:
        allocations, policies = OUR_VARIANTS[name](task)
        is_cautious = name != NOT_CAUTIOUS
        return tuple(
            _own(each, policies, task, is_cautious=is_cautious)
            for each in _that_fit(allocations, task)
        )
    return tuple(Candidate(system, _same(system)) for system in BASELINES[name](task))


def _own(
    allocation: Allocation,
    policies: Sequence[tuple[str, str]],
    task: Task,
    *,
    is_cautious: bool,
) -> Candidate:
    choice = Choice(allocation, *_PLAIN)
    others = [Choice(allocation, *policy) for policy in policies]
    return Candidate(
        choice.system(task),
        choice.system,
        tuple(
            Candidate(other.system(task), other.system, is_own=True, is_cautious=is_cautious)
            for other in others
        ),
        is_own=True,
        is_cautious=is_cautious,
    )


def _that_fit(allocations: Iterable[Allocation], task: Task) -> Iterator[Allocation]:
    """Each once; those whose weights have no room are left out."""
    longest = _longest_calls(task)
    for each in dict.fromkeys(allocations):
        with suppress(InfeasibleError, MissingError):
            check_calls_fit(specs_of(each, task.spec_of), longest)
            yield each


def _longest_calls(task: Task) -> dict[LlmName, int]:
    """Tokens that calls of each LLM have at most: they fit all that is profiled."""
    ratings = Ratings(task)
    found: dict[LlmName, int] = {}
    for llm in ratings.llms:
        specs = [task.spec_of(llm, task.gpu_type, *shape) for shape in ratings.shapes(llm)]
        if specs:
            found[llm] = min(spec.kv_blocks * spec.block_tokens for spec in specs)
    return found


def _same(system: System) -> Callable[[Task], System]:
    return lambda _: system


def described(allocation: Allocation) -> str:
    """An allocation in a line."""
    return ", ".join(
        f"{g.llm} {g.replicas} x TP{g.tensor_parallel}"
        + (f" x {g.gpu_fraction:g}" if g.gpu_fraction < 1 else "")
        + (" by turns" if allocation.turns_of(g.llm) else "")
        for g in allocation.groups
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """What the planner expects of the plan with the largest rates: a scale for rates and times."""

    factor: float
    """How far the task's rates can grow until it saturates."""
    latencies: tuple[WorkflowPrediction, ...]
    """At half of that."""


def reference(task: Task) -> Reference:
    """By the search and its own predictor.

    Raises:
        InfeasibleError: nothing fits.
    """
    asked = problem(_request(task))
    plan = largest_rates(asked)
    rate = task.rates[0]
    factor = plan.prediction.workflow(rate.workflow).capacity_per_s / rate.rate_per_s
    halved = asked.scaled(factor / 2).predict(plan.allocation)
    return Reference(factor, halved.workflows)


def capacity_factor(task: Task) -> float:
    """How far the task's rates can grow, as the planner expects, until a placed plan saturates."""
    return reference(task).factor


Offered = tuple[list[Allocation], Sequence[tuple[str, str]]]
"""Allocations, and policies that the best of them is tried with."""


def _ours(task: Task) -> Offered:
    return [*_allocations(task, Limits()), *_turns(task)], _POLICIES


def _no_turns(task: Task) -> Offered:
    return _allocations(task, Limits()), _POLICIES


def _no_co_location(task: Task) -> Offered:
    """Neither by shares of GPUs nor by turns."""
    return _allocations(task, Limits(share=False)), _POLICIES


def _no_degree_choice(task: Task) -> Offered:
    """Each LLM on the fewest GPUs that hold it."""
    least: dict[str, int] = {}
    for curve in task.profiles.curves:
        key = curve.key
        least[key.stage.llm] = min(least.get(key.stage.llm, 99), key.tensor_parallel)
    llms = {load.llm: LlmLimits(tensor_parallel=least[load.llm]) for load in task.loads}
    limits = Limits(llms=llms)
    return [*_allocations(task, limits), *_turns(task, limits)], _POLICIES


def _no_replicas(task: Task) -> Offered:
    alone = [a for a in _turns(task) if all(group.replicas == 1 for group in a.groups)]
    return [*_single_replicas(task), *alone], _POLICIES


def _no_policies(task: Task) -> Offered:
    return _ours(task)[0], ()


def _no_simulation(task: Task) -> Offered:
    return _allocations(task, Limits())[:1], ()


def _no_critical_path(task: Task) -> Offered:
    return _allocations(task, Limits(), predictor=pipeline.PREDICTOR)[:1], ()


OUR_VARIANTS: Mapping[str, Callable[[Task], Offered]] = {
    OURS: _ours,
    "no turns": _no_turns,
    "no co-location": _no_co_location,
    "no TP choice": _no_degree_choice,
    "no replicas": _no_replicas,
    "no policies": _no_policies,
    NOT_CAUTIOUS: _ours,
    "no simulation": _no_simulation,
    "no critical path": _no_critical_path,
}


def _turns(task: Task, limits: Limits | None = None) -> list[Allocation]:
    return taking_turns(problem(_request(task, limits)), _PROPOSED_TURNS)


def _request(task: Task, limits: Limits | None = None) -> PlanRequest:
    return PlanRequest(
        demands=task.demands,
        profiles=task.profiles,
        cluster=task.cluster,
        rates=task.rates,
        limits=limits or Limits(),
    )


def _allocations(
    task: Task, limits: Limits, predictor: str = critical_path.PREDICTOR
) -> list[Allocation]:
    """Those that the search proposes, by a predictor; at rates beyond it, of most throughput."""
    asked = problem(_request(task, limits))
    try:
        proposed = contenders(asked, _PROPOSED)
    except InfeasibleError:
        return _largest(asked)
    if predictor != pipeline.PREDICTOR:
        proposed.sort(key=lambda plan: _objective_s(asked, plan, predictor))
    return [plan.allocation for plan in proposed]


def _objective_s(asked: Problem, plan: Plan, predictor: str) -> float:
    """Infinite beyond the loads that the predictor knows."""
    try:
        return ranked(asked, [plan], predictor)[0].objective_s or float("inf")
    except MissingError:
        return float("inf")


def _largest(asked: Problem) -> list[Allocation]:
    try:
        return [largest_rates(asked).allocation]
    except InfeasibleError:
        return []


def _single_replicas(task: Task) -> list[Allocation]:
    """The best that have one replica of each LLM, for as much of the load as such ones sustain."""
    asked, factor = problem(_request(task)), 1.0
    found: list[Allocation] = []
    while not found and factor > _LEAST_FACTOR:
        scaled = asked.scaled(factor)
        llms = [options.where(options.replicas == 1) for options in scaled.options()]
        if all(map(len, llms)):
            for choice in islice(choices(llms, scaled.budgets), _LOOKED_AT):
                groups = allocation(llms, choice)
                if is_placeable(groups, task.cluster):
                    found.append(groups)
                if len(found) == _PROPOSED // 2:
                    break
        factor *= 0.9
    return found
