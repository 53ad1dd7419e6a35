"""A placement as counts: of replicas in each domain, and of its GPUs that hold each pattern.

A pattern is how many shards of each size sit on one GPU. GPUs of a domain are alike, and replicas
of one shape are, so nothing is named twice and the solver has few symmetries left. Which replica
has which GPUs is dealt out afterwards. That works if and only if, for each size of shard and
each r, the r widest replicas have no more shards than the GPUs hold of that size when each counts
r at most: Gale and Ryser's condition [1] for tables of zeros and ones with given row and column
sums.

[1] Ryser, Combinatorial properties of matrices of zeros and ones, 1957.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from scepsy.model.cluster import Cluster, Gpu, GpuId, GpuTypeName
from scepsy.model.plan import Allocation, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.bounds import least_gpus
from scepsy.place.pack import deal_names, groups_of
from scepsy.place.rules import PlaceRules
from scepsy.place.solver import Model
from scepsy.place.topology import ReplicaShape

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

_MOST_PATTERNS = 1000
_SORTED_BY = 3
"""Shapes by whose counts domains that are alike are sorted: more makes the solver slower."""

_Pattern = tuple[int, ...]
"""Shards of each size on a GPU, in the order of the sizes."""


@dataclass(frozen=True, slots=True)
class _Class:
    """Replicas that the model need not tell apart."""

    type: GpuTypeName
    shape: ReplicaShape
    llms: tuple[LlmName, ...]
    """The LLM of each."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """GPUs that the model need not tell apart: of a domain, or of several where none is shared."""

    type: GpuTypeName
    gpus: tuple[Gpu, ...]
    widest: int
    """GPUs that a replica on it may have."""


def can_count(
    allocation: Allocation, cluster: Cluster, units_per_gpu: int, rules: PlaceRules
) -> bool:
    """Whether counts tell enough: no rule looks into a domain, and the patterns are few."""
    if rules.equal_shares and any(len({g.node for g in d.gpus}) > 1 for d in cluster.domains):
        return False
    if rules.max_together and any(
        len({rules.scope(gpu) for gpu in domain.gpus}) > 1 for domain in cluster.domains
    ):
        return False
    sizes = sorted({group.shape.units for group in groups_of(allocation, units_per_gpu, rules)})
    patterns = _patterns(sizes, [units_per_gpu] * len(sizes), units_per_gpu)
    return all(n < _MOST_PATTERNS for n, _ in enumerate(patterns))


class ByPattern(Model):
    """The model of one placement."""

    def __init__(
        self, allocation: Allocation, cluster: Cluster, units_per_gpu: int, rules: PlaceRules
    ) -> None:
        super().__init__()
        self._allocation = allocation
        self._units_per_gpu = units_per_gpu
        self._rules = rules
        self._named = bool(rules.max_together or rules.equal_shares)
        """Whether it matters which node or rack a domain is of."""
        self._classes = _classes(allocation, units_per_gpu, rules)
        self._pools = self._pools_of(cluster)
        self._replicas: dict[tuple[int, int], cp_model.IntVar] = {}
        """By class and domain."""
        self._sizes: dict[GpuTypeName, list[int]] = {}
        self._patterns: dict[GpuTypeName, list[_Pattern]] = {}
        for kind in {one.type for one in self._classes}:
            self._sizes[kind], self._patterns[kind] = self._patterns_of(kind)
        self._gpus: dict[int, list[cp_model.IntVar]] = {}
        """GPUs of a domain that hold each pattern."""
        for number, domain in enumerate(self._pools):
            if domain.type in self._patterns:
                self._fill(number, domain)
        self._place_all()
        self._rule_bounds()
        self._sort_alike()
        self.touched = sum(gpus for own in self._gpus.values() for gpus in own)
        self.part_free = sum(
            gpus
            for number, own in self._gpus.items()
            for pattern, gpus in zip(self._patterns_at(number), own, strict=True)
            if self._units(number, pattern) < units_per_gpu
        )

    def start_from(self, placement: Placement) -> None:
        """Let the solver start from a placement, its domains sorted as the model wants them."""
        replicas, shards = self._counted(placement)
        for alike in self._alike():
            keys = self._keys(alike[0])
            ordered = sorted(alike, key=lambda n: [-replicas[at, n] for at in keys])
            for number, like in zip(alike, ordered, strict=True):
                for at in range(len(self._classes)):
                    if (at, number) in self._replicas:
                        self.cp.add_hint(self._replicas[at, number], replicas[at, like])
                for pattern, gpus in zip(
                    self._patterns_at(number), self._gpus[number], strict=True
                ):
                    self.cp.add_hint(gpus, shards[like][pattern])

    def placement(self) -> Placement:
        """The last solution: shards dealt out to replicas, LLMs of one shape in turn."""
        fresh: dict[LlmName, list[tuple[GpuId, ...]]] = {}
        places: dict[int, list[tuple[GpuId, ...]]] = {}
        for number, own in self._gpus.items():
            patterns = zip(self._patterns_at(number), map(self.value, own), strict=True)
            filled = [pattern for pattern, gpus in patterns for _ in range(gpus)]
            for at, gpus in self._dealt(number, filled):
                places.setdefault(at, []).append(gpus)
        for at, found in places.items():
            for llm, gpus in zip(self._classes[at].llms, found, strict=True):
                fresh.setdefault(llm, []).append(gpus)
        return deal_names(self._allocation, (), fresh)

    def _dealt(
        self, number: int, filled: Sequence[_Pattern]
    ) -> Iterator[tuple[int, tuple[GpuId, ...]]]:
        """The GPUs of each replica of a domain: the widest first, each where most is left."""
        domain = self._pools[number]
        left = [list(pattern) for pattern in filled]
        for at in sorted(self._here(number), key=lambda at: -self._classes[at].shape.gpus):
            shape = self._classes[at].shape
            size = self._sizes[domain.type].index(shape.units)
            for _ in range(self.value(self._replicas[at, number])):
                chosen = sorted(range(len(left)), key=lambda gpu: -left[gpu][size])[: shape.gpus]
                for gpu in chosen:
                    left[gpu][size] -= 1
                yield at, tuple(domain.gpus[gpu].id for gpu in sorted(chosen))

    def _pools_of(self, cluster: Cluster) -> list[_Pool]:
        """The domains; those where no replica has several GPUs as one, if no rule names them."""
        pools = []
        single: dict[GpuTypeName, list[Gpu]] = {}
        for domain in cluster.domains:
            widths = [one.shape.gpus for one in self._classes if one.type == domain.type]
            widest = max((width for width in widths if width <= len(domain.gpus)), default=1)
            if widest == 1 and not self._named:
                single.setdefault(domain.type, []).extend(domain.gpus)
            else:
                pools.append(_Pool(domain.type, domain.gpus, widest))
        return pools + [_Pool(kind, tuple(gpus), 1) for kind, gpus in single.items()]

    def _patterns_of(self, kind: GpuTypeName) -> tuple[list[int], list[_Pattern]]:
        """The sizes of the shards of a GPU type, largest first, and the patterns of them."""
        shards: Counter[int] = Counter()
        for one in self._classes:
            if one.type == kind:
                shards[one.shape.units] += one.shape.gpus * len(one.llms)
        sizes = sorted(shards, reverse=True)
        most = [shards[units] for units in sizes]
        return sizes, [p for p in _patterns(sizes, most, self._units_per_gpu) if any(p)]

    def _patterns_at(self, number: int) -> list[_Pattern]:
        return self._patterns[self._pools[number].type]

    def _units(self, number: int, pattern: _Pattern) -> int:
        sizes = self._sizes[self._pools[number].type]
        return sum(units * n for units, n in zip(sizes, pattern, strict=True))

    def _here(self, number: int) -> list[int]:
        """The classes that a domain may hold."""
        return [at for at in range(len(self._classes)) if (at, number) in self._replicas]

    def _fill(self, number: int, domain: _Pool) -> None:
        """The variables of a domain, and that its GPUs hold just its replicas' shards."""
        size = len(domain.gpus)
        for at, one in enumerate(self._classes):
            if one.type == domain.type and one.shape.gpus <= domain.widest:
                most = self._units_per_gpu // one.shape.units * size // one.shape.gpus
                self._replicas[at, number] = self.cp.new_int_var(0, min(len(one.llms), most), "")
        patterns = self._patterns[domain.type]
        gpus = [self.cp.new_int_var(0, size, "") for _ in patterns]
        self._gpus[number] = gpus
        self.cp.add(sum(gpus) <= size)
        for at, units in enumerate(self._sizes[domain.type]):
            held = [pattern[at] for pattern in patterns]
            wide: dict[int, list[cp_model.IntVar]] = {}
            for other in self._here(number):
                shape = self._classes[other].shape
                if shape.units == units:
                    wide.setdefault(shape.gpus, []).append(self._replicas[other, number])
            shards = sum(width * sum(replicas) for width, replicas in wide.items())
            self.cp.add(sum(n * x for n, x in zip(held, gpus, strict=True)) == shards)
            if max(wide, default=1) > 1:
                self._can_be_dealt(held, gpus, wide)
        self._wide_ones_touch(number)

    def _wide_ones_touch(self, number: int) -> None:
        """A pool that holds a wide replica has as many GPUs touched: it lets the solver prove."""
        here = [(self._classes[at].shape, self._replicas[at, number]) for at in self._here(number)]
        room = self._units_per_gpu * len(self._pools[number].gpus)
        for width in {shape.gpus for shape, _ in here} - {1}:
            wide = [(shape, x) for shape, x in here if shape.gpus >= width]
            there = self.cp.new_bool_var("")
            self.cp.add(sum(s.gpus * s.units * x for s, x in wide) <= room * there)
            self.cp.add(sum(self._gpus[number]) >= width * there)

    def _can_be_dealt(
        self,
        held: Sequence[int],
        gpus: Sequence["cp_model.IntVar"],
        wide: Mapping[int, Sequence["cp_model.IntVar"]],
    ) -> None:
        """The r widest replicas have no more shards than the GPUs, each counted for r at most."""
        widths = [0, *sorted(wide)]
        for r in range(1, max(held)):
            needed: list[cp_model.LinearExprT] = []
            for narrower, width in pairwise(widths):
                among = self.cp.new_int_var(0, r, "")
                least = sum(x for w, replicas in wide.items() if w >= width for x in replicas)
                self.cp.add_min_equality(among, [least, r])
                needed.append((width - narrower) * among)
            self.cp.add(sum(needed) <= sum(min(n, r) * x for n, x in zip(held, gpus, strict=True)))

    def _place_all(self) -> None:
        for at, one in enumerate(self._classes):
            inside = [x for (other, _), x in self._replicas.items() if other == at]
            self.cp.add(sum(inside) == len(one.llms))
        for kind in self._patterns:
            shapes = [(one.shape, len(one.llms)) for one in self._classes if one.type == kind]
            self.cp.add(self._touched_of(kind) >= least_gpus(shapes, self._units_per_gpu))

    def _touched_of(self, kind: GpuTypeName) -> "cp_model.LinearExprT":
        return sum(x for n, own in self._gpus.items() if self._pools[n].type == kind for x in own)

    def _rule_bounds(self) -> None:
        for kind, most in self._rules.max_gpus.items():
            self.cp.add(self._touched_of(kind) <= most)
        scopes: dict[str, list[int]] = {}
        nodes: dict[str, list[int]] = {}
        for number in self._gpus:
            first = self._pools[number].gpus[0]
            scopes.setdefault(self._rules.scope(first), []).append(number)
            nodes.setdefault(first.node, []).append(number)
        for at, one in enumerate(self._classes):
            most_together = self._rules.max_together.get(one.llms[0])
            if most_together is not None:
                for numbers in scopes.values():
                    inside = [self._replicas[at, n] for n in numbers if (at, n) in self._replicas]
                    self.cp.add(sum(inside) <= most_together)
        if self._rules.equal_shares:
            for numbers in nodes.values():
                self._one_share(numbers)

    def _one_share(self, numbers: Sequence[int]) -> None:
        """All replicas in some domains have the same units."""
        chosen = {one.shape.units: self.cp.new_bool_var("") for one in self._classes}
        self.cp.add(sum(chosen.values()) <= 1)
        for (at, number), replicas in self._replicas.items():
            if number in numbers:
                one = self._classes[at]
                self.cp.add(replicas <= len(one.llms) * chosen[one.shape.units])

    def _alike(self) -> list[list[int]]:
        """Domains that may be exchanged for each other."""
        alike: dict[Hashable, list[int]] = {}
        for number in self._gpus:
            domain = self._pools[number]
            first = domain.gpus[0]
            where = (first.node, first.rack) if self._named else None
            alike.setdefault((domain.type, len(domain.gpus), domain.widest, where), []).append(
                number
            )
        return list(alike.values())

    def _keys(self, number: int) -> list[int]:
        """The classes by whose counts domains like one are sorted: those that take most of it."""
        return sorted(
            self._here(number),
            key=lambda at: (
                self._classes[at].shape.gpus == 1,
                -self._classes[at].shape.gpus * self._classes[at].shape.units,
            ),
        )[:_SORTED_BY]

    def _sort_alike(self) -> None:
        for alike in self._alike():
            keys = self._keys(alike[0])
            weight, weights = 1, []
            for at in reversed(keys):
                weights.append((at, weight))
                weight *= len(self._classes[at].llms) + 1
            for a, b in pairwise(alike):
                terms = [w * (self._replicas[at, a] - self._replicas[at, b]) for at, w in weights]
                if terms:
                    self.cp.add(sum(terms) >= 0)

    def _counted(
        self, placement: Placement
    ) -> tuple[Counter[tuple[int, int]], dict[int, Counter[_Pattern]]]:
        """What a placement has of each class in each domain, and GPUs of each pattern."""
        domain_of = {gpu.id: n for n, pool in enumerate(self._pools) for gpu in pool.gpus}
        class_of = {llm: at for at, one in enumerate(self._classes) for llm in one.llms}
        replicas: Counter[tuple[int, int]] = Counter()
        held: dict[GpuId, Counter[int]] = {}
        for replica in placement.replicas:
            at = class_of[replica.llm]
            replicas[at, domain_of[replica.gpus[0]]] += 1
            for gpu in replica.gpus:
                held.setdefault(gpu, Counter())[self._classes[at].shape.units] += 1
        patterns: dict[int, Counter[_Pattern]] = {number: Counter() for number in self._gpus}
        for gpu, shards in held.items():
            number = domain_of[gpu]
            sizes = self._sizes[self._pools[number].type]
            patterns[number][tuple(shards[units] for units in sizes)] += 1
        return replicas, patterns


