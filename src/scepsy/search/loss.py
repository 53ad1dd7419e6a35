"""What is left of a plan when a node or a rack is lost: how slow it gets at worst."""

from collections import Counter
from dataclasses import dataclass, replace

from scepsy.model.plan import Allocation, Plan, Prediction
from scepsy.search.limits import Scope
from scepsy.search.problem import Problem


@dataclass(frozen=True, slots=True)
class Loss:
    """One node or rack less, and what is predicted of the replicas elsewhere."""

    lost: str
    objective_s: float
    prediction: Prediction


def worst_loss(problem: Problem, plan: Plan) -> Loss | None:
    """The loss after which the weighted mean latency is longest; the first of equal ones.

    None where the plan need not survive one, or where an LLM would have no replica left.
    """
    survive = problem.request.limits.survive
    if survive is None:
        return None
    scopes = {gpu.id: gpu.rack if survive is Scope.RACK else gpu.node for gpu in plan.cluster.gpus}
    gone: dict[str, Counter[str]] = {}
    for replica in plan.placement.replicas:
        for scope in {scopes[gpu] for gpu in replica.gpus}:
            gone.setdefault(scope, Counter())[replica.llm] += 1
    losses = []
    for lost in sorted(gone):
        groups = plan.allocation.groups
        if any(gone[lost][group.llm] >= group.replicas for group in groups):
            return None
        left = Allocation(
            tuple(replace(g, replicas=g.replicas - gone[lost][g.llm]) for g in groups)
        )
        prediction = problem.predict(left)
        losses.append(Loss(lost, problem.objective_s(prediction), prediction))
    return max(losses, key=lambda loss: loss.objective_s)
