"""Placement by constraint programming (OR-Tools CP-SAT): to improve the heuristic's, or prove it.

Replicas of one LLM are alike, so the model counts them: how many sit in each domain, and how many
have a shard on each GPU. Counts of shards that are no larger than the domain's count of replicas
can always be dealt out to replicas so that each gets distinct GPUs (round robin), so nothing is
lost. Goals in order: replicas that stay where they are, GPUs touched, GPUs left part free.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scepsy.model.cluster import Cluster, Gpu, GpuId, NvlinkDomain
from scepsy.model.plan import Allocation, PlacedReplica, Placement
from scepsy.model.workflow import LlmName
from scepsy.place.attempt import Group
from scepsy.place.bounds import weights
from scepsy.place.pack import deal_names, groups_of
from scepsy.place.rules import NO_RULES, PlaceRules
from scepsy.place.topology import UNITS_PER_GPU, fraction_units

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

SEED = 1
_WHOLE = 2520
"""A GPU in a unit in which the weights of shards are whole numbers, for up to tenths."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What constraint programming found out about placing an allocation."""

    placement: Placement | None
    """The best found; None where none was."""
    infeasible: bool
    """Whether it is proven that there is none."""
    touched: int | None
    """GPUs that it touches."""
    touched_bound: int
    """GPUs that any placement (with as many replicas that stay) touches at least."""

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
    model = _Model(allocation, cluster, units_per_gpu, replace(rules, kept=()), stay)
    if start is not None:
        model.start_from(start)
    if stay and not model.maximize_stay(limit_s):
        return Proof(None, model.infeasible, None, 0)
    if not model.minimize_touched(limit_s):
        return Proof(None, model.infeasible, None, model.bound)
    touched, bound = model.touched, model.bound
    model.minimize_part_free(limit_s)
    return Proof(model.placement(), False, touched, bound)


