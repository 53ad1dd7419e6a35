"""From one placement to another: which replicas stop and start, in an order that is safe."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scepsy.model.cluster import GpuId
from scepsy.model.plan import PlacedReplica, Placement
from scepsy.model.workflow import LlmName


class StepKind(StrEnum):
    """What is done to a replica."""

    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one replica."""

    kind: StepKind
    replica: PlacedReplica
    moves_to: tuple[GpuId, ...] | None = None
    """Of a replica that stops: where another of its LLM takes over, if one does."""


def unchanged(old: Placement, new: Placement) -> tuple[PlacedReplica, ...]:
    """The replicas of the old placement that the new one has in the same place."""
    left = Counter(_spot(replica) for replica in new.replicas)
    kept = []
    for replica in old.replicas:
        if left[_spot(replica)]:
            left[_spot(replica)] -= 1
            kept.append(replica)
    return tuple(kept)


def steps(old: Placement, new: Placement) -> list[Step]:
    """The changes from one placement to another; no GPU is over 1.0 at any time.

    A replica starts as soon as its GPUs have room. Only when none that waits has, one stops: of
    those that must go and hold a GPU that is waited for, one of the LLM that has most running.
    What need not make room stops at the end.
    """
    kept = unchanged(old, new)
    stopping = _without(old.replicas, kept)
    starting = _without(new.replicas, kept)
    targets = _targets(stopping, starting)
    used: Counter[GpuId] = Counter()
    running = Counter(replica.llm for replica in old.replicas)
    for replica in old.replicas:
        _take(used, replica, 1)
    done: list[Step] = []
    while starting:
        ready = next((r for r in starting if _fits(used, r)), None)
        if ready is not None:
            starting.remove(ready)
            _take(used, ready, 1)
            running[ready.llm] += 1
            done.append(Step(StepKind.START, ready))
            continue
        gone = max(_in_the_way(stopping, starting), key=lambda r: (running[r.llm], r.name))
        stopping.remove(gone)
        _take(used, gone, -1)
        running[gone.llm] -= 1
        done.append(Step(StepKind.STOP, gone, targets.get(_spot(gone))))
    done += [Step(StepKind.STOP, r, targets.get(_spot(r))) for r in stopping]
    return done


_Spot = tuple[LlmName, frozenset[GpuId], float]


def _spot(replica: PlacedReplica) -> _Spot:
    return replica.llm, frozenset(replica.gpus), round(replica.gpu_fraction, 6)


def _without(
    replicas: Sequence[PlacedReplica], kept: Sequence[PlacedReplica]
) -> list[PlacedReplica]:
    left = Counter(_spot(replica) for replica in kept)
    rest = []
    for replica in replicas:
        if left[_spot(replica)]:
            left[_spot(replica)] -= 1
        else:
            rest.append(replica)
    return rest


def _targets(
    stopping: Sequence[PlacedReplica], starting: Sequence[PlacedReplica]
) -> Mapping[_Spot, tuple[GpuId, ...]]:
    """Where replicas of the same LLM start instead, one for one."""
    free = list(starting)
    targets = {}
    for replica in stopping:
        taker = next((r for r in free if r.llm == replica.llm), None)
        if taker is not None:
            free.remove(taker)
            targets[_spot(replica)] = taker.gpus
    return targets


def _in_the_way(
    stopping: Sequence[PlacedReplica], starting: Sequence[PlacedReplica]
) -> Iterator[PlacedReplica]:
    """Replicas that must go and hold a GPU of the first that waits; there is one."""
    wanted = set(starting[0].gpus)
    return (replica for replica in stopping if wanted & {*replica.gpus})


def _fits(used: Counter[GpuId], replica: PlacedReplica) -> bool:
    units = _millionths(replica)
    return all(used[gpu] + units <= 1_000_000 + 10 for gpu in replica.gpus)


def _take(used: Counter[GpuId], replica: PlacedReplica, sign: int) -> None:
    for gpu in replica.gpus:
        used[gpu] += sign * _millionths(replica)


def _millionths(replica: PlacedReplica) -> int:
    return round(replica.gpu_fraction * 1_000_000)
