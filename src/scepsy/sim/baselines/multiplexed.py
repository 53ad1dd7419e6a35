"""All LLMs by turns on a pool of GPUs, as in Aegaeon.

See ``docs/reference/baselines/multiplexed.md``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from scepsy.errors import InfeasibleError, MissingError
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.place.topology import largest_domain
from scepsy.profiles.catalog import find_llm, host_bytes_per_s
from scepsy.profiles.step_time import EngineSpec, StepTimes
from scepsy.sim.baselines.base import System, Task
from scepsy.sim.baselines.pool import Pool, PrefillApart
from scepsy.sim.baselines.pool_memory import MemoryPlan, Tenant, memory_plans
from scepsy.sim.baselines.pooled_instance import PooledLlm, PooledSpec
from scepsy.sim.baselines.ratings import Ratings
from scepsy.sim.fleet import Serving

NAME = "multiplexed"
TOKEN_TARGETS_S = (0.1, 0.03, 0.01)
"""Times between tokens that turns keep to: the publication's, and tight ones, for which turns get
longer and switches fewer."""
PREFILL_PARTS = (0.25, 0.5)
"""Of the instances, where prefill is apart."""
_ONE_STEP_TOKENS = 1 << 30


def multiplexed_systems(task: Task) -> tuple[System, ...]:
    """Pools of each degree, of two degrees, and of one with prefill apart.

    Raises:
        UnknownNameError: nothing is known of the weights of an LLM.
    """
    llms = tuple(_llms(task))
    degrees = sorted({degree for llm in llms for degree in llm.degrees})
    kinds = {degree: _kind(task, llms, degree) for degree in degrees}
    systems: list[System] = []
    for kind in kinds.values():
        if len(kind.llms) == len(llms):
            systems += _alike(kind, _instances(task, kind.degree))
    for low, high in pairwise(kinds.values()):
        if {*low.llms, *high.llms} == {llm.name for llm in llms}:
            systems += _mixed(task, low, high)
    return tuple(systems)


@dataclass(frozen=True, slots=True)
class _Llm:
    """What is known of an LLM whatever it runs on."""

    name: LlmName
    degrees: tuple[int, ...]
    """That are profiled, on whole GPUs."""
    least_kv_tokens: int
    """Room on the smallest share of GPUs that is profiled: each of its calls fits there."""
    prompt_tokens: float
    answer_tokens: float


@dataclass(frozen=True, slots=True)
class _Kind:
    """Instances of one degree."""

    degree: int
    llms: tuple[LlmName, ...]
    """That it can serve."""
    plans: tuple[MemoryPlan, ...]
    host_bytes_per_s: float

    def spec(self, plan: MemoryPlan, token_target_s: float = TOKEN_TARGETS_S[0]) -> PooledSpec:
        return PooledSpec(
            llms=plan.llms,
            host_bytes_per_s=self.host_bytes_per_s,
            prefetches=plan.prefetches,
            token_target_s=token_target_s,
        )


def _llms(task: Task) -> Iterator[_Llm]:
    ratings = Ratings(task)
    rates = {rate.workflow: rate.rate_per_s for rate in task.rates}
    for llm in ratings.llms:
        shapes = ratings.shapes(llm)
        if not shapes:
            continue
        stages = [
            (stage.calls_per_execution * rates.get(demand.workflow, 0.0), stage)
            for demand in task.demands
            for stage in demand.stages
            if stage.stage.llm == llm
        ]
        calls = sum(weight for weight, _ in stages) or 1.0
        specs = [task.spec_of(llm, task.gpu_type, *shape) for shape in shapes]
        yield _Llm(
            name=llm,
            degrees=ratings.degrees(llm),
            least_kv_tokens=min(spec.kv_blocks * spec.block_tokens for spec in specs),
            prompt_tokens=sum(weight * s.prompt_tokens_mean for weight, s in stages) / calls,
            answer_tokens=sum(weight * s.output_tokens_mean for weight, s in stages) / calls,
        )


def _kind(task: Task, llms: Sequence[_Llm], degree: int) -> _Kind:
    """Instances of a degree, with all LLMs that they can serve."""
    tenants = [tenant for llm in llms if (tenant := _tenant(task, llm, degree)) is not None]
    return _Kind(
        degree=degree,
        llms=tuple(tenant.alone.llm for tenant in tenants),
        plans=tuple(memory_plans(tenants)) if tenants else (),
        host_bytes_per_s=host_bytes_per_s(task.gpu_type) * degree,
    )


def _tenant(task: Task, llm: _Llm, degree: int) -> Tenant | None:
    known = find_llm(llm.name)
    try:
        spec = task.spec_of(llm.name, task.gpu_type, degree, 1.0)
    except (InfeasibleError, MissingError):
        return None
    alone = PooledLlm(
        llm=llm.name,
        spec=spec,
        weight_bytes=known.weight_bytes,
        block_bytes=known.replica_kv_bytes_per_token(degree) * spec.block_tokens,
        stays=False,
        answer_tokens=llm.answer_tokens,
        context_tokens=llm.prompt_tokens + llm.answer_tokens / 2,
    )
    return Tenant(alone, llm.least_kv_tokens)


def _instances(task: Task, degree: int) -> int:
    return sum(len(domain.gpus) // degree for domain in task.cluster.domains)


def _alike(kind: _Kind, instances: int) -> Iterator[System]:
    """Pools of one degree."""
    gpus = kind.degree * instances
    for plan in kind.plans if instances else ():
        for target_s in TOKEN_TARGETS_S if plan.switches else TOKEN_TARGETS_S[:1]:
            note = f"{instances} x TP{kind.degree}, {plan.note}, {1000 * target_s:g} ms a token"
            yield _system(gpus, _pool([kind.spec(plan, target_s)] * instances), note)
    for first in sorted({max(1, round(part * instances)) for part in PREFILL_PARTS}):
        for plan in kind.plans[:1] if first < instances else ():
            note = f"{first} + {instances - first} x TP{kind.degree}, prefill apart, {plan.note}"
            yield _system(gpus, _prefill_apart(kind, plan, first, instances - first), note)


def _mixed(task: Task, low: _Kind, high: _Kind) -> Iterator[System]:
    """A pool in which about half of the GPUs are of each degree."""
    if not low.plans or not high.plans or largest_domain(task.cluster) < high.degree:
        return
    wide = narrow = 0
    for domain in task.cluster.domains:
        gpus = len(domain.gpus)
        here = max(1, gpus // 2 // high.degree) if gpus >= high.degree else 0
        wide += here
        narrow += (gpus - here * high.degree) // low.degree
    if narrow:
        parts = ((low, narrow), (high, wide))
        specs = [kind.spec(kind.plans[0]) for kind, count in parts for _ in range(count)]
        notes = [f"{count} x TP{kind.degree}, {kind.plans[0].note}" for kind, count in parts]
        gpus = narrow * low.degree + wide * high.degree
        yield _system(gpus, _pool(specs), " + ".join(notes))


def _system(gpus: float, make: Callable[[], Serving], note: str) -> System:
    return System(name=NAME, gpus=gpus, make=make, note=note)


def _pool(specs: Sequence[PooledSpec], name: str = "pool") -> Callable[[], Pool]:
    named = {ReplicaName(f"{name}-{number}"): spec for number, spec in enumerate(specs)}
    return lambda: Pool(named)


def _prefill_apart(
    kind: _Kind, plan: MemoryPlan, first: int, rest: int
) -> Callable[[], PrefillApart]:
    prefills = tuple(replace(model, answer_tokens=0.0) for model in plan.llms)
    decodes = tuple(
        replace(model, spec=decode_only(model.spec))
        for model in plan.llms
        if model.answer_tokens > 0
    )
    prefill = replace(kind.spec(plan, 0.0), llms=prefills)
    decode = replace(kind.spec(plan), llms=decodes)
    token_s = {
        model.llm: model.block_bytes / model.spec.block_tokens / kind.host_bytes_per_s
        for model in decodes
    }
    make_prefill = _pool([prefill] * first, "prefill")
    make_decode = _pool([decode] * rest, "decode")
    return lambda: PrefillApart(make_prefill(), make_decode(), token_s)


def decode_only(spec: EngineSpec) -> EngineSpec:
    """An engine that is given the KV of prompts, however many: to take it in costs nothing."""
    return replace(
        spec,
        times=_DecodeOnly(spec.times),
        max_seqs=min(spec.max_seqs, spec.chunk_tokens),
        chunk_tokens=_ONE_STEP_TOKENS,
    )


@dataclass(frozen=True, slots=True)
class _DecodeOnly:
    times: StepTimes

    def step_s(
        self,
        *,
        prefill_tokens: int,  # noqa: ARG002  (came from elsewhere)
        prefill_context_tokens: int,  # noqa: ARG002
        decodes: int,
        decode_context_tokens: int,
    ) -> float:
        return self.decode_run_s(
            decodes=decodes, decode_context_tokens=decode_context_tokens, steps=1
        )

    def decode_run_s(self, *, decodes: int, decode_context_tokens: int, steps: int) -> float:
        if not decodes:
            return 0.0
        return self.times.decode_run_s(
            decodes=decodes, decode_context_tokens=decode_context_tokens, steps=steps
        )
