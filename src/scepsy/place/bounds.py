"""What no placement can beat: a lower bound on the GPUs that are touched."""

from collections.abc import Sequence

from scepsy.place.topology import ReplicaShape


def least_gpus(shapes: Sequence[ReplicaShape], units_per_gpu: int) -> int:
    """GPUs that replicas touch at least; 0 for none.

    The larger of the widest replica's GPUs and the bin packing bound L2 [1] over all shards: for
    each threshold, shards above ``units_per_gpu - threshold`` sit alone, others above half do not
    share with each other, and what the middle ones leave over must hold the rest of those at or
    above the threshold.

    [1] Martello and Toth, Lower bounds and reduction procedures for the bin packing problem, 1990.
    """
    if not shapes:
        return 0
    shards = [0] * (units_per_gpu + 1)
    for shape in shapes:
        shards[shape.units] += shape.gpus
    widest = max(shape.gpus for shape in shapes)
    return max(widest, *(_l2(shards, low, units_per_gpu) for low in range(units_per_gpu // 2 + 1)))


def _l2(shards: Sequence[int], threshold: int, size: int) -> int:
    alone = sum(n for units, n in enumerate(shards) if units > size - threshold)
    middle = {u: n for u, n in enumerate(shards) if size < 2 * u and u <= size - threshold}
    small = sum(u * n for u, n in enumerate(shards) if threshold <= u and 2 * u <= size)
    left = sum((size - u) * n for u, n in middle.items())
    return alone + sum(middle.values()) + max(0, -(-(small - left) // size))
