"""Which of several replicas a call goes to."""

from collections.abc import Callable, Iterable

from scepsy.policy.dispatch_belief import Replica
from scepsy.policy.dispatch_call import Waiting
from scepsy.policy.dispatch_settings import Settings

_INF = float("inf")


def soonest(now_s: float, replicas: Iterable[Replica]) -> Replica | None:
    """Where a prompt is computed soonest; of equal ones the emptiest, then the first."""
    best, best_key = None, (_INF, _INF)
    for replica in replicas:
        ahead_s = max(0.0, replica.busy_until_s - now_s)
        key = (ahead_s, replica.running_tokens + replica.claimed_tokens)
        if key < best_key:
            best, best_key = replica, key
    return best


def emptiest(replicas: Iterable[Replica]) -> Replica:
    """Where least must end before any call fits."""
    return min(replicas, key=lambda replica: replica.running_tokens)


def bound_to(now_s: float, call: Waiting, settings: Settings) -> Replica | None:
    """Where a call's KV is in host memory, unless it has waited there for too long."""
    context = call.context
    if context is None or context.replica is None or not context.on_host:
        return None
    if settings.moves and now_s - call.arrived_s > settings.hysteresis * call.cold_s:
        return None
    return context.replica


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
