"""An allocation that the user gives, and executions that go depth first, as in Ayo.

See ``docs/reference/baselines/user-given.md``.
"""

from scepsy.errors import InfeasibleError
from scepsy.model.plan import Allocation
from scepsy.policy.order import oldest_execution
from scepsy.search.find import find_plans
from scepsy.search.goals import largest_rates
from scepsy.search.problem import PlanRequest, Problem, problem
from scepsy.sim.baselines.base import System, Task, fixed_system
from scepsy.sim.baselines.even import even_systems

NAME = "user-given"
MOST = 8
"""Allocations of the user's grid that are simulated: those that look best."""
_LOOKED_AT = 4 * MOST
"""So many, before those are left out that are like another one with fewer replicas."""


def user_given_systems(task: Task) -> tuple[System, ...]:
    """The best of all allocations of whole GPUs by the pipeline, and the even splits of them."""
    grid = problem(
        PlanRequest(
            demands=task.demands,
            profiles=task.profiles,
            cluster=task.cluster,
            rates=task.rates,
            units_per_gpu=1,
        )
    )
    found = dict.fromkeys(_best(grid), "among the best of the grid")
    for system in even_systems(task):
        allocation = system.allocation
        if allocation is not None and all(g.gpu_fraction == 1 for g in allocation.groups):
            found.setdefault(allocation, system.note)
    return tuple(
        fixed_system(task, NAME, allocation, order=oldest_execution, note=note)
        for allocation, note in found.items()
    )


def _best(grid: Problem) -> list[Allocation]:
    """Those of least latency, and the one that sustains most; the latter alone where none does."""
    plans = find_plans(grid, _LOOKED_AT)
    found = [plan.allocation for plan in plans] if isinstance(plans, list) else []
    best = [one for one in found if not any(_has_more(other, one) for other in found)][:MOST]
    try:
        return list(dict.fromkeys([*best, largest_rates(grid).allocation]))
    except InfeasibleError:
        return best


def _has_more(one: Allocation, other: Allocation) -> bool:
    """Whether it has the same shapes, at least as many replicas of each LLM, and more of one."""
    pairs = list(zip(one.groups, other.groups, strict=True))
    more = [a.replicas - b.replicas for a, b in pairs if a.tensor_parallel == b.tensor_parallel]
    return len(more) == len(pairs) and min(more) >= 0 and max(more) > 0
