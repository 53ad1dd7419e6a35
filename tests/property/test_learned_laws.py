"""What is learned of waits is a distribution, finds the truth, and is not led astray by hints."""

import random
from math import exp, inf, log
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.policy.learned import GAP_GRID, Learned
from scepsy.policy.learned_counts import MOST_WAITS, Counts, How, Nodes, heavy_tail
from scepsy.policy.learned_curve import Curve, Forecast, Grid, Part
from scepsy.policy.learned_hints import SHARED_FRACTION
from scepsy.policy.program import NO_TOOL, Hints, Program, TenantName, ToolName

PRIOR = heavy_tail(GAP_GRID, 10.0)
SLACK = 1e-9
quick = settings(max_examples=60, deadline=None)

waits = st.floats(0, 1e6) | st.floats(0, 100) | st.sampled_from([0.0, 1.0, 10.0, 1e5])
lefts = st.tuples(waits, st.sampled_from(How), st.sampled_from([1.0, 1.0, -1.0]))
histories = st.lists(lefts, max_size=60)


def counted(history: list[tuple[float, How, float]], levels: int = 2) -> Counts:
    node = None
    for _ in range(levels):
        node = Counts(GAP_GRID, PRIOR, node)
    assert node is not None
    for value, how, weight in history:
        (node.left if weight > 0 else node.did_not_leave)(value, how)
    return node


@given(histories, st.lists(waits, min_size=2, max_size=6), waits, st.floats(0.1, 10))
@quick
def test_what_is_forecast_is_a_distribution(
    history: list[tuple[float, How, float]], times: list[float], waited: float, scale: float
) -> None:
    parts = (Part(0.7, counted(history).curve()), Part(0.3, PRIOR, scale))
    forecast = Forecast(parts, waited)
    times.sort()
    back = [forecast.returns_within(t) for t in times]
    on = [forecast.goes_on(t) for t in times]
    held = [forecast.expected_wait(t) for t in times]
    assert back == sorted(back)
    assert on == sorted(on, reverse=True)
    for earlier, later, t in zip(held, held[1:], times[1:], strict=False):
        assert earlier <= later * (1 + SLACK) + SLACK
        assert later <= t
    assert all(a >= 0 and b >= 0 and a + b <= 1 + 1e-6 for a, b in zip(back, on, strict=True))
    assert forecast.returns_within(0.0) == 0.0


@given(histories, st.lists(waits, min_size=1, max_size=6), waits, st.floats(0.1, 10))
@quick
def test_many_times_at_once_are_each_as_alone(
    history: list[tuple[float, How, float]], times: list[float], waited: float, scale: float
) -> None:
    parts = (Part(0.7, counted(history).curve()), Part(0.3, PRIOR, scale))
    forecast = Forecast(parts, waited)
    came, held = forecast.by_each(np.array(times))
    assert came.tolist() == [forecast.returns_within(t) for t in times]
    assert held.tolist() == [forecast.expected_wait(t) for t in times]


@given(histories, waits, st.floats(0.01, 0.99))
@quick
def test_a_quantile_is_where_the_probability_is_reached(
    history: list[tuple[float, How, float]], waited: float, probability: float
) -> None:
    forecast = Forecast((Part(1.0, counted(history).curve()),), waited)
    found = forecast.quantile(probability)
    if found == inf:
        assert forecast.returns_within(1e9) < probability + SLACK
    else:
        assert forecast.returns_within(found) >= probability
        assert forecast.returns_within(found * (1 - 1e-3)) <= probability + 1e-6


@given(histories)
@quick
def test_all_that_does_not_end_returns_or_goes_on(
    history: list[tuple[float, How, float]],
) -> None:
    history = [entry for entry in history if entry[1] is not How.ENDED]
    forecast = Forecast((Part(1.0, counted(history).curve()),))
    for t in (0.5, 20.0, 3e4):
        assert forecast.returns_within(t) + forecast.goes_on(t) == pytest.approx(1.0)


def heavy(chance: random.Random) -> float:
    """Mostly short with a Pareto tail, and some at one instant, as of a tool that times out."""
    u = chance.random()
    if u < 0.1:
        return 120.0
    return chance.uniform(0.01, 2.0) if u < 0.5 else 2.0 * chance.random() ** (-1 / 0.8)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 10.0, 100.0]))
