"""A placement by GPUs: where rules or replicas that stay tell one GPU of a domain from another.

Replicas of one LLM are alike, so the model counts them: how many sit in each domain, and how many
have a shard on each GPU. Counts of shards that are no larger than the domain's count of replicas
can always be dealt out to replicas so that each gets distinct GPUs (round robin), so nothing is
lost. Only where a domain spans nodes (racks) of which none may hold too many replicas of an LLM,
each of its replicas is modelled by itself: which GPUs they have together does not tell how many of
them a node holds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from scepsy.model.cluster import Cluster, Gpu, GpuId, NvlinkDomain
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.attempt import Group
from scepsy.place.bounds import weights
from scepsy.place.pack import deal_names, groups_of
from scepsy.place.rules import PlaceRules
from scepsy.place.solver import Model
from scepsy.place.topology import fraction_units

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

_WHOLE = 2520
"""A GPU in a unit in which the weights of shards are whole numbers, for up to tenths."""


class ByGpu(Model):
    """The model of one placement."""

    def __init__(
        self,
        allocation: Allocation,
        cluster: Cluster,
        units_per_gpu: int,
        rules: PlaceRules,
        stay: Sequence[PlacedReplica],
    ) -> None:
        super().__init__()
        self._allocation = allocation
        self._cluster = cluster
        self._domains = cluster.domains
        self._units_per_gpu = units_per_gpu
        self._rules = rules
        self._groups = {group.llm: group for group in groups_of(allocation, units_per_gpu, rules)}
        self._stay = [(replica, self.cp.new_bool_var("")) for replica in stay]
        self._replicas: dict[tuple[LlmName, int], cp_model.IntVar] = {}
        self._shards: dict[tuple[LlmName, GpuId], cp_model.IntVar] = {}
        self._counts()
        self._alone: dict[tuple[LlmName, int], list[dict[GpuId, cp_model.IntVar]]] = {}
        """The replicas of an LLM in a domain one by one, by GPU: where each has a shard."""
        self._touched: dict[GpuId, cp_model.IntVar] = {}
        self._part_free: list[cp_model.IntVar] = []
        self._capacity()
        self._rule_bounds()
        if not self._stay:
            self._cuts()
        self.touched = sum(self._touched.values())
        self.part_free = sum(self._part_free)
        self.moved = len(stay) - sum(stays for _, stays in self._stay)
        """Replicas that should stay and do not."""

    def start_from(self, placement: Placement) -> None:
        """Let the solver start from a placement."""
        domain_of = {gpu.id: n for n, d in enumerate(self._domains) for gpu in d.gpus}
        replicas = Counter((r.llm, domain_of[r.gpus[0]]) for r in placement.replicas)
        shards = Counter((r.llm, gpu) for r in placement.replicas for gpu in r.gpus)
        if not self._stay:
            for key, variable in self._replicas.items():
                self.cp.add_hint(variable, replicas[key])
            for at, shard in self._shards.items():
                self.cp.add_hint(shard, shards[at])

    def placement(self) -> Placement:
        """The last solution: shards dealt out to replicas in turn."""
        stays = [replica for replica, var in self._stay if self.value(var)]
        fresh: dict[LlmName, list[tuple[GpuId, ...]]] = {}
        for llm, number in self._replicas:
            fresh.setdefault(llm, []).extend(self._dealt(llm, number))
        return deal_names(self._allocation, stays, fresh)

    def _dealt(self, llm: LlmName, number: int) -> Iterator[tuple[GpuId, ...]]:
        """The GPUs of each replica of an LLM in a domain."""
        if (llm, number) in self._alone:
            for at in self._alone[llm, number]:
                if gpus := tuple(gpu for gpu, shard in at.items() if self.value(shard)):
                    yield gpus
            return
        count = self.value(self._replicas[llm, number])
        shards = [
            gpu.id
            for gpu in self._domains[number].gpus
            for _ in range(self.value(self._shards[llm, gpu.id]))
        ]
        for turn in range(count):
            yield tuple(shards[turn::count])

    def _counts(self) -> None:
        for group in self._groups.values():
            in_domains = []
            for number, domain in enumerate(self._domains):
                if domain.type != group.type or len(domain.gpus) < group.shape.gpus:
                    continue
                most = _most(group, domain, self._units_per_gpu)
                replicas = self.cp.new_int_var(0, most, "")
                shards = [self.cp.new_int_var(0, most, "") for _ in domain.gpus]
                for gpu, shard in zip(domain.gpus, shards, strict=True):
                    self.cp.add(shard <= replicas)
                    self._shards[group.llm, gpu.id] = shard
                self.cp.add(sum(shards) == group.shape.gpus * replicas)
                self._replicas[group.llm, number] = replicas
                in_domains.append(replicas)
            kept = [stays for replica, stays in self._stay if replica.llm == group.llm]
            self.cp.add(sum(in_domains) + sum(kept) == group.replicas)

    def _capacity(self) -> None:
        for domain in self._domains:
            for gpu in domain.gpus:
                used = sum(
                    group.shape.units * self._shards[llm, gpu.id]
                    for llm, group in self._groups.items()
                    if (llm, gpu.id) in self._shards
                ) + sum(
                    fraction_units(replica.gpu_fraction, self._units_per_gpu) * stays
                    for replica, stays in self._stay
                    if gpu.id in replica.gpus
                )
                touched = self.cp.new_bool_var("")
                part_free = self.cp.new_bool_var("")
                self.cp.add(used <= self._units_per_gpu * touched)
                self.cp.add(used >= self._units_per_gpu * touched - self._units_per_gpu * part_free)
                self._touched[gpu.id] = touched
                self._part_free.append(part_free)
            if not self._stay:  # GPUs of a domain on one node are alike: touch the first ones
                for a, b in pairwise(domain.gpus):
                    if (a.node, a.rack) == (b.node, b.rack):
                        self.cp.add(self._touched[a.id] >= self._touched[b.id])

    def _cuts(self) -> None:
        """What follows for the GPUs touched in each domain: it lets the solver prove sooner."""
        rows = {tuple(int(w * _WHOLE + 1e-6) for w in row) for row in weights(self._units_per_gpu)}
        for number, domain in enumerate(self._domains):
            here = [
                (group, self._replicas[llm, number])
                for llm, group in self._groups.items()
                if (llm, number) in self._replicas
            ]
            touched = sum(self._touched[gpu.id] for gpu in domain.gpus)
            for row in rows:
                need = sum(row[g.shape.units] * g.shape.gpus * count for g, count in here)
                self.cp.add(need <= _WHOLE * touched)

    def _rule_bounds(self) -> None:
        for kind, most in self._rules.max_gpus.items():
            self.cp.add(
                sum(self._touched[gpu.id] for gpu in self._cluster.gpus if gpu.type == kind) <= most
            )
        for llm, most in self._rules.max_together.items():
            for scope in {self._rules.scope(gpu) for gpu in self._cluster.gpus}:
                self.cp.add(self._inside(llm, scope) <= most)
        if self._rules.equal_shares:
            self._equal_shares()

    def _inside(self, llm: LlmName, scope: str) -> "cp_model.LinearExprT":
        """Replicas of an LLM with a shard in a scope."""
        terms: list[cp_model.LinearExprT] = []
        for number, domain in enumerate(self._domains):
            gpus = [gpu.id for gpu in domain.gpus if self._rules.scope(gpu) == scope]
            if (llm, number) not in self._replicas or not gpus:
                continue
            if len(gpus) == len(domain.gpus):
                terms.append(self._replicas[llm, number])
            else:
                terms += [self._any(at[gpu] for gpu in gpus) for at in self._each(llm, number)]
        scopes = {gpu.id: self._rules.scope(gpu) for gpu in self._cluster.gpus}
        terms += [
            stays
            for replica, stays in self._stay
            if replica.llm == llm and scope in {scopes[gpu] for gpu in replica.gpus}
        ]
        return sum(terms)

    def _any(self, shards: Iterable["cp_model.IntVar"]) -> "cp_model.IntVar":
        """At least whether there is any of some shards."""
        there = self.cp.new_bool_var("")
        for shard in shards:
            self.cp.add_implication(shard, there)
        return there

    def _each(self, llm: LlmName, number: int) -> "list[dict[GpuId, cp_model.IntVar]]":
        """The replicas of an LLM that a domain may hold, one by one: whether on each GPU."""
        if (llm, number) not in self._alone:
            group, domain = self._groups[llm], self._domains[number]
            most = _most(group, domain, self._units_per_gpu)
            each = [{gpu.id: self.cp.new_bool_var("") for gpu in domain.gpus} for _ in range(most)]
            there = [self.cp.new_bool_var("") for _ in each]
            for at, sits in zip(each, there, strict=True):
                self.cp.add(sum(at.values()) == group.shape.gpus * sits)
            for first, second in pairwise(there):
                self.cp.add_implication(second, first)
            self.cp.add(sum(there) == self._replicas[llm, number])
            for gpu in domain.gpus:
                self.cp.add(sum(at[gpu.id] for at in each) == self._shards[llm, gpu.id])
            self._alone[llm, number] = each
        return self._alone[llm, number]

    def _equal_shares(self) -> None:
        """One share for all replicas that touch a node."""
        nodes: dict[str, list[Gpu]] = {}
        for gpu in self._cluster.gpus:
            nodes.setdefault(gpu.node, []).append(gpu)
        shares: Mapping[LlmName, int] = {llm: g.shape.units for llm, g in self._groups.items()}
        for gpus in nodes.values():
            chosen = {units: self.cp.new_bool_var("") for units in sorted({*shares.values()})}
            self.cp.add(sum(chosen.values()) <= 1)
            for llm, units in shares.items():
                for gpu in gpus:
                    if (llm, gpu.id) in self._shards:
                        shard = self._shards[llm, gpu.id]
                        self.cp.add(shard <= self._units_per_gpu * chosen[units])


def _most(group: Group, domain: NvlinkDomain, units_per_gpu: int) -> int:
    """Replicas of a group that a domain could hold were it empty."""
    each = units_per_gpu // group.shape.units
    return min(group.replicas, each * len(domain.gpus) // group.shape.gpus)
