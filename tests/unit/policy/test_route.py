import pytest

from scepsy.errors import UnknownNameError
from scepsy.policy.route import POLICIES, CallView, ReplicaView, find_policy, least_loaded

CALL = CallView(execution="e", workflow="w", role="", prompt_tokens=1)


def view(name, calls, tokens=0):
    return ReplicaView(name=name, inflight_calls=calls, inflight_tokens=tokens)


@pytest.mark.parametrize(
    ("replicas", "picked"),
    [
        ([view("a", 2), view("b", 1)], "b"),
        ([view("a", 1, 9), view("b", 1, 5)], "b"),
        ([view("b", 1, 5), view("a", 1, 5)], "a"),
        ([view("a", 0, 100), view("b", 1, 0)], "a"),
    ],
)
def test_least_loaded_counts_calls_then_tokens_then_names(replicas, picked):
    assert least_loaded(CALL, replicas).name == picked


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_picks_one_of_the_replicas(name):
    replicas = [view("a", 3, 1), view("b", 0, 7)]

    assert find_policy(name)(CALL, replicas) in replicas


def test_an_unknown_policy_is_told_with_those_that_come_close():
    with pytest.raises(UnknownNameError, match="unknown routing policy `least`") as caught:
        find_policy("least")

    assert "least-loaded" in str(caught.value.hint)
