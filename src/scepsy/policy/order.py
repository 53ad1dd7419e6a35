"""Order policies: which of the calls that wait in an engine comes first.

A policy gives a call a number when it arrives: the least goes first, and of equal ones the call
that came first. A new policy is one function and one line in ``ORDERS``.
"""

from collections.abc import Callable, Mapping

from scepsy.errors import UnknownNameError
from scepsy.policy.route import CallView

OrderPolicy = Callable[[CallView], float]


def first_come(_call: CallView) -> float:
    """Calls as they come."""
    return 0.0


def oldest_execution(call: CallView) -> float:
    """Calls of the execution that arrived first, so that executions end one after the other."""
    return call.execution_start_s


ORDERS: Mapping[str, OrderPolicy] = {
    "first-come": first_come,
    "oldest-execution": oldest_execution,
}


def find_order(name: str) -> OrderPolicy:
    """The policy of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in ORDERS:
        raise UnknownNameError("order policy", name, ORDERS)
    return ORDERS[name]
