"""Rules of the retention policies, on cases small enough to work out by hand."""

import pytest

from scepsy.policy.retain import Lru, Retention
from scepsy.policy.retain_return import EmpiricalReturns, density
from scepsy.policy.retain_saga import ToolClass, WaLruTtl
from scepsy.policy.retain_value import ByValue, RecomputeCost
from scepsy.policy.retain_yardsticks import Belady, FixedTtl, PrefixLru


class Wait:
    """A next call that comes at a known instant, or at a constant rate."""

    def __init__(self, at_s: float = float("inf"), per_s: float = 0.0) -> None:
        self.at_s, self.per_s = at_s, per_s

    def probability(self, now_s: float, until_s: float) -> float:
        if until_s >= self.at_s:
            return 1.0
        return 1.0 - 2.0 ** (-self.per_s * (until_s - now_s))


class Known:
    """Waits by program."""

    def __init__(self, **waits: Wait) -> None:
        self.waits = waits

    def ended(self, now_s: float, program: str, kind: str) -> Wait:
        return self.waits[program]

    def arrived(self, now_s: float, program: str) -> None:
        pass

    def over(self, now_s: float, program: str) -> None:
        pass


def ends(policy: Retention, now_s: float, program: str, *chain: int, kind: str = "") -> None:
    """A call of a program ends, and leaves all its blocks idle but those that still are."""
    policy.arrived(now_s, program, chain)
    policy.scheduled(now_s, program)
    policy.wake([block for block in chain if block in policy])
    policy.ended(now_s, program, kind, chain)
    policy.keep(chain[::-1])


def order(policy: Retention, now_s: float) -> list[int]:
    return [policy.evict(now_s) for _ in range(len(policy))]


def test_lru_forgets_tails_before_heads_and_old_calls_before_new_ones() -> None:
    policy = Lru()
    ends(policy, 0, "a", 1, 2, 3)
    ends(policy, 1, "b", 1, 4)
    assert order(policy, 2) == [3, 2, 4, 1]


def test_what_several_programs_used_goes_last_by_prefix_lru() -> None:
    policy = PrefixLru()
    ends(policy, 0, "a", 1, 2)
    ends(policy, 1, "b", 1, 3)
    ends(policy, 2, "c", 4)
    assert order(policy, 3) == [2, 3, 4, 1]


def test_a_fixed_time_to_live_forgets_without_need() -> None:
    policy = FixedTtl(10.0)
    ends(policy, 0, "a", 1, 2)
    ends(policy, 6, "b", 3)
    policy.arrived(10.0, "c", ())
    assert len(policy) == 3
    policy.arrived(10.1, "c", ())
    assert order(policy, 10.1) == [3]


def test_belady_forgets_what_is_used_last() -> None:
    policy = Belady({1: 5, 2: 9, 3: 9, 4: 7}.__getitem__)
    policy.keep([3, 2, 1])
    policy.keep([4])
    assert order(policy, 0) == [3, 2, 4, 1]


def test_belady_asks_again_when_a_block_was_used() -> None:
    uses = {1: 5, 2: 6}
    policy = Belady(uses.__getitem__)
    policy.keep([2, 1])
    policy.wake([1])
    uses[1] = 8
    policy.keep([1])
    assert order(policy, 0) == [1, 2]


def test_wa_lru_weighs_recency_reuse_and_size_as_published() -> None:
    # All times to live are over (2.4 s). Score: 0.3 R + 0.5 (1 - P) + 0.2 S, and P = 1 but for
    # what the returns of kinds say: nobody returned, so P is 1/2 for one call and 1/3 for two.
    policy = WaLruTtl(100)
    ends(policy, 0, "old", 1, kind="x")
    ends(policy, 60, "large", 2, 3, 4, 5, kind="y")
    ends(policy, 90, "new", 6, kind="z")
    # In turn for the old, the large and the new one: 0.3, 0.12, 0.03; then 0.25; 0.05, 0.2, 0.05.
    assert order(policy, 100) == [1, 5, 4, 3, 2, 6]


def test_wa_lru_prefers_those_whose_time_to_live_is_over() -> None:
    policy = WaLruTtl(100, {"web": ToolClass.WEB})
    ends(policy, 0, "web", 1, 2, 3, kind="web")  # p95 4.5 s
    ends(policy, 1, "code", 4, kind="code")  # p95 2.4 s
    assert order(policy, 4) == [4, 3, 2, 1]
    ends(policy, 10, "web", 1, 2, 3, kind="web")
    ends(policy, 11, "code", 4, kind="code")
    assert order(policy, 100) == [3, 2, 1, 4]


def test_a_fuller_cache_halves_the_time_to_live() -> None:
    policy = WaLruTtl(10)
    ends(policy, 0, "small", 1)
    ends(policy, 0.5, "large", *range(2, 11))  # full: 1.2 s instead of 2.4 s
    assert policy.evict(2.0) == 10  # the large one is over, the small one not yet


def test_density_is_the_rate_of_a_constant_one() -> None:
    # Half return in each 100 s: the rate is log(2) / 100. Short steps are linear, hence 2 %.
    assert density(Wait(per_s=0.01), 0.0) == pytest.approx(0.00693, rel=0.02)


def test_density_counts_the_queue_as_held() -> None:
    sure = Wait(at_s=0.4)
    assert density(sure, 0.0) == pytest.approx(1 / 0.25)  # by the horizon of half a second
    assert density(sure, 0.0, queue_s=2.0) == pytest.approx(1 / 2.25)
    assert density(Wait(), 0.0) == 0.0


