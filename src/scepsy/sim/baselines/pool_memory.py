"""Which weights stay in the GPU memory of an instance that LLMs share, and what KV room is left."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scepsy.sim.baselines.pooled_instance import PooledLlm

_ROOMY = 0.5
"""Part of its KV room alone below which an LLM might rather have others' weights away."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """An LLM of the instance."""

    alone: PooledLlm
    """As it would be if it had all memory."""
    least_kv_tokens: int
    """In which each of its calls is known to fit."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Who is where."""

    llms: tuple[PooledLlm, ...]
    prefetches: bool
    """Whether there is room for the weights of one more of those that come and go."""

    @property
    def switches(self) -> bool:
        """Whether weights come and go."""
        return not all(model.stays for model in self.llms)

    @property
    def note(self) -> str:
        """In words."""
        if not self.switches:
            return "all weights stay"
        come = [model.llm for model in self.llms if not model.stays]
        return f"{', '.join(come)} come and go{', loaded ahead' if self.prefetches else ''}"


def memory_plans(tenants: Sequence[Tenant]) -> list[MemoryPlan]:
    """As many LLMs as can stay, the smallest ones; and none, if that is a good deal roomier.

    Those that come and go are loaded ahead, and in a plan of its own they are not. Plans in which
    not all LLMs have room are left out.
    """
    ordered = sorted(tenants, key=lambda one: (one.alone.weight_bytes, one.alone.llm))
    count = len(ordered)
    found: list[MemoryPlan] = []
    for staying in (count, *range(count - 2, -1, -1)):  # one alone that comes and goes stays
        ahead = (True, False) if staying < count else (False,)
        found = [
            plan
            for prefetches in ahead
            if (plan := _plan(ordered, staying, prefetches=prefetches)) is not None
        ]
        if found:
            if staying and not _is_roomy(ordered, found[-1]):
                roomiest = _plan(ordered, 0, prefetches=False)
                found += [roomiest] if roomiest is not None else []
            break
    return found


def _plan(ordered: Sequence[Tenant], staying: int, *, prefetches: bool) -> MemoryPlan | None:
    stay_bytes = sum(tenant.alone.weight_bytes for tenant in ordered[:staying])
    llms = []
    for at, tenant in enumerate(ordered):
        model = tenant.alone
        stays = at < staying
        visitors = [other.alone.weight_bytes for other in ordered[staying:] if other is not tenant]
        guests = sorted(visitors, reverse=True)[: stays + prefetches]
        others_bytes = stay_bytes - stays * model.weight_bytes + sum(guests)
        kv_blocks = model.spec.kv_blocks - -(-others_bytes // model.block_bytes)
        if kv_blocks * model.spec.block_tokens < max(1, tenant.least_kv_tokens):
            return None
        llms.append(replace(model, spec=replace(model.spec, kv_blocks=kv_blocks), stays=stays))
    return MemoryPlan(tuple(llms), prefetches)


def _is_roomy(ordered: Sequence[Tenant], plan: MemoryPlan) -> bool:
    return all(
        model.spec.kv_blocks >= _ROOMY * tenant.alone.spec.kv_blocks
        for tenant, model in zip(ordered, plan.llms, strict=True)
    )