def _classes(allocation: Allocation, units_per_gpu: int, rules: PlaceRules) -> list[_Class]:
    """Replicas of one shape; those of an LLM that must be spread by themselves."""
    alike: dict[Hashable, list[list[LlmName]]] = {}
    first: dict[Hashable, tuple[GpuTypeName, ReplicaShape]] = {}
    for group in groups_of(allocation, units_per_gpu, rules):
        alone = group.llm if group.llm in rules.max_together else None
        key = (group.type, group.shape, alone)
        first[key] = (group.type, group.shape)
        alike.setdefault(key, []).append([group.llm] * group.replicas)
    return [_Class(*first[key], tuple(_in_turn(llms))) for key, llms in alike.items()]


def _in_turn(rows: Sequence[Sequence[LlmName]]) -> Iterator[LlmName]:
    """The first of each row, then the second of each that has one, and so on."""
    for at in range(max(map(len, rows))):
        yield from (row[at] for row in rows if at < len(row))


def _patterns(sizes: Sequence[int], most: Sequence[int], room: int) -> Iterator[_Pattern]:
    """All numbers of shards of each size, up to so many, that go into so much room."""
    if not sizes:
        yield ()
        return
    for n in range(min(most[0], room // sizes[0]) + 1):
        for rest in _patterns(sizes[1:], most[1:], room - n * sizes[0]):
            yield (n, *rest)
