"""Placement by constraint programming (OR-Tools CP-SAT): to improve the heuristic's, or prove it.

Goals in order: replicas that stay where they are, GPUs touched, GPUs left part free.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scepsy.model.cluster import Cluster
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.place.by_gpu import ByGpu
from scepsy.place.by_pattern import ByPattern, can_count
from scepsy.place.rules import NO_RULES, PlaceRules
from scepsy.place.solver import Model, Reached
from scepsy.place.topology import UNITS_PER_GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What constraint programming found out about placing an allocation."""

    placement: Placement | None = None
    """The best found; None where none was."""
    infeasible: bool = False
    """Whether it is proven that there is none."""
    moved: int | None = None
    """Replicas that should stay and do not; None where none should."""
    moved_bound: int = 0
    """Replicas of those that any placement moves at least."""
    touched: int | None = None
    """GPUs that it touches."""
    touched_bound: int = 0
    """GPUs that any placement (that moves no more) touches at least."""
    part_free: int | None = None
    """GPUs that it touches and leaves part free."""
    part_free_bound: int = 0
    """GPUs that any placement that touches no more than ``touched`` leaves part free at least."""

    @property
    def proven(self) -> bool:
        """Whether no placement touches fewer GPUs, or there is none."""
        return self.infeasible or self.touched == self.touched_bound


def place_exactly(
    allocation: Allocation,
    cluster: Cluster,
    *,
    limit_s: float,
    units_per_gpu: int = UNITS_PER_GPU,
    rules: PlaceRules = NO_RULES,
    stay: Sequence[PlacedReplica] = (),
    start: Placement | None = None,
) -> Proof:
    """Place an allocation on as few GPUs as can be, or say how few it may come to.

    Args:
        allocation: what to place.
        cluster: where.
        limit_s: the solver's time for each of its goals.
        units_per_gpu: units that GPUs are shared in.
        rules: what else must be kept; its ``kept`` replicas are ignored.
        stay: replicas that should stay where they are, as many as possible.
        start: a placement to start from.
    """
    rules = replace(rules, kept=())
    model: Model
    moved: Reached | None = None
    if not stay and can_count(allocation, cluster, units_per_gpu, rules):
        model = ByPattern(allocation, cluster, units_per_gpu, rules)
    else:
        model = by_gpu = ByGpu(allocation, cluster, units_per_gpu, rules, stay)
        if stay:
            moved = by_gpu.minimize(by_gpu.moved, limit_s)
            if moved.value is None:
                return Proof(infeasible=model.infeasible, moved_bound=moved.bound)
    if start is not None:
        model.start_from(start)
    touched = model.minimize(model.touched, limit_s)
    if touched.value is None:
        return Proof(infeasible=model.infeasible, touched_bound=touched.bound)
    part_free = model.minimize(model.part_free, limit_s)
    return Proof(
        placement=model.placement(),
        moved=None if moved is None else moved.value,
        moved_bound=0 if moved is None else moved.bound,
        touched=touched.value,
        touched_bound=touched.bound,
        part_free=part_free.value,
        part_free_bound=part_free.bound,
    )
