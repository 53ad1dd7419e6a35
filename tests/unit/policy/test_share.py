"""The order in which calls of several tenants wait."""

from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.errors import InputError
from scepsy.policy.program import TenantName
from scepsy.policy.share import FairQueue, Rank

A, B = TenantName("a"), TenantName("b")
INF = float("inf")
ItemT = TypeVar("ItemT")


def taken(queue: FairQueue[ItemT], now_s: float = 0.0) -> tuple[TenantName, ItemT]:
    """What is first of all."""
    tenant = next(iter(queue.order()))
    entry = queue.take(tenant, now_s)
    assert entry is not None
    return tenant, entry[2]


def drained(queue: FairQueue[ItemT], now_s: float = 0.0) -> list[ItemT]:
    return [taken(queue, now_s)[1] for _ in range(len(queue))]


def test_of_one_tenant_lower_levels_go_first_and_equal_ones_as_they_came() -> None:
    queue: FairQueue[str] = FairQueue()
    for serial, (level, name) in enumerate(
        [(1, "late"), (0, "first"), (1, "later"), (0, "second")]
    ):
        queue.put(A, (level, INF), serial, name)

    assert len(queue) == 4
    assert drained(queue) == ["first", "second", "late", "later"]
    assert queue.take(A, 0.0) is None
    assert not queue.order()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([1.0, 2.0, 5.0, 7.0, INF]))),
    st.sampled_from([0.0, 3.0, 6.0, 9.0]),
)
def test_of_one_level_who_must_begin_soonest_goes_first_if_that_is_not_past(
    ranks: list[Rank], now_s: float
) -> None:
    queue: FairQueue[int] = FairQueue()
    for serial, rank in enumerate(ranks):
        queue.put(A, rank, serial, serial)

    def key(serial: int) -> tuple[int, float, int]:
        level, begin_by_s = ranks[serial]
        return level, begin_by_s if begin_by_s >= now_s else INF, serial

    assert drained(queue, now_s) == sorted(range(len(ranks)), key=key)


@given(
    st.lists(st.floats(0.1, 10.0), min_size=40, max_size=80),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_tenants_whose_calls_always_wait_are_served_by_their_weights(
    works_s: list[float], weight: float
) -> None:
    """For its weight, each has had as much as the other, but for one call."""
    queue: FairQueue[float] = FairQueue({A: weight})
    for serial, work_s in enumerate(works_s):
        queue.put(A, (0, INF), serial, work_s)
        queue.put(B, (0, INF), serial, work_s)
    served = {A: 0.0, B: 0.0}
    for _ in works_s:
        tenant, work_s = taken(queue)
        queue.charge(tenant, work_s)
        served[tenant] += work_s

        assert abs(served[A] / weight - served[B]) <= 10.0 * max(1.0, 1 / weight) + 1e-9


def test_who_was_idle_has_saved_up_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put(B, (0, INF), 0, "b")
    taken(queue)
    for serial in range(1, 10):
        queue.put(A, (0, INF), serial, "a")
    for _ in range(4):
        queue.charge(taken(queue)[0], 10.0)
    assert queue.order() == (A,)

    for serial in range(10, 14):
        queue.put(B, (0, INF), serial, "b")
    order = []
    for _ in range(4):
        tenant, name = taken(queue)
        order.append(name)
        queue.charge(tenant, 10.0)
    assert "".join(order) in ("abab", "baba")


def test_who_was_looked_at_and_did_not_fit_keeps_its_place() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put(A, (0, INF), 0, "a")
    queue.put(B, (0, INF), 1, "b")
    queue.charge(A, 1.0)
    queue.charge(B, 2.0)

    entries = [(tenant, queue.take(tenant, 0.0)) for tenant in queue.order()]
    for tenant, entry in entries:
        assert entry is not None
        queue.put_back(tenant, entry)
    assert queue.served(A) == 1.0
    assert drained(queue) == ["a", "b"]


@given(st.integers(1, 5), st.sampled_from([1.0, 7.0, 100.0]))
def test_tenants_that_were_never_seen_do_not_keep_one_out(at_a_time: int, ahead_s: float) -> None:
    """Each has one call, and there is always another."""
    queue: FairQueue[int] = FairQueue()
    queue.put(A, (0, INF), 0, 0)
    queue.put(B, (0, INF), 1, 1)
    queue.charge(A, ahead_s)
    passed = 0
    for serial in range(2, 500):
        queue.put(TenantName(str(serial)), (0, INF), serial, serial)
        if len(queue) < at_a_time + 2:
            continue
        tenant, _ = taken(queue)
        if tenant == A:
            break
        queue.charge(tenant, 1.0)
        passed += 1
    assert passed <= 1  # B, which has had less


def test_a_weight_must_be_above_zero() -> None:
    with pytest.raises(InputError, match="weight"):
        FairQueue({A: 0.0})
