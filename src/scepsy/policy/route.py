"""Routing policies: pure functions from a call and the replicas' state to one replica.

A new policy is one function and one line in ``POLICIES``. Policies never do I/O, never sleep, and
see only what a router can know: a call's output length is not in ``CallView``. The simulator and
the gateway run these same functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import Role, WorkflowName


@dataclass(frozen=True, slots=True, kw_only=True)
class CallView:
    """What a router may know of a call before it runs."""

    execution: ExecutionId
    workflow: WorkflowName
    role: Role
    prompt_tokens: int
    prefix_blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """What a router knows about a replica now."""

    name: ReplicaName
    inflight_calls: int
    inflight_tokens: int
    """Prompt tokens of the calls in flight."""


RoutePolicy = Callable[[CallView, Sequence[ReplicaView]], ReplicaView]


def least_loaded(_call: CallView, replicas: Sequence[ReplicaView]) -> ReplicaView:
    """Fewest calls in flight, then fewest tokens; ties go to the first name."""
    return min(replicas, key=lambda r: (r.inflight_calls, r.inflight_tokens, r.name))


POLICIES: Mapping[str, RoutePolicy] = {"least-loaded": least_loaded}


def find_policy(name: str) -> RoutePolicy:
    """The policy of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in POLICIES:
        raise UnknownNameError("routing policy", name, POLICIES)
    return POLICIES[name]
