"""Where replicas sit: a hierarchical heuristic in whole units, so nothing drifts.

A replica takes its units on each of ``tensor_parallel`` distinct GPUs of one NVLink domain. The
goals, in order: every replica sits; few GPUs are touched; few units are stranded on touched GPUs;
replicas of one LLM are spread over nodes and racks. Large replicas go first, each to the domain
and the GPUs that it fills best. Which replicas count as large, and whether a tie between domains
goes to the fullest or to the one with fewest replicas of the LLM, is tried in a few ways, and the
best outcome by the goals is kept.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from scepsy.model.cluster import Cluster, GpuTypeName
from scepsy.model.execution import ReplicaName
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.topology import (
    UNITS_PER_GPU,
    Domain,
    ReplicaShape,
    domains,
    fraction_units,
)


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

    @property
    def reason(self) -> str:
        """What is wrong, in a sentence."""
        return (
            f"after {self.placed} of {self.replicas} replicas no NVLink domain has "
            f"{self.tensor_parallel} GPU{'s' if self.tensor_parallel > 1 else ''} with "
            f"{self.gpu_fraction:g} free for a replica of `{self.llm}`"
        )


@dataclass(frozen=True, slots=True)
class _Replica:
    name: ReplicaName
    llm: LlmName
    type: GpuTypeName
    shape: ReplicaShape
    gpu_fraction: float


_Order = Callable[[_Replica], tuple[int, ...]]
_ORDERS: tuple[_Order, ...] = (
    lambda r: (-r.shape.gpus, -r.shape.units),
    lambda r: (-r.shape.units, -r.shape.gpus),
    lambda r: (-r.shape.gpus * r.shape.units, -r.shape.gpus),
)


def pack(
    allocation: Allocation, cluster: Cluster, *, units_per_gpu: int = UNITS_PER_GPU
) -> Placement | Unplaced:
    """Place every replica of an allocation, or say which one finds no place.

    A heuristic: where it finds no placement there may still be one.

    Raises:
        InputError: a group's fraction is not a whole number of units.
    """
    replicas = _replicas(allocation, units_per_gpu)
    failed: list[Unplaced] = []
    packed: list[_Attempt] = []
    for order, spread in product(_ORDERS, (True, False)):
        attempt = _Attempt(domains(cluster, units_per_gpu), spread=spread)
        stuck = attempt.run(sorted(replicas, key=order))
        if stuck is None:
            packed.append(attempt)
        else:
            failed.append(stuck)
    if not packed:
        return max(failed, key=lambda unplaced: unplaced.placed)
    return min(packed, key=lambda attempt: attempt.quality).placement(replicas)


def _replicas(allocation: Allocation, units_per_gpu: int) -> list[_Replica]:
    return [
        _Replica(
            ReplicaName(f"{group.llm}-{n}"),
            group.llm,
            group.gpu_type,
            ReplicaShape(group.tensor_parallel, fraction_units(group.gpu_fraction, units_per_gpu)),
            group.gpu_fraction,
        )
        for group in allocation.groups
        for n in range(group.replicas)
    ]


class _Attempt:
    """One pass over the replicas. Mutable while it runs."""

    def __init__(self, free: list[Domain], *, spread: bool) -> None:
        self._domains = free
        self._spread = spread
        self._where: dict[ReplicaName, tuple[Domain, tuple[int, ...]]] = {}
        self._per_node: Counter[tuple[str, str]] = Counter()
        self._per_rack: Counter[tuple[str, str]] = Counter()

    def run(self, replicas: Sequence[_Replica]) -> Unplaced | None:
        """Place replicas in the order given; stop at the first that finds no place."""
        for replica in replicas:
            candidates = [
                (*self._score(replica, domain, at), number, at)
                for number, domain in enumerate(self._domains)
                if domain.type == replica.type and (at := domain.fit(replica.shape)) is not None
            ]
            if not candidates:
                return Unplaced(
                    llm=replica.llm,
                    tensor_parallel=replica.shape.gpus,
                    gpu_fraction=replica.gpu_fraction,
                    placed=len(self._where),
                    replicas=len(replicas),
                )
            *_, number, at = min(candidates)
            self._place(replica, self._domains[number], at)
        return None

    def _score(
        self, replica: _Replica, domain: Domain, at: tuple[int, ...]
    ) -> tuple[int, int, tuple[int, int], int]:
        """Less is better: GPUs opened, units left beside it, same LLM near by, domain's free."""
        left = sum(domain.free[i] - replica.shape.units for i in at)
        near = (0, 0)
        if self._spread:
            gpu = domain.gpus[at[0]]
            near = (
                self._per_node[replica.llm, gpu.node],
                self._per_rack[replica.llm, gpu.rack],
            )
        return domain.opened(at), left, near, sum(domain.free)

    def _place(self, replica: _Replica, domain: Domain, at: tuple[int, ...]) -> None:
        domain.take(at, replica.shape.units)
        self._where[replica.name] = (domain, at)
        gpu = domain.gpus[at[0]]
        self._per_node[replica.llm, gpu.node] += 1
        self._per_rack[replica.llm, gpu.rack] += 1

    @property
    def quality(self) -> tuple[int, int, int, int]:
        """Less is better: GPUs touched, GPUs left part free, replicas that share a node, a rack."""
        free = [(f, d.units_per_gpu) for d in self._domains for f in d.free]
        return (
            sum(f < whole for f, whole in free),
            sum(0 < f < whole for f, whole in free),
            sum(n * n for n in self._per_node.values()),
            sum(n * n for n in self._per_rack.values()),
        )

    def placement(self, replicas: Sequence[_Replica]) -> Placement:
        """The outcome, in the order given."""
        placed = []
        for replica in replicas:
            domain, at = self._where[replica.name]
            gpus = tuple(domain.gpus[i].id for i in sorted(at))
            placed.append(PlacedReplica(replica.name, replica.llm, gpus, replica.gpu_fraction))
        return Placement(tuple(placed))