def test_who_returns_sooner_is_kept() -> None:
    policy = ByValue(Known(soon=Wait(at_s=20), late=Wait(at_s=900), never=Wait()))
    ends(policy, 0, "soon", 1, 2)
    ends(policy, 1, "late", 3, 4)
    ends(policy, 2, "never", 5)
    assert order(policy, 3) == [5, 4, 3, 2, 1]


def test_a_block_is_worth_what_all_who_use_it_save() -> None:
    # Three that are half as fast to return are worth more together than one.
    rates = Known(
        a=Wait(per_s=0.01), b=Wait(per_s=0.01), c=Wait(per_s=0.01), quick=Wait(per_s=0.02)
    )
    policy = ByValue(rates)
    for name, own in (("a", 2), ("b", 3), ("c", 4)):
        ends(policy, 0, name, 1, own)
    ends(policy, 0, "quick", 5)
    assert order(policy, 0)[-2:] == [5, 1]


def test_longer_contexts_cost_more_to_compute_again() -> None:
    same = Known(long=Wait(per_s=0.01), short=Wait(per_s=0.01))
    policy = ByValue(same, RecomputeCost(1.0, 0.1))
    ends(policy, 0, "long", 1, 2, 3)
    ends(policy, 1, "short", 4)
    assert order(policy, 2) == [4, 3, 2, 1]


def test_who_waits_in_the_queue_is_kept_whoever_returns_next() -> None:
    policy = ByValue(Known(first=Wait(), second=Wait(), soon=Wait(at_s=11)))
    for at, name in enumerate(("first", "second", "soon")):
        ends(policy, at, name, 10 * at, 10 * at + 1)
    policy.arrived(10, "first", (0, 1))
    policy.arrived(10, "second", (10, 11))
    assert order(policy, 10) == [21, 20, 11, 10, 1, 0]


def test_what_a_program_no_longer_uses_goes_first() -> None:
    policy = ByValue(Known(a=Wait(per_s=0.1), b=Wait(per_s=0.001)))
    ends(policy, 0, "b", 8, 9)
    ends(policy, 1, "a", 1, 2, 3)
    ends(policy, 2, "a", 1, 4)  # was cut back to its first block
    assert order(policy, 3) == [3, 2, 9, 8, 4, 1]


def test_what_only_a_program_used_that_is_over_goes_first() -> None:
    policy = ByValue(Known(done=Wait(at_s=5), b=Wait(at_s=900)))
    ends(policy, 0, "done", 1, 2)
    ends(policy, 1, "b", 1, 3)
    policy.over(2, "done")
    assert order(policy, 2) == [2, 3, 1]


def test_a_program_loses_value_as_it_waits_on() -> None:
    class Overdue(Wait):
        def probability(self, now_s: float, until_s: float) -> float:
            return 0.0 if now_s > 30 else super().probability(now_s, until_s)

    policy = ByValue(Known(quick=Overdue(per_s=0.1), slow=Wait(per_s=0.01)))
    ends(policy, 0, "quick", 1)
    ends(policy, 0, "slow", 2)
    policy.arrived(50, "other", ())
    assert order(policy, 50) == [1, 2]


def test_returns_are_learned_from_few_calls_on() -> None:
    returns = EmpiricalReturns()
    unknown = returns.ended(0.0, "first", "tool").probability(0.0, 4.0)
    returns.arrived(6.0, "first")
    for call in range(100):
        at_s = 100.0 * call
        returns.ended(at_s, "p", "tool")
        returns.arrived(at_s + 6.0, "p")
    wait = returns.ended(20_000.0, "p", "tool")
    assert wait.probability(20_000.0, 20_008.5) > 0.9
    assert wait.probability(20_000.0, 20_004.0) < 0.1
    assert unknown > 0.5


def test_those_that_never_return_lower_the_chance() -> None:
    some, all_ = EmpiricalReturns(), EmpiricalReturns()
    for returns, back in ((some, 2), (all_, 1)):
        for call in range(100):
            returns.ended(float(call), f"p{call}", "tool")
            if call % back == 0:
                returns.arrived(call + 0.9, f"p{call}")
    late_s = 10_000.0
    chances = [
        each.ended(late_s, "last", "tool").probability(late_s, late_s + 60) for each in (some, all_)
    ]
    assert chances[0] < 0.7
    assert chances[1] > 0.95


def test_a_kind_that_never_returns_is_known_as_such() -> None:
    returns = EmpiricalReturns()
    for call in range(50):
        returns.ended(float(call), f"back{call}", "tool")
        returns.arrived(call + 0.9, f"back{call}")
        gone = returns.ended(float(call), f"gone{call}", "once")
        gone.probability(float(call), call + 2.0)  # asked from the first one on
    at_s = 50.0
    gone, back = (returns.ended(at_s, kind, kind) for kind in ("once", "tool"))
    assert gone.probability(at_s, at_s + 2) < 0.1
    assert back.probability(at_s, at_s + 2) > 0.9


def test_a_new_kind_begins_as_its_parent() -> None:
    returns = EmpiricalReturns()
    for call in range(200):
        returns.ended(100.0 * call, "p", "chat/shell")
        returns.arrived(100.0 * call + 6.0, "p")
    other = returns.ended(50_000.0, "q", "chat/browser")
    assert other.probability(50_000.0, 50_008.5) > 0.9
