"""What no placement can beat: a lower bound on the GPUs that are touched."""

from collections.abc import Sequence
from functools import cache
from math import ceil

import numpy as np
import numpy.typing as npt

from scepsy.place.topology import ReplicaShape

Floats = npt.NDArray[np.float64]


def least_gpus(shapes: Sequence[tuple[ReplicaShape, int]], units_per_gpu: int) -> int:
    """GPUs that so many replicas of each shape touch at least; 0 for none.

    The larger of the widest replica's GPUs and bin packing bounds over all shards.
    """
    shards = np.zeros(units_per_gpu + 1)
    for shape, replicas in shapes:
        shards[shape.units] += shape.gpus * replicas
    widest = max((shape.gpus for shape, replicas in shapes if replicas), default=0)
    return max(widest, gpus_for_shards(shards))


def gpus_for_shards(shards: Floats) -> int:
    """GPUs that shards touch at least; (units + 1,) how many there are of so many units each."""
    return ceil(float((weights(len(shards) - 1) @ shards).max()) - 1e-9)


@cache
def weights(units_per_gpu: int) -> Floats:
    """(functions, units + 1) what a shard counts, in GPUs: dual feasible functions.

    The sum over all shards, by any of them, is a lower bound on GPUs. With all of the first kind
    it is the bound L2 [1]; the second kind [2] sees that shards of 0.4 go two on a GPU.

    [1] Martello and Toth, Lower bounds and reduction procedures for the bin packing problem, 1990.
    [2] Fekete and Schepers, New classes of fast lower bounds for bin packing problems, 2001.
    """
    size = units_per_gpu
    units = np.arange(size + 1)
    rows = [
        np.where(units > size - low, size, np.where(units < low, 0, units)) / size
        for low in range(size // 2 + 1)
    ]
    for k in range(1, size + 1):
        whole = units * (k + 1) % size == 0
        rows.append(np.where(whole, units / size, units * (k + 1) // size / k))
    return np.array(rows)
