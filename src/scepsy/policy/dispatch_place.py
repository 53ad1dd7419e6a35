"""Which of several replicas a call goes to."""

from collections.abc import Callable, Iterable

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
        begins_s = max(replica.busy_until_s, now_s)
        if begins_s <= least_s:
            calls, used_tokens = len(replica.running), replica.used_tokens
            if (
                begins_s < least_s
                or calls < least_calls
                or (calls == least_calls and used_tokens < least_tokens)
            ):
                best, least_s, least_calls, least_tokens = replica, begins_s, calls, used_tokens
    return best


def fit_nowhere(
    calls: Iterable[Waiting], replicas: Iterable[Replica], shared_tokens: float
) -> bool:
    """Whether none of the calls has room where there may be more now.

    Args:
        calls: those that had none when they were tried last.
        replicas: where there may be more since.
        shared_tokens: of prompts, that count once for all calls of a replica.
    """
    free_tokens = -_INF
    for replica in replicas:
        free_tokens = max(free_tokens, replica.free_tokens)
    for call in calls:
        if call.need_tokens + shared_tokens <= free_tokens or call.context is not None:
            return False
    return True


def emptiest(replicas: Iterable[Replica]) -> Replica:
    """Where least must end before any call fits."""
    return min(replicas, key=lambda replica: replica.running_tokens)


def without_claims(
    call: Waiting, replicas: Iterable[Replica], room: Callable[[Replica], float]
) -> Replica | None:
    """Where an overdue call fits if claims give way: at its context, or with fewest of them."""
    best, best_key = None, (_INF, _INF)
    own = None if call.context is None else call.context.replica
    for replica in replicas:
        need_tokens, room_tokens = call.need_tokens, room(replica)
        if replica.could_fit(need_tokens, room_tokens):
            used_tokens = replica.running_tokens + replica.claimed_tokens + need_tokens
            in_the_way = 0.0 if replica is own else 1.0 + max(0.0, used_tokens - room_tokens)
            key = (in_the_way, replica.busy_until_s)
            if key < best_key:
                best, best_key = replica, key
    return best
