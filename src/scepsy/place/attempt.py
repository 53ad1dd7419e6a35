"""One pass over the groups of replicas: each replica to the domain that it fills best."""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scepsy.model.cluster import Cluster, GpuId, GpuTypeName
from scepsy.model.workflow import LlmName
from scepsy.place.rules import PlaceRules
from scepsy.place.topology import (
    Domain,
    Fit,
    ReplicaShape,
    State,
    domains,
    fit,
    fraction_units,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Equal replicas of one LLM that are to be placed."""

    llm: LlmName
    type: GpuTypeName
    shape: ReplicaShape
    replicas: int


_Kind = tuple[GpuTypeName, int, State]
"""Domains of one type, share and state are alike."""
_Score = tuple[int, int]
"""GPUs opened, units left beside the replica: less is better."""


class Attempt:
    """One pass. Mutable while it runs."""

    def __init__(
        self,
        cluster: Cluster,
        units_per_gpu: int,
        rules: PlaceRules,
        *,
        spread: bool,
        loose: bool = False,
    ) -> None:
        self._rules = rules
        self._spread = spread
        self._loose = loose
        self._units_per_gpu = units_per_gpu
        self._domains = domains(cluster, units_per_gpu)
        self._kinds: dict[_Kind, dict[int, None]] = {}
        for number, domain in enumerate(self._domains):
            self._kinds.setdefault(_kind(domain), {})[number] = None
        self._on_node: dict[str, list[int]] = {}
        if rules.equal_shares:
            for number, domain in enumerate(self._domains):
                for node in {gpu.node for gpu in domain.gpus}:
                    self._on_node.setdefault(node, []).append(number)
        self._where: dict[LlmName, list[tuple[int, tuple[int, ...]]]] = {}
        self._per_node: Counter[tuple[LlmName, str]] = Counter()
        self._per_rack: Counter[tuple[LlmName, str]] = Counter()
        self._together: Counter[tuple[LlmName, str]] = Counter()
        self._keep_in_place()

    @property
    def placed(self) -> int:
        """Replicas placed so far."""
        return sum(map(len, self._where.values()))

    @property
    def quality(self) -> tuple[int, int, int, int]:
        """Less is better: GPUs touched, GPUs left part free, replicas that share a node, a rack."""
        used = [units for domain in self._domains for units in domain.used_units()]
        return (
            sum(units > 0 for units in used),
            sum(0 < units < self._units_per_gpu for units in used),
            sum(n * n for n in self._per_node.values()),
            sum(n * n for n in self._per_rack.values()),
        )

    def gpus(self, llm: LlmName) -> Iterator[tuple[GpuId, ...]]:
        """The GPUs of each replica of an LLM, in the order of placement."""
        for number, at in self._where.get(llm, []):
            yield tuple(self._domains[number].gpus[i].id for i in sorted(at))

    def run(self, groups: Sequence[Group]) -> Group | None:
        """Place groups in the order given; the first that finds no place for a replica, or None."""
        for group in groups:
            queue = _Queue(self, group)
            for _ in range(group.replicas):
                found = queue.pop()
                if found is None:
                    return group
                number, at = found
                self.place(group, number, at)
                queue.push(number)
        return None

    def rooms(self) -> list[tuple[int, int, int, bool]]:
        """Each GPU with units free, least first: domain, number, units, whether it is untouched."""
        found = [
            (number, at, free, free == self._units_per_gpu)
            for number, domain in enumerate(self._domains)
            for at, free in enumerate(domain.free)
            if free
        ]
        return sorted(found, key=lambda room: room[2])

    def kinds(self, group: Group) -> Iterator[tuple[_Kind, dict[int, None]]]:
        """The kinds of domain that a replica of the group may sit on."""
        for kind, numbers in self._kinds.items():
            if kind[0] == group.type and numbers and kind[1] in {0, group.shape.units}:
                yield kind, numbers

    def domain(self, number: int) -> Domain:
        """A domain by its number."""
        return self._domains[number]

    def fit(self, state: State, group: Group) -> Fit | None:
        """How a replica of the group fits a domain in some state."""
        return fit(state, group.shape, loose=self._loose)

    def near(self, group: Group, at: int, number: int) -> tuple[int, int]:
        """Replicas of the group's LLM on the node and the rack of a GPU of a domain."""
        if not self._spread:
            return 0, 0
        gpu = self._domains[number].gpus[at]
        return self._per_node[group.llm, gpu.node], self._per_rack[group.llm, gpu.rack]

    def anchor(self, group: Group, number: int) -> int | None:
        """A GPU, by number, of those that a replica would take; None where it may not sit there.

        Any GPU of the domain where all are on one node: for what is near, that is enough.
        """
        domain = self._domains[number]
        if domain.spans_nodes or group.llm in self._rules.max_together:
            at = self.choose(group, number)
            return None if at is None else at[0]
        return None if self.fit(domain.state, group) is None else 0

    def choose(self, group: Group, number: int) -> tuple[int, ...] | None:
        """The GPUs of a domain that a replica would take; None where it may not sit there."""
        domain = self._domains[number]
        found = self.fit(domain.state, group)
        if found is None:
            return None
        most = self._rules.max_together.get(group.llm)
        if most is None:
            return domain.choose(found)
        allowed = {
            at
            for at, gpu in enumerate(domain.gpus)
            if self._together[group.llm, self._rules.scope(gpu)] < most
        }
        return domain.choose_among(group.shape, allowed, loose=self._loose)

    def place(self, group: Group, number: int, at: tuple[int, ...]) -> None:
        """Let a replica take the GPUs of a domain."""
        domain = self._domains[number]
        self._move(number, domain, at, group.shape.units)
        self._where.setdefault(group.llm, []).append((number, at))
        self._count(group.llm, domain, at)

    def _move(self, number: int, domain: Domain, at: tuple[int, ...], units: int) -> None:
        del self._kinds[_kind(domain)][number]
        domain.take(at, units)
        if self._rules.equal_shares and domain.share == 0:
            domain.share = units
            for other in {n for gpu in domain.gpus for n in self._on_node[gpu.node]} - {number}:
                beside = self._domains[other]
                del self._kinds[_kind(beside)][other]
                beside.share = units
                self._kinds.setdefault(_kind(beside), {})[other] = None
        self._kinds.setdefault(_kind(domain), {})[number] = None

    def _count(self, llm: LlmName, domain: Domain, at: tuple[int, ...]) -> None:
        first = domain.gpus[at[0]]
        self._per_node[llm, first.node] += 1
        self._per_rack[llm, first.rack] += 1
        for scope in {self._rules.scope(domain.gpus[i]) for i in at}:
            self._together[llm, scope] += 1

    def _keep_in_place(self) -> None:
        if not self._rules.kept:
            return
        where = {
            gpu.id: (number, at)
            for number, domain in enumerate(self._domains)
            for at, gpu in enumerate(domain.gpus)
        }
        for replica in self._rules.kept:
            number = where[replica.gpus[0]][0]
            at = tuple(where[gpu][1] for gpu in replica.gpus)
            units = fraction_units(replica.gpu_fraction, self._units_per_gpu)
            self._move(number, self._domains[number], at, units)
            self._count(replica.llm, self._domains[number], at)


class _Queue:
    """The domains that one group's replicas may sit on, best first."""

    def __init__(self, attempt: Attempt, group: Group) -> None:
        self._attempt = attempt
        self._group = group
        self._fresh: dict[_Score, Iterator[int]] = {}
        self._again: dict[_Score, list[tuple[tuple[int, int], int, int]]] = {}
        by_score: dict[_Score, list[tuple[int, list[int]]]] = {}
        for kind, numbers in attempt.kinds(group):
            found = attempt.fit(kind[2], group)
            if found is not None:
                free = sum(units * n for units, n in enumerate(kind[2]))
                by_score.setdefault((found.opened, found.left), []).append((free, [*numbers]))
        for score, kinds in by_score.items():
            kinds.sort(key=lambda kind: kind[0])
            self._fresh[score] = iter([number for _, numbers in kinds for number in numbers])
            self._again[score] = []
        self._scores = list(by_score)
        heapq.heapify(self._scores)
        self._waiting: dict[int, _Score] = {}

    def pop(self) -> tuple[int, tuple[int, ...]] | None:
        """The best domain and the GPUs on it; None where no domain has room."""
        while self._scores:
            score = self._scores[0]
            if (found := self._pop(score)) is not None:
                return found
            heapq.heappop(self._scores)
            del self._fresh[score], self._again[score]
        return None

    def push(self, number: int) -> None:
        """Queue a domain again, after a replica took some of it."""
        anchor = self._attempt.anchor(self._group, number)
        found = self._attempt.fit(self._attempt.domain(number).state, self._group)
        if anchor is None or found is None:
            return
        score = (found.opened, found.left)
        if score not in self._again:
            self._fresh[score], self._again[score] = iter(()), []
            heapq.heappush(self._scores, score)
        self._enter(score, number, self._attempt.near(self._group, anchor, number))

    def _enter(self, score: _Score, number: int, near: tuple[int, int]) -> None:
        free = self._attempt.domain(number).free_units
        heapq.heappush(self._again[score], (near, free, number))

    def _pop(self, score: _Score) -> tuple[int, tuple[int, ...]] | None:
        again = self._again[score]
        for number in self._fresh[score]:
            anchor = self._attempt.anchor(self._group, number)
            if anchor is None:
                continue
            near = self._attempt.near(self._group, anchor, number)
            self._enter(score, number, near)
            if near == (0, 0):
                break
        while again:
            near, free, number = heapq.heappop(again)
            anchor = self._attempt.anchor(self._group, number)
            if anchor is None:
                continue
            now = self._attempt.near(self._group, anchor, number)
            if now != near:
                heapq.heappush(again, (now, free, number))
                continue
            at = self._attempt.choose(self._group, number)
            if at is not None:
                return number, at
        return None


def _kind(domain: Domain) -> _Kind:
    return domain.type, domain.share, domain.state