@settings(max_examples=8, deadline=None, derandomize=True)
@pytest.mark.no_cover
def test_the_residual_is_found_though_many_are_not_seen_to_the_end(
    seed: int, waited_s: float
) -> None:
    chance = random.Random(seed)
    node = Counts(GAP_GRID, PRIOR, None)
    for _ in range(2_000):
        gap_s, looked_s = heavy(chance), chance.choice([5.0, 50.0, 500.0, 5_000.0])
        node.left(min(gap_s, looked_s), How.RETURNED if gap_s <= looked_s else How.UNSEEN)
    forecast = Forecast((Part(1.0, node.curve()),), waited_s)
    truth = [t for t in (heavy(chance) for _ in range(5_000)) if t > waited_s]
    for more_s in (3.0, 40.0, 300.0)[waited_s == 100.0 :]:  # within a bin nothing is told apart
        was = sum(t <= waited_s + more_s for t in truth) / len(truth)
        assert forecast.returns_within(more_s) == pytest.approx(was, abs=0.12)


def test_waits_that_go_on_count_as_long_as_they_do() -> None:
    """Half returns after 1 s, half after 10,000 s; nobody has seen a long one end."""
    node = Counts(GAP_GRID, PRIOR, None)
    for i in range(400):
        node.began(float(i))
        if i % 2:
            node.over(float(i))
            node.left(1.0, How.RETURNED)
    seen = Forecast((Part(1.0, node.curve(1_000.0)),))
    assert seen.returns_within(2.0) == pytest.approx(0.5, abs=0.05)
    for i in range(0, 400, 2):
        node.over(float(i))
        node.left(10_000.0, How.UNSEEN)
    assert Forecast((Part(1.0, node.curve(1e4)),)).returns_within(2.0) == pytest.approx(
        0.5, abs=0.05
    )


def test_what_ends_without_a_return_does_not_return() -> None:
    node = Counts(GAP_GRID, PRIOR, None)
    for _ in range(500):
        node.left(1.0, How.RETURNED)
        node.left(5.0, How.ENDED)
    assert Forecast((Part(1.0, node.curve()),)).returns_within(1e5) == pytest.approx(0.5, abs=0.03)


def test_what_was_long_ago_fades() -> None:
    node = Counts(GAP_GRID, PRIOR, None)
    for _ in range(int(3 * MOST_WAITS)):
        node.left(1.0, How.RETURNED)
    for _ in range(int(3 * MOST_WAITS)):
        node.left(100.0, How.RETURNED)
    assert Forecast((Part(1.0, node.curve()),)).returns_within(50.0) < 0.2


def test_thin_data_leans_on_what_is_above() -> None:
    above = Counts(GAP_GRID, PRIOR, None)
    node, other = (Counts(GAP_GRID, PRIOR, above) for _ in range(2))
    for _ in range(300):
        other.left(100.0, How.RETURNED)
    node.left(1.0, How.RETURNED)
    within = Forecast((Part(1.0, node.curve()),)).returns_within(50.0)
    assert 0.05 < within < 0.3  # one of its own, and 8 of those above


# Hints: a stream of gaps, hinted, scored with and without.

STAGE = Stage(WorkflowName("w"), LlmName("m"))


def program(hints: Hints, start_s: float, tenant: str = "t") -> Program:
    return Program(
        execution=ExecutionId("e"),
        tenant=TenantName(tenant),
        workflow=STAGE.workflow,
        start_s=0.0,
        stage=STAGE,
        tool=NO_TOOL,
        gap_start_s=start_s,
        hints=hints,
    )