class _Model:
    """The variables of one placement, and what a solver last said of them."""

    def __init__(
        self,
        allocation: Allocation,
        cluster: Cluster,
        units_per_gpu: int,
        rules: PlaceRules,
        stay: Sequence[PlacedReplica],
    ) -> None:
        from ortools.sat.python import cp_model  # noqa: PLC0415  (takes a second)

        self._cp = cp_model.CpModel()
        self._solver = cp_model.CpSolver()
        self._status = cp_model.UNKNOWN
        self._allocation = allocation
        self._cluster = cluster
        self._domains = cluster.domains
        self._units_per_gpu = units_per_gpu
        self._rules = rules
        self._groups = {group.llm: group for group in groups_of(allocation, units_per_gpu, rules)}
        self._stay = [(replica, self._cp.new_bool_var("")) for replica in stay]
        self._replicas: dict[tuple[LlmName, int], cp_model.IntVar] = {}
        self._shards: dict[tuple[LlmName, GpuId], cp_model.IntVar] = {}
        self._counts()
        self._touched: dict[GpuId, cp_model.IntVar] = {}
        self._part_free: list[cp_model.IntVar] = []
        self._capacity()
        self._rule_bounds()
        if not self._stay:
            self._cuts()
        self.bound = 0

    @property
    def infeasible(self) -> bool:
        """Whether the solver proved that there is no placement."""
        return bool(self._solver.status_name(self._status) == "INFEASIBLE")

    @property
    def touched(self) -> int:
        """GPUs that the last solution touches."""
        return sum(self._solver.value(touched) for touched in self._touched.values())

    def start_from(self, placement: Placement) -> None:
        """Let the solver start from a placement."""
        domain_of = {gpu.id: n for n, d in enumerate(self._domains) for gpu in d.gpus}
        replicas = Counter((r.llm, domain_of[r.gpus[0]]) for r in placement.replicas)
        shards = Counter((r.llm, gpu) for r in placement.replicas for gpu in r.gpus)
        if not self._stay:
            for key, variable in self._replicas.items():
                self._cp.add_hint(variable, replicas[key])
            for at, shard in self._shards.items():
                self._cp.add_hint(shard, shards[at])

    def maximize_stay(self, limit_s: float) -> bool:
        """Let as many replicas stay as can; False where no placement was found."""
        kept = sum(stays for _, stays in self._stay)
        self._cp.maximize(kept)
        if not self._solve(limit_s):
            return False
        self._cp.add(kept >= round(self._solver.objective_value))
        return True

    def minimize_touched(self, limit_s: float) -> bool:
        """Touch as few GPUs as can be; False where no placement was found."""
        touched = sum(self._touched.values())
        self._cp.minimize(touched)
        found = self._solve(limit_s)
        if not self.infeasible:
            self.bound = round(self._solver.best_objective_bound + 0.499)
        if found:
            self._cp.add(touched <= self.touched)
        return found

    def minimize_part_free(self, limit_s: float) -> None:
        """Leave as few touched GPUs part free as can be."""
        before, status = self._solver, self._status
        self._cp.minimize(sum(self._part_free))
        self._solver = type(before)()
        if not self._solve(limit_s):
            self._solver, self._status = before, status

    def placement(self) -> Placement:
        """The last solution: shards dealt out to replicas in turn."""
        stays = [replica for replica, var in self._stay if self._solver.value(var)]
        fresh: dict[LlmName, list[tuple[GpuId, ...]]] = {}
        for (llm, number), variable in self._replicas.items():
            count = self._solver.value(variable)
            dealt: list[list[GpuId]] = [[] for _ in range(count)]
            turn = 0
            for gpu in self._domains[number].gpus:
                for _ in range(self._solver.value(self._shards[llm, gpu.id])):
                    dealt[turn % count].append(gpu.id)
                    turn += 1
            fresh.setdefault(llm, []).extend(tuple(gpus) for gpus in dealt)
        return deal_names(self._allocation, stays, fresh)

    def _solve(self, limit_s: float) -> bool:
        self._solver.parameters.max_time_in_seconds = limit_s
        self._solver.parameters.random_seed = SEED
        self._solver.parameters.num_workers = 2
        self._status = self._solver.solve(self._cp)
        return self._solver.status_name(self._status) in {"OPTIMAL", "FEASIBLE"}

    def _counts(self) -> None:
        for group in self._groups.values():
            in_domains = []
            for number, domain in enumerate(self._domains):
                if domain.type != group.type or len(domain.gpus) < group.shape.gpus:
                    continue
                most = _most(group, domain, self._units_per_gpu)
                replicas = self._cp.new_int_var(0, most, "")
                shards = [self._cp.new_int_var(0, most, "") for _ in domain.gpus]
                for gpu, shard in zip(domain.gpus, shards, strict=True):
                    self._cp.add(shard <= replicas)
                    self._shards[group.llm, gpu.id] = shard
                self._cp.add(sum(shards) == group.shape.gpus * replicas)
                self._replicas[group.llm, number] = replicas
                in_domains.append(replicas)
            kept = [stays for replica, stays in self._stay if replica.llm == group.llm]
            self._cp.add(sum(in_domains) + sum(kept) == group.replicas)

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
                touched = self._cp.new_bool_var("")
                part_free = self._cp.new_bool_var("")
                self._cp.add(used <= self._units_per_gpu * touched)
                self._cp.add(
                    used >= self._units_per_gpu * touched - self._units_per_gpu * part_free
                )
                self._touched[gpu.id] = touched
                self._part_free.append(part_free)
            if not self._stay:  # GPUs of a domain are alike: touch the first ones
                for a, b in zip(domain.gpus, domain.gpus[1:], strict=False):
                    if self._rules.scope(a) == self._rules.scope(b):
                        self._cp.add(self._touched[a.id] >= self._touched[b.id])

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
                self._cp.add(need <= _WHOLE * touched)

    def _rule_bounds(self) -> None:
        for kind, most in self._rules.max_gpus.items():
            self._cp.add(
                sum(self._touched[gpu.id] for gpu in self._cluster.gpus if gpu.type == kind) <= most
            )
        for llm, most in self._rules.max_together.items():
            for scope in {self._rules.scope(gpu) for gpu in self._cluster.gpus}:
                self._cp.add(self._inside(llm, scope) <= most)
        if self._rules.equal_shares:
            self._equal_shares()

    def _inside(self, llm: LlmName, scope: str) -> "cp_model.LinearExprT":
        """Replicas of an LLM that a scope holds; at most so many, where domains span scopes."""
        terms: list[cp_model.LinearExprT] = []
        for number, domain in enumerate(self._domains):
            gpus = [gpu for gpu in domain.gpus if self._rules.scope(gpu) == scope]
            if (llm, number) not in self._replicas or not gpus:
                continue
            if len(gpus) == len(domain.gpus):
                terms.append(self._replicas[llm, number])
            else:
                terms += [self._shards[llm, gpu.id] for gpu in gpus]
        scopes = {gpu.id: self._rules.scope(gpu) for gpu in self._cluster.gpus}
        terms += [
            stays
            for replica, stays in self._stay
            if replica.llm == llm and scope in {scopes[gpu] for gpu in replica.gpus}
        ]
        return sum(terms)

    def _equal_shares(self) -> None:
        """One share for all replicas that touch a node."""
        nodes: dict[str, list[Gpu]] = {}
        for gpu in self._cluster.gpus:
            nodes.setdefault(gpu.node, []).append(gpu)
        shares: Mapping[LlmName, int] = {llm: g.shape.units for llm, g in self._groups.items()}
        for gpus in nodes.values():
            chosen = {units: self._cp.new_bool_var("") for units in sorted({*shares.values()})}
            self._cp.add(sum(chosen.values()) <= 1)
            for llm, units in shares.items():
                for gpu in gpus:
                    if (llm, gpu.id) in self._shards:
                        shard = self._shards[llm, gpu.id]
                        self._cp.add(shard <= self._units_per_gpu * chosen[units])


def _most(group: Group, domain: NvlinkDomain, units_per_gpu: int) -> int:
    """Replicas of a group that a domain could hold were it empty."""
    each = units_per_gpu // group.shape.units
    return min(group.replicas, each * len(domain.gpus) // group.shape.gpus)
