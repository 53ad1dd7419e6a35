import pytest

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import NO_ROLE, WorkflowName
from scepsy.policy.replicas import NoReplicaLeft, ReplicaSet
from scepsy.policy.route import POLICIES, CallView, PrefixAware, find_policy

A, B, C = (ReplicaName(name) for name in "abc")


def call(tokens: int = 100, blocks: tuple[int, ...] = ()) -> CallView:
    return CallView(
        execution=ExecutionId("e"),
        workflow=WorkflowName("w"),
        role=NO_ROLE,
        prompt_tokens=tokens,
        prefix_blocks=blocks,
    )


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_picks_one_of_those_allowed(name: str) -> None:
    router, replicas = find_policy(name)(), ReplicaSet([A, B, C])

    picked = [router.choose(call(), replicas, {B}) for _ in range(4)]

    assert set(picked) <= {A, C}
    with pytest.raises(NoReplicaLeft):
        router.choose(call(), replicas, {A, B, C})


def test_round_robin_takes_each_in_turn() -> None:
    router, replicas = find_policy("round-robin")(), ReplicaSet([A, B, C])

    assert [router.choose(call(), replicas) for _ in range(4)] == [A, B, C, A]


def test_prefix_aware_goes_where_the_prefix_is_unless_there_is_more_to_do() -> None:
    router, replicas = PrefixAware(), ReplicaSet([A, B])
    first = call(100, (1, 2))
    router.started(first, B)

    longer = call(200, (1, 2, 3, 4))
    assert router.choose(longer, replicas) == B
    replicas.started(B, 99)
    assert router.choose(longer, replicas) == B  # 100 tokens are cached there
    replicas.started(B, 2)
    assert router.choose(longer, replicas) == A


def test_prefix_aware_forgets_a_replica_that_was_lost() -> None:
    router, replicas = PrefixAware(), ReplicaSet([A, B])
    router.started(call(100, (1, 2)), B)

    router.lost(B)

    assert router.choose(call(100, (1, 2)), replicas) == A


def test_an_unknown_policy_is_told_with_those_that_come_close() -> None:
    with pytest.raises(UnknownNameError, match="unknown routing policy `least`") as caught:
        find_policy("least")

    assert "least-loaded" in str(caught.value.hint)
