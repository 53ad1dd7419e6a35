"""The order in which calls of several tenants wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scepsy.errors import InputError
from scepsy.policy.program import TenantName
from scepsy.policy.share import FairQueue, Rank

A, B = TenantName("a"), TenantName("b")
INF = float("inf")


def drained(queue: FairQueue[str], now_s: float = 0.0) -> list[str]:
    found = []
    while (entry := queue.take(now_s)) is not None:
        found.append(entry[1][2])
    return found


def test_of_one_tenant_lower_levels_go_first_and_equal_ones_as_they_came() -> None:
    queue: FairQueue[str] = FairQueue()
    for serial, (level, name) in enumerate(
        [(1, "late"), (0, "first"), (1, "later"), (0, "second")]
    ):
        queue.put(A, (level, INF), serial, name)

    assert len(queue) == 4
    assert drained(queue) == ["first", "second", "late", "later"]
    assert queue.take(0.0) is None


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

    found = [entry[1][2] for _ in ranks if (entry := queue.take(now_s)) is not None]
    assert found == sorted(range(len(ranks)), key=key)


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
        found = queue.take(0.0)
        assert found is not None
        tenant, (_, _, work_s) = found
        queue.charge(tenant, work_s)
        served[tenant] += work_s

        assert abs(served[A] / weight - served[B]) <= 10.0 * max(1.0, 1 / weight) + 1e-9


def test_who_was_idle_has_saved_up_nothing() -> None:
    queue: FairQueue[str] = FairQueue()
    for serial in range(6):
        queue.put(A, (0, INF), serial, "a")
    for _ in range(3):
        queue.take(0.0)
        queue.charge(A, 10.0)
    queue.take(0.0)
    queue.charge(A, 10.0)

    for serial in range(6, 10):
        queue.put(B, (0, INF), serial, "b")
    order = []
    for _ in range(4):
        found = queue.take(0.0)
        assert found is not None
        order.append(found[1][2])
        queue.charge(found[0], 10.0)
    assert order[0] == "b"
    assert "a" in order[1:3]


def test_a_weight_must_be_above_zero() -> None:
    with pytest.raises(InputError, match="weight"):
        FairQueue({A: 0.0})
