import random

import numpy as np
import pytest

from scepsy.errors import MissingError
from scepsy.model.execution import Execution
from scepsy.traces.demand import WorkflowDemand, demand
from scepsy.traces.roles import split_effect, two_peaks, with_roles


def recorded(make_call, kinds, *, executions=30, blocks=lambda kind, number, at: ()):
    """Executions of one call of each kind after the other: (seconds, prompt, output tokens)."""
    made = []
    for number in range(executions):
        at_s, calls = 0.0, []
        for at, (length_s, prompt, output) in enumerate(kinds(number)):
            calls.append(
                make_call(
                    at_s,
                    at_s + length_s,
                    execution=f"e{number}",
                    prompt_tokens=prompt,
                    output_tokens=output,
                    prefix_blocks=blocks(at, number, at_s),
                )
            )
            at_s += length_s
        made.append(Execution(f"e{number}", "w", tuple(calls)))
    return made


def test_short_and_long_answers_are_two_roles(make_call):
    """A judge says 4 tokens in 0.1 s, a writer about 400 in 8 s."""
    executions = recorded(
        make_call, lambda number: ((0.1, 200, 4 + number % 2), (8.0, 200, 380 + number))
    )

    found, splits = with_roles(executions)

    assert [(split.by, split.roles) for split in splits] == [
        ("output length", ("long-output", "short-output"))
    ]
    assert {call.role for e in found for call in e.calls if call.output_tokens < 9} == {
        "short-output"
    }
    assert [stage.calls_per_execution for stage in demand(found).stages] == [1, 1]


def test_prompts_that_begin_alike_are_roles_whatever_their_length(make_call):
    """Two system prompts over all executions; the same first block, then different ones."""
    executions = recorded(
        make_call,
        lambda number: ((1.0, 300, 50), (1.0, 300, 50)),
        blocks=lambda kind, number, at: (7, 70 + kind, 1000 + number),
    )

    found, splits = with_roles(executions)

    assert splits[0].by == "prompt prefix"
    assert [tuple(call.role for call in e.calls) for e in found[:2]] == [
        ("prompt-1", "prompt-2"),
        ("prompt-1", "prompt-2"),
    ]


def test_calls_of_one_kind_and_named_ones_are_left_alone(make_call):
    rng = random.Random(0)
    one_kind = recorded(make_call, lambda _: ((1.0, 100, round(rng.lognormvariate(5, 0.6))),) * 3)
    named = [
        Execution(f"e{n}", "w", (make_call(0, 1, execution=f"e{n}", role="a", output_tokens=k),))
        for n, k in enumerate([4] * 40 + [400] * 40)
    ]

    assert with_roles(one_kind) == (tuple(one_kind), ())
    assert with_roles(named) == (tuple(named), ())


@pytest.mark.parametrize("size", [60, 300, 3000])
def test_one_peak_is_never_cut_and_two_are(size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert two_peaks(rng.normal(5, 1, size)) is None
        assert two_peaks(np.log1p(rng.exponential(200, size))) is None
        both = np.concatenate([rng.normal(3, 0.4, size // 2), rng.normal(6, 0.5, size // 2)])
        border = two_peaks(both)
        assert border is not None
        assert 3.5 < border < 5.5
    assert two_peaks(np.full(size, 3.0)) is None


def test_a_split_matters_as_far_as_executions_mix_the_roles_differently(make_call):
    """Half the executions make ten short calls, half one long: the average fits neither."""

    def mixed(number):
        return ((0.1, 100, 4),) * 10 if number % 2 else ((10.0, 100, 400),) * 10

    def alike(number):
        return ((0.1, 100, 4), (10.0, 100, 400))

    for kinds, matters in ((mixed, True), (alike, False)):
        executions = recorded(make_call, kinds)
        split, _ = with_roles(executions)
        effect = split_effect(demand(executions), demand(split))
        assert (abs(effect.change_fraction) > 0.5) is matters


def test_the_effect_needs_calls(make_call):
    found = demand(recorded(make_call, lambda _: ((1.0, 10, 10),)))
    bare = WorkflowDemand(workflow="w", stages=found.stages, executions=found.executions)

    with pytest.raises(MissingError, match="does not hold its calls"):
        split_effect(bare, bare)
