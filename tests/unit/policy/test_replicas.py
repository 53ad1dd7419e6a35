"""What a router knows of replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.errors import InputError
from scepsy.model.execution import ReplicaName
from scepsy.policy.prefix_index import PrefixIndex
from scepsy.policy.replicas import InFlight, NoReplicaLeft, ReplicaSet

NAMES = [ReplicaName(f"r{n}") for n in range(4)]


def test_counts_what_is_in_flight() -> None:
    replicas = ReplicaSet(NAMES[:1])
    replicas.started(NAMES[0], 10)
    replicas.started(NAMES[0], 5)
    replicas.ended(NAMES[0], 10)

    assert replicas.inflight(NAMES[0]) == InFlight(calls=1, tokens=5)


def test_one_that_is_there_cannot_come_and_none_is_left_when_all_are_gone() -> None:
    replicas = ReplicaSet(NAMES[:1])
    with pytest.raises(InputError, match="there already"):
        replicas.add(NAMES[0])

    replicas.started(NAMES[0], 1)
    replicas.remove(NAMES[0])
    replicas.ended(NAMES[0], 1)  # its call ends elsewhere

    with pytest.raises(NoReplicaLeft):
        replicas.least_loaded()


STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3), st.booleans()), max_size=60)


@given(STEPS)
def test_the_least_loaded_is_that_of_a_full_search(
    steps: list[tuple[ReplicaName, int, bool]],
) -> None:
    replicas = ReplicaSet(NAMES)
    sent: dict[ReplicaName, list[int]] = {name: [] for name in NAMES}
    for name, tokens, ends in steps:
        if ends and sent[name]:
            replicas.ended(name, sent[name].pop())
        else:
            replicas.started(name, tokens)
            sent[name].append(tokens)
        assert replicas.least_loaded() == min(
            NAMES, key=lambda each: (len(sent[each]), sum(sent[each]), each)
        )
        assert replicas.least_loaded({NAMES[0]}) == min(
            NAMES[1:], key=lambda each: (len(sent[each]), sum(sent[each]), each)
        )


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.lists(st.integers(0, 5), max_size=4)), max_size=20
    ),
    st.lists(st.integers(0, 5), max_size=5),
)
def test_hits_are_the_leading_blocks_that_a_replica_saw(
    seen: list[tuple[ReplicaName, list[int]]], asked: list[int]
) -> None:
    index = PrefixIndex()
    held: dict[ReplicaName, set[int]] = {name: set() for name in NAMES}
    for name, blocks in seen:
        index.saw(name, blocks)
        held[name].update(blocks)

    expected = {}
    for name in NAMES:
        depth = next((n for n, block in enumerate(asked) if block not in held[name]), len(asked))
        if depth:
            expected[name] = depth
    assert dict(index.hits(asked)) == expected


def test_the_blocks_that_were_used_for_longest_are_forgotten() -> None:
    index = PrefixIndex(blocks_per_replica=3)
    index.saw(NAMES[0], [1, 2, 3])
    index.saw(NAMES[0], [1, 4])

    assert index.hits([1, 4]) == {NAMES[0]: 2}
    assert index.hits([1, 2, 3]) == {NAMES[0]: 2}  # 3, the end of the older prompt, has gone
    index.forget(NAMES[0])
    assert index.hits([1]) == {}