def regrets(gaps: list[float], hinted: list[Hints]) -> list[float]:
    """Log score lost by each hint (nats); negative where it helps."""
    with_hints, without = Learned(), Learned()
    lost, now_s = [], 0.0
    for gap_s, hints in zip(gaps, hinted, strict=True):
        one, other = program(hints, now_s), program(Hints(), now_s)
        scores = [
            learned.gap(of, now_s).log_density(gap_s)
            for learned, of in ((with_hints, one), (without, other))
        ]
        lost.append(scores[1] - scores[0])
        now_s += gap_s
        for learned, of in ((with_hints, one), (without, other)):
            learned.gap_began(of)
            learned.gap_over(of, now_s, How.RETURNED)
    return lost


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=6, deadline=None)
@pytest.mark.no_cover
def test_shuffled_hints_cost_a_bounded_sum(seed: int, off: float) -> None:
    chance = random.Random(seed)
    gaps = [heavy(chance) for _ in range(250)]
    told = [gap_s * off for gap_s in gaps]
    chance.shuffle(told)
    once = log(2)
    each = -log(1 - SHARED_FRACTION)
    assert sum(regrets(gaps, [Hints(gap_s=x) for x in told])) <= once + each * len(gaps)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
@settings(max_examples=6, deadline=None)
@pytest.mark.no_cover
def test_hints_that_tell_something_help_even_where_they_are_off_by_a_factor(
    seed: int, off: float
) -> None:
    chance = random.Random(seed)
    gaps = [heavy(chance) for _ in range(250)]
    told = [Hints(gap_s=gap_s * off * exp(chance.gauss(0, 0.2))) for gap_s in gaps]
    assert sum(regrets(gaps, told)) < -0.2 * len(gaps)


def test_a_source_that_turns_wrong_loses_its_weight_and_regains_it() -> None:
    chance, gaps, told = random.Random(3), [], []
    for wrong in (False, True, False):
        for _ in range(150):
            gaps.append(heavy(chance))
            off = heavy(chance) / gaps[-1] if wrong else chance.uniform(0.8, 1.2)
            told.append(Hints(gap_s=gaps[-1] * off))
    lost = regrets(gaps, told)
    right, wrong_ones, right_again = (mean(lost[end - 75 : end]) for end in (150, 300, 450))
    assert right < -1.0
    assert -0.1 < wrong_ones < 0.1
    assert right_again < -1.0


def test_an_announced_tool_is_believed_as_far_as_it_tells() -> None:
    learned, now_s = Learned(), 0.0
    slow, fast = ToolName("slow"), ToolName("fast")
    for i in range(400):
        tool = slow if i % 2 else fast
        named = program(Hints(), now_s)
        named.tool = tool
        hinted = program(Hints(next_tool=tool), now_s)
        now_s += 60.0 if i % 2 else 0.1
        for of in (named, hinted):
            learned.gap_began(of)
            learned.gap_over(of, now_s, How.RETURNED)
    forecasts = [learned.gap(program(Hints(next_tool=t), now_s), now_s) for t in (slow, fast)]
    assert forecasts[0].returns_within(1.0) < 0.1
    assert forecasts[1].returns_within(1.0) > 0.9


# Memory.


@given(st.lists(st.tuples(*[st.sampled_from("abcdef")] * 3), max_size=80), st.integers(1, 12))
@quick
def test_nodes_are_bounded_and_none_outlives_those_above(
    keys: list[tuple[str, str, str]], most: int
) -> None:
    nodes = Nodes(lambda parent: Counts(GAP_GRID, PRIOR, parent), most)
    for key in keys:
        node = nodes.use(key)
        assert len(nodes) <= max(most, 4)
        for length in (2, 1, 0):
            assert node.parent is not None
            node = node.parent
            assert nodes.nearest(key[:length]) is node


@given(st.floats(0.001, 1e3), st.floats(1e4, 1e6), st.integers(1, 16), waits)
@quick
def test_a_value_is_in_its_bin(first: float, last: float, per_decade: int, value: float) -> None:
    grid = Grid.log(first, last, per_decade=per_decade)
    i = grid.bin(value)
    assert grid.edges[i] <= value
    assert i == grid.bins or value < grid.edges[i + 1]


def test_far_out_in_the_tail_differences_are_exact() -> None:
    """Where nearly nothing is left, what is said of the rest is still a probability."""
    grid = Grid.log(1.0, 1e6, per_decade=8)
    curve = Curve(grid, [0.6] * grid.bins, [0.0] * grid.bins)
    forecast = Forecast((Part(1.0, curve),), grid.edges[40])
    assert forecast.goes_on(0.0) == 1.0
    within = grid.edges[41] - grid.edges[40]
    assert forecast.returns_within(within) == pytest.approx(0.6)
