"""Routing policies: which replica of its LLM gets a call.

A new policy is one class and one line in ``POLICIES``. Policies never do I/O, never sleep, and
see only what a router can know: a call's output length is not in ``CallView``. The simulator and
the gateway run these same objects, one for each LLM.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName
from scepsy.policy.prefix_index import BLOCKS_PER_REPLICA, PrefixIndex
from scepsy.policy.program import NO_HINTS, NO_TENANT, Hints, TenantName
from scepsy.policy.replicas import NoReplicaLeft, ReplicaSet

DEFAULT_POLICY = "least-loaded"


class CallView(NamedTuple):
    """What a router may know of a call before it runs."""

    # A frozen dataclass would take three times as long to make, and one is made for each call.

    execution: ExecutionId
    workflow: WorkflowName
    role: Role
    prompt_tokens: int
    prefix_blocks: tuple[int, ...] = ()
    start_s: float = 0.0
    """When it arrived, on the caller's clock."""
    execution_start_s: float = 0.0
    """When its execution did."""
    step: int = 0
    """Calls of its execution that came before it."""
    id: str = ""
    """Tells it from others that are in flight, where that is asked for."""
    tenant: TenantName = NO_TENANT
    hints: Hints = NO_HINTS


class Router(Protocol):
    """Chooses for one LLM, and is told what became of its choices."""

    def choose(
        self, call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        """A replica of the set that is not in ``without``.

        Raises:
            NoReplicaLeft: there is none.
        """
        ...

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """A call was sent to a replica."""
        ...

    def lost(self, replica: ReplicaName) -> None:
        """A replica is gone, or came back empty."""
        ...


class LeastLoaded:
    """Fewest calls in flight, then fewest tokens; ties go to the first name."""

    def choose(
        self, _call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        """A replica that has least to do."""
        return replicas.least_loaded(without)

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """What is in flight is counted elsewhere."""

    def lost(self, replica: ReplicaName) -> None:
        """What is in flight is counted elsewhere."""


class RoundRobin:
    """Each replica in turn, whatever it has to do."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(
        self, _call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        """The next replica in turn."""
        left = [name for name in replicas.names if name not in without]
        if not left:
            raise NoReplicaLeft
        self._turn += 1
        return left[(self._turn - 1) % len(left)]

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """Nothing is kept of calls."""

    def lost(self, replica: ReplicaName) -> None:
        """Nothing is kept of replicas."""


class PrefixAware:
    """Least prompt tokens to compute and in flight: what a replica has cached counts as computed.

    Candidates are the replicas that hold most of the prompt, and the least loaded one.
    """

    def __init__(self, blocks_per_replica: int = BLOCKS_PER_REPLICA) -> None:
        """Nothing is known to be cached; at most so many blocks of a replica will be."""
        self._index = PrefixIndex(blocks_per_replica)

    def choose(
        self, call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        """A replica that is near to having the prompt, unless it has much more to do."""
        best = replicas.least_loaded(without)
        hits = self._index.hits(call.prefix_blocks)
        if not hits:
            return best
        tokens_per_block = call.prompt_tokens / len(call.prefix_blocks)
        loads = replicas.loads
        least = loads[best][1] - hits.get(best, 0) * tokens_per_block
        for name, blocks in hits.items():
            if name not in loads or name in without:
                continue
            cost = loads[name][1] - blocks * tokens_per_block
            if cost < least or (cost == least and name < best):
                best, least = name, cost
        return best

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """The replica will have the prompt's blocks."""
        self._index.saw(replica, call.prefix_blocks)

    def lost(self, replica: ReplicaName) -> None:
        """Its blocks are gone."""
        self._index.forget(replica)


MakeRouter = Callable[[], Router]
POLICIES: Mapping[str, MakeRouter] = {
    "least-loaded": LeastLoaded,
    "round-robin": RoundRobin,
    "prefix-aware": PrefixAware,
}


def find_policy(name: str) -> MakeRouter:
    """What makes a router of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in POLICIES:
        raise UnknownNameError("routing policy", name, POLICIES)
    return POLICIES[name]
