"""Where replicas sit: a hierarchical heuristic in whole units, so nothing drifts.

A replica takes its units on each of ``tensor_parallel`` distinct GPUs of one NVLink domain. The
goals, in order: every replica sits; few GPUs are touched; few units are stranded on touched GPUs;
replicas of one LLM are spread over nodes and racks. Large groups go first, each replica to the
domain and the GPUs that it fills best. Which groups count as large, and whether a tie between
domains goes to the one with fewest replicas of the LLM or to the fullest, is tried in a few ways;
a group that finds no place goes first in another attempt. The best outcome by the goals is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from scepsy.model.cluster import Cluster, GpuId, GpuTypeName
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.attempt import Attempt, Group
from scepsy.place.bounds import least_gpus
from scepsy.place.fill import fill, fill_domain
from scepsy.place.merge import Merge, Where
from scepsy.place.rules import NO_RULES, PlaceRules
from scepsy.place.topology import UNITS_PER_GPU, ReplicaShape, fraction_units

_MOST_PROMOTED = 4
"""Times that a group which finds no place goes first."""
_ONE_WILL_DO = 256
"""GPUs from which on the first attempt that touches as few as can be is taken."""
_GPUS_TIGHTENED = 1024
"""GPUs over all numbers of them that a closer placement is looked for on."""
_NO_BOUND = 1 << 60


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


_WAYS = tuple(product(_ORDERS, (True, False)))
"""Orders, and whether replicas lie loosely."""


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
    if allocation.turns:
        whole = pack(_together(allocation), cluster, units_per_gpu=units_per_gpu, rules=rules)
        return whole if isinstance(whole, Unplaced) else _apart(allocation, whole)
    groups = groups_of(allocation, units_per_gpu, rules)
    where: dict[LlmName, Sequence[tuple[GpuId, ...]]] = {}
    for kind in sorted({group.type for group in groups}):
        own = [group for group in groups if group.type == kind]
        best = _Packing(own, _only(cluster, kind), units_per_gpu, rules).placed()
        if isinstance(best, Unplaced):
            return best
        where |= best
    return deal_names(allocation, rules.kept, where)


def _together(allocation: Allocation) -> Allocation:
    """The widest of the LLMs that take turns in place of all of them, on whole GPUs."""
    widest = {allocation.widest(llms).llm for llms in allocation.turns}
    alone = (
        replace(group, gpu_fraction=1.0) if group.llm in widest else group
        for group in allocation.groups
        if group.llm in widest or not allocation.turns_of(group.llm)
    )
    return Allocation(tuple(alone))


def _apart(allocation: Allocation, placement: Placement) -> Placement:
    """All LLMs that take turns where the widest of them was placed."""
    where: dict[LlmName, list[tuple[GpuId, ...]]] = {}
    for replica in placement.replicas:
        for llm in allocation.turns_of(replica.llm) or (replica.llm,):
            gpus = replica.gpus[: allocation.group(llm).tensor_parallel]
            where.setdefault(llm, []).append(gpus)
    return deal_names(allocation, (), where)


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


class _Packing:
    """The attempts to place the groups of one GPU type."""

    def __init__(
        self, groups: Sequence[Group], cluster: Cluster, units_per_gpu: int, rules: PlaceRules
    ) -> None:
        self._groups = groups
        self._cluster = cluster
        self._units_per_gpu = units_per_gpu
        self._kept = tuple(r for r in rules.kept if r.llm in {group.llm for group in groups})
        self._rules = replace(rules, kept=self._kept)
        self._bound = least_gpus([(g.shape, g.replicas) for g in groups], units_per_gpu)
        self._most = min(len(cluster.gpus), rules.max_gpus.get(groups[0].type, _NO_BOUND))
        self._free = rules == replace(NO_RULES, max_gpus=rules.max_gpus)
        """Whether replicas may sit wherever there is room."""
        self._best: Attempt | None = None
        self._failed: list[Unplaced] = []

    def placed(self) -> Where | Unplaced:
        """Where the replicas sit at best, or why the attempt that came furthest failed."""
        best = self._tried()
        if isinstance(best, Unplaced):
            return best
        where = {group.llm: list(best.gpus(group.llm)) for group in self._groups}
        if best.quality[0] == self._bound or not self._free:
            return where
        merge = Merge(self._groups, self._cluster, self._units_per_gpu, self._squeezed, where)
        return merge.run(self._bound) or where

    def _tried(self) -> Attempt | Unplaced:
        """The best attempt, or why the one that came furthest failed."""
        hopeless = self._bound > self._most
        for order, spread in product(_ORDERS, (True, False)):
            self._promote(sorted(self._groups, key=order), self._cluster, spread=spread)
            if hopeless or self._is_good():
                break
        if self._best is None and not hopeless and self._rules.max_together:
            for order in _ORDERS:
                self._promote(_in_turn(sorted(self._groups, key=order)), self._cluster, spread=True)
        if not hopeless and not self._kept:
            self._tighten()
        return self._best or max(self._failed, key=lambda unplaced: unplaced.placed)

    def _is_good(self) -> bool:
        """Whether no attempt touches fewer GPUs, on a cluster where attempts take long."""
        least = self._best is not None and self._best.quality[0] == self._bound
        return least and len(self._cluster.gpus) >= _ONE_WILL_DO

    def _tighten(self) -> None:
        """Look for a place on fewer GPUs: with no more than so many, replicas may lie loosely."""
        most = self._most + 1 if self._best is None else self._best.quality[0]
        least = max(self._bound, most - _GPUS_TIGHTENED // len(self._cluster.gpus))
        for gpus in range(most - 1, least - 1, -1):
            part = _first(self._cluster, gpus)
            before = self._best
            for order, loose in product(_ORDERS, (True, False)):
                self._promote(sorted(self._groups, key=order), part, spread=False, loose=loose)
                if self._best is not before:
                    break
            if self._best is before and self._free:
                filled = (self._filled(self._groups, part, *way) for way in _WAYS)
                if (found := next(filter(None, filled), None)) is not None:
                    self._accept(found)

    def _squeezed(self, groups: Sequence[Group], cluster: Cluster) -> Attempt | None:
        """Some groups on a part of the cluster; None where no way was found."""
        for order, loose in _WAYS:
            attempt = Attempt(cluster, self._units_per_gpu, NO_RULES, spread=False, loose=loose)
            if attempt.run(sorted(groups, key=order)) is None:
                return attempt
        filled = (self._filled(groups, cluster, *way) for way in _WAYS)
        if (found := next(filter(None, filled), None)) is not None:
            return found
        attempt = Attempt(cluster, self._units_per_gpu, NO_RULES, spread=False)
        one_domain = len(cluster.domains) == 1
        filled_up = one_domain and fill_domain(attempt, groups, len(cluster.gpus))
        return attempt if filled_up else None

    def _filled(
        self, groups: Sequence[Group], cluster: Cluster, order: _Order, loose: bool
    ) -> Attempt | None:
        """Wide replicas in some order, then one GPU after the other filled with the others."""
        attempt = Attempt(cluster, self._units_per_gpu, NO_RULES, spread=False, loose=loose)
        wide = [group for group in sorted(groups, key=order) if group.shape.gpus > 1]
        stuck = attempt.run(wide) or fill(attempt, [g for g in groups if g.shape.gpus == 1])
        return attempt if stuck is None else None

    def _promote(
        self, ordered: list[Group], cluster: Cluster, *, spread: bool, loose: bool = False
    ) -> None:
        """Place in the order given; a group that finds no place goes first the next time."""
        seen = set()
        for _ in range(_MOST_PROMOTED):
            attempt = Attempt(cluster, self._units_per_gpu, self._rules, spread=spread, loose=loose)
            stuck = attempt.run(ordered)
            if stuck is None:
                self._accept(attempt)
                return
            self._failed.append(_unplaced(self._groups, stuck, attempt.placed, self._units_per_gpu))
            if stuck.llm in seen:
                return
            seen.add(stuck.llm)
            ordered = [stuck, *(group for group in ordered if group is not stuck)]

    def _accept(self, attempt: Attempt) -> None:
        touched = attempt.quality[0]
        if touched > self._most:
            self._failed.append(
                _too_many(self._groups, attempt.placed, touched, self._most, self._units_per_gpu)
            )
        elif self._best is None or attempt.quality < self._best.quality:
            self._best = attempt


def _in_turn(groups: Sequence[Group]) -> list[Group]:
    """A replica of each group, then another of each.

    LLMs that must be spread over nodes then leave each other room on the larger ones.
    """
    most = max(group.replicas for group in groups)
    return [
        replace(group, replicas=1)
        for number in range(most)
        for group in groups
        if number < group.replicas
    ]


def _only(cluster: Cluster, kind: GpuTypeName) -> Cluster:
    """The GPUs of one type."""
    if len({gpu.type for gpu in cluster.gpus}) == 1:
        return cluster
    return Cluster(tuple(gpu for gpu in cluster.gpus if gpu.type == kind), cluster.types)


def _first(cluster: Cluster, gpus: int) -> Cluster:
    """So many GPUs of the largest domains."""
    ordered = sorted(cluster.domains, key=lambda domain: -len(domain.gpus))
    return Cluster(tuple(islice((g for d in ordered for g in d.gpus), gpus)), cluster.types)


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
    groups: Sequence[Group], placed: int, touched: int, most: int, units_per_gpu: int
) -> Unplaced:
    widest = max(groups, key=lambda group: group.shape.gpus * group.shape.units)
    return replace(
        _unplaced(groups, widest, placed - 1, units_per_gpu),
        because=f"`{widest.llm}` and the others touch {touched} GPUs of {widest.type}, "
        f"of which {most} may be",
    )
