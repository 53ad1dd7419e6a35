"""Where replicas sit: a hierarchical heuristic in whole units, so nothing drifts.

A replica takes its units on each of ``tensor_parallel`` distinct GPUs of one NVLink domain. The
goals, in order: every replica sits; few GPUs are touched; few units are stranded on touched GPUs;
replicas of one LLM are spread over nodes and racks. Large groups go first, each replica to the
domain and the GPUs that it fills best. Which groups count as large, and whether a tie between
domains goes to the one with fewest replicas of the LLM or to the fullest, is tried in a few ways;
a group that finds no place goes first in another attempt. The best outcome by the goals is kept.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from scepsy.model.cluster import Cluster, GpuId, GpuTypeName
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.attempt import Attempt, Group
from scepsy.place.bounds import least_gpus
from scepsy.place.rules import NO_RULES, PlaceRules
from scepsy.place.topology import UNITS_PER_GPU, ReplicaShape, fraction_units

_MOST_PROMOTED = 4
"""Times that a group which finds no place goes first."""
_ONE_WILL_DO = 256
"""GPUs from which on the first attempt that touches few of them is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """A replica found no place."""

    llm: LlmName
    tensor_parallel: int
    gpu_fraction: float
    placed: int
    """Replicas of all LLMs that did, in the attempt that came furthest."""
    replicas: int
    """Replicas of all LLMs."""
    because: str = ""
    """Which rule is in the way, where one is."""

    @property
    def reason(self) -> str:
        """What is wrong, in a sentence."""
        return self.because or (
            f"after {self.placed} of {self.replicas} replicas no NVLink domain has "
            f"{self.tensor_parallel} GPU{'s' if self.tensor_parallel > 1 else ''} with "
            f"{self.gpu_fraction:g} free for a replica of `{self.llm}`"
        )


_Order = Callable[[Group], tuple[int, ...]]
_ORDERS: tuple[_Order, ...] = (
    lambda g: (-g.shape.gpus, -g.shape.units),
    lambda g: (-g.shape.units, -g.shape.gpus),
    lambda g: (-g.shape.gpus * g.shape.units, -g.shape.gpus),
)


def pack(
    allocation: Allocation,
    cluster: Cluster,
    *,
    units_per_gpu: int = UNITS_PER_GPU,
    rules: PlaceRules = NO_RULES,
) -> Placement | Unplaced:
    """Place every replica of an allocation, or say which one finds no place.

    A heuristic: where it finds no placement there may still be one.

    Raises:
        InputError: a group's fraction is not a whole number of units.
    """
    groups = groups_of(allocation, units_per_gpu, rules)
    bounds = _bounds(groups, units_per_gpu)
    sizes = Counter(gpu.type for gpu in cluster.gpus)
    most = {kind: min(n, rules.max_gpus.get(kind, n)) for kind, n in sizes.items()}
    hopeless = any(n > most.get(kind, 0) for kind, n in bounds.items())
    best: Attempt | None = None
    failed: list[Unplaced] = []
    for attempt, stuck in _attempts(groups, cluster, units_per_gpu, rules):
        if stuck is not None:
            failed.append(_unplaced(groups, stuck, attempt.placed, units_per_gpu))
        elif any(n > most[kind] for kind, n in attempt.touched.items()):
            failed.append(_too_many(groups, attempt, most, units_per_gpu))
        elif best is None or attempt.quality < best.quality:
            best = attempt
            if best.quality[0] == sum(bounds.values()) and len(cluster.gpus) >= _ONE_WILL_DO:
                break
        if hopeless:
            break
    if best is None:
        return max(failed, key=lambda unplaced: unplaced.placed)
    placed = {group.llm: list(best.gpus(group.llm)) for group in groups}
    return deal_names(allocation, rules.kept, placed)


def _bounds(groups: Sequence[Group], units_per_gpu: int) -> dict[GpuTypeName, int]:
    """GPUs of each type that are touched at least."""
    return {
        kind: least_gpus([(g.shape, g.replicas) for g in groups if g.type == kind], units_per_gpu)
        for kind in {group.type for group in groups}
    }


def groups_of(allocation: Allocation, units_per_gpu: int, rules: PlaceRules) -> list[Group]:
    """What is to be placed: the replicas of each LLM that do not stay where they are."""
    kept = [replica.llm for replica in rules.kept]
    return [
        Group(
            g.llm,
            g.gpu_type,
            ReplicaShape(g.tensor_parallel, fraction_units(g.gpu_fraction, units_per_gpu)),
            g.replicas - kept.count(g.llm),
        )
        for g in allocation.groups
    ]


def _attempts(
    groups: Sequence[Group], cluster: Cluster, units_per_gpu: int, rules: PlaceRules
) -> Iterator[tuple[Attempt, Group | None]]:
    seen: set[tuple[tuple[LlmName, ...], bool]] = set()
    for order, spread in product(_ORDERS, (True, False)):
        ordered = sorted(groups, key=order)
        for _ in range(_MOST_PROMOTED):
            tried = tuple(group.llm for group in ordered), spread
            if tried in seen:
                break
            seen.add(tried)
            attempt = Attempt(cluster, units_per_gpu, rules, spread=spread)
            stuck = attempt.run(ordered)
            yield attempt, stuck
            if stuck is None:
                break
            ordered = [stuck, *(group for group in ordered if group is not stuck)]


def deal_names(
    allocation: Allocation,
    kept: Sequence[PlacedReplica],
    fresh: Mapping[LlmName, Sequence[tuple[GpuId, ...]]],
) -> Placement:
    """A placement of named replicas: those that stay keep their names, the others get free ones.

    Args:
        allocation: what is placed.
        kept: replicas that stay where they are.
        fresh: the GPUs of each other replica, by LLM.
    """
    placed: list[PlacedReplica] = []
    for group in allocation.groups:
        stays = [replica for replica in kept if replica.llm == group.llm]
        names = _names(group.llm, {replica.name for replica in stays})
        new = [
            PlacedReplica(next(names), group.llm, gpus, group.gpu_fraction)
            for gpus in fresh.get(group.llm, [])
        ]
        placed += sorted(stays + new, key=lambda replica: (len(replica.name), replica.name))
    return Placement(tuple(placed))


def _names(llm: LlmName, taken: set[ReplicaName]) -> Iterator[ReplicaName]:
    number = 0
    while True:
        name = ReplicaName(f"{llm}-{number}")
        if name not in taken:
            yield name
        number += 1


def _unplaced(groups: Iterable[Group], stuck: Group, placed: int, units_per_gpu: int) -> Unplaced:
    return Unplaced(
        llm=stuck.llm,
        tensor_parallel=stuck.shape.gpus,
        gpu_fraction=stuck.shape.units / units_per_gpu,
        placed=placed,
        replicas=sum(group.replicas for group in groups),
    )


def _too_many(
    groups: Sequence[Group], attempt: Attempt, most: Mapping[GpuTypeName, int], units_per_gpu: int
) -> Unplaced:
    widest = max(groups, key=lambda group: group.shape.gpus * group.shape.units)
    over = ", ".join(
        f"{n} of {kind}, of which {most[kind]} may be"
        for kind, n in sorted(attempt.touched.items())
        if n > most[kind]
    )
    return replace(
        _unplaced(groups, widest, attempt.placed - 1, units_per_gpu),
        because=f"`{widest.llm}` and the others touch {over}",
    )
