"""What is left of an LLM's replicas when some are lost: do they still carry the load?"""

from scepsy.model.plan import ReplicaGroup
from scepsy.predict.surface import Surfaces
from scepsy.search.frontier import LlmLoad, utilizations


def most_together(load: LlmLoad, surfaces: Surfaces, group: ReplicaGroup) -> int:
    """Replicas of a group that may be lost at once: without them the load is still sustained."""
    shape = (group.tensor_parallel, group.gpu_fraction)
    used = utilizations(load, surfaces, group.gpu_type, shape, group.replicas)
    over = [n for n, utilization in enumerate(used, start=1) if not utilization < 1]
    return group.replicas - (over[-1] if over else 0) - 1
