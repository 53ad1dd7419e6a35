"""Why a plan is as it is: what one GPU more or less would do, and what the other degrees cost."""

from collections.abc import Iterator
from dataclasses import dataclass

from scepsy.model.cluster import Cluster, DomainName, Gpu, GpuId, NodeName
from scepsy.model.plan import Plan, ReplicaGroup
from scepsy.model.workflow import LlmName
from scepsy.search.exact import choices
from scepsy.search.find import NoPlan, find_plan
from scepsy.search.frontier import Options, profiled_shapes
from scepsy.search.problem import Problem

_MOST_MORE = 8
"""GPUs that are added at most to find a better plan."""


@dataclass(frozen=True, slots=True)
class GpuChange:
    """What another number of GPUs would do."""

    gpus: int
    """More of them where > 0, fewer where < 0."""
    plan: Plan | None
    """None where there is no plan: ``reason`` says why."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """The best allocation in which one LLM has another tensor parallel degree."""

    llm: LlmName
    group: ReplicaGroup | None
    """What the LLM would have; None where the rates are not sustained so."""
    tensor_parallel: int
    more_s: float
    """Objective above the best allocation's; infinite where there is none. Before placement."""


@dataclass(frozen=True, slots=True)
class Why:
    """What surrounds a plan."""

    more: GpuChange
    """The fewest GPUs more that make it faster."""
    less: GpuChange
    """One GPU less than it touches."""
    alternatives: tuple[Alternative, ...]
    """By LLM, then degree."""


def why(problem: Problem, plan: Plan) -> Why:
    """What surrounds the best plan of a problem."""
    return Why(_more(problem, plan), _less(problem, plan), tuple(_alternatives(problem, plan)))


def _more(problem: Problem, plan: Plan) -> GpuChange:
    now_s = plan.objective_s or 0.0
    for gpus in range(1, _MOST_MORE + 1):
        found = find_plan(problem.on(_extended(problem.request.cluster, gpus)))
        if isinstance(found, Plan) and (found.objective_s or 0.0) < now_s * (1 - 1e-6):
            return GpuChange(gpus, found)
    return GpuChange(_MOST_MORE, None, f"up to {_MOST_MORE} GPUs more make it no faster")


def _extended(cluster: Cluster, gpus: int) -> Cluster:
    """A cluster with one more node of so many GPUs, of the type of its last."""
    last = cluster.gpus[-1]
    return Cluster(
        (
            *cluster.gpus,
            *(
                Gpu(
                    id=GpuId(f"one-more-node/gpu-{n}"),
                    type=last.type,
                    node=NodeName("one-more-node"),
                    domain=DomainName("one-more-node"),
                    rack=last.rack,
                )
                for n in range(gpus)
            ),
        ),
        cluster.types,
    )


def _less(problem: Problem, plan: Plan) -> GpuChange:
    """Without one of the touched GPUs, of the type that most are touched of."""
    kinds = {gpu.id: gpu.type for gpu in problem.cluster.gpus}
    touched = [kinds[gpu] for gpu in plan.placement.used]
    most = max(sorted(set(touched)), key=touched.count)
    gpus = [touched.count(room.gpu_type) - (room.gpu_type == most) for room in problem.rooms]
    found = find_plan(problem.within(gpus))
    if isinstance(found, NoPlan):
        if found.tried == 0:
            return GpuChange(-1, None, "the rates are not sustained")
        slo = f" or meets {problem.request.slo}" if problem.request.slo else ""
        return GpuChange(-1, None, f"no allocation tried fits{slo}")
    return GpuChange(-1, found)


def _alternatives(problem: Problem, plan: Plan) -> Iterator[Alternative]:
    llms = problem.options()
    least = next(choices(llms, problem.budgets), None)
    if least is None:
        return
    for at, load in enumerate(problem.loads):
        has = plan.allocation.group(load.llm).tensor_parallel
        by_room = profiled_shapes(load, problem.surfaces, problem.rooms)
        for degree in sorted({t for shapes in by_room for t, _ in shapes} - {has}):
            pinned: list[Options] = list(llms)
            pinned[at] = llms[at].where(llms[at].tensor_parallel == degree)
            best = next(choices(pinned, problem.budgets), None)
            if best is None:
                yield Alternative(load.llm, None, degree, float("inf"))
            else:
                group = pinned[at].group(best.options[at])
                yield Alternative(load.llm, group, degree, best.cost_s - least.cost_s)
