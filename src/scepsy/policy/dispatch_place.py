"""Which of several replicas a call goes to."""

from collections.abc import Iterable

from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_call import Waiting

_INF = float("inf")


def soonest(now_s: float, need_tokens: float, replicas: Iterable[Replica]) -> Replica | None:
    """Where a prompt is computed soonest; of equal ones where fewest calls run, then the emptiest.

    Calls that run beside prompts get their answers later: so a short execution is not put where
    many go on.

    Args:
        now_s: where computing may begin now, it does not matter since when.
        need_tokens: room that must be free.
        replicas: among which is chosen.
    """
    best, least_s, least_calls, least_tokens = None, _INF, 0, _INF
    for replica in replicas:
        if replica.free_tokens < need_tokens:
            continue
        busy_s = replica.busy_until_s
        begins_s = busy_s if busy_s > now_s else now_s
        if begins_s <= least_s:
            calls, used_tokens = len(replica.running), replica.used_tokens
            if (
                begins_s < least_s
                or calls < least_calls
                or (calls == least_calls and used_tokens < least_tokens)
            ):
                best, least_s, least_calls, least_tokens = replica, begins_s, calls, used_tokens
    return best


def fit_nowhere(need_tokens: float, replicas: Iterable[Replica]) -> bool:
    """Whether none of the replicas has so much room."""
    for replica in replicas:  # noqa: SIM110 - there are few: a generator takes longer
        if replica.free_tokens >= need_tokens:
            return False
    return True


def emptiest(replicas: Iterable[Replica]) -> Replica:
    """Where least must end before any call fits."""
    return min(replicas, key=lambda replica: replica.running_tokens)


def without_claims(
    call: Waiting, replicas: Iterable[Replica], shared_tokens: float
) -> Replica | None:
    """Where an overdue call fits if claims give way: at its context, or with fewest of them."""
    best, least_tokens, least_s = None, _INF, _INF
    need_tokens = call.need_tokens
    own = None if call.context is None else call.context.replica
    for replica in replicas:
        free_tokens = replica.room_tokens - shared_tokens - need_tokens
        calls = len(replica.running)
        if calls and (replica.running_tokens > free_tokens or calls >= replica.seqs):
            continue  # ``could_fit``, at a third of its cost
        in_the_way = replica.used_tokens - free_tokens
        if replica is own:
            in_the_way = -1.0
        elif in_the_way < 0.0:
            in_the_way = 0.0
        if in_the_way < least_tokens or (
            in_the_way == least_tokens and replica.busy_until_s < least_s
        ):
            best, least_tokens, least_s = replica, in_the_way, replica.busy_until_s
    return best
