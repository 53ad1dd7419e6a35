import pytest

from scepsy.errors import InfeasibleError
from scepsy.model.workflow import LlmName, Stage, WorkflowName
from scepsy.profiles.shapes import profile_shapes
from scepsy.profiles.workload import Segment, Workload, WorkloadCall


def workload(prompt_tokens: int = 500, output_tokens: int = 100) -> Workload:
    call = WorkloadCall(prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    return Workload(Stage(WorkflowName("w"), LlmName("m")), (Segment((call,)),))


def test_fractions_are_tenths_that_fit_with_the_least_and_the_whole() -> None:
    shapes = profile_shapes(workload(), "qwen3-8b", "h100", degrees=[1])
    fractions = [shape.gpu_fraction for shape in shapes]
    assert fractions == sorted(set(fractions))
    assert 0.1 < fractions[0] < 0.5
    assert fractions[-2:] == [0.9, 1.0]  # nothing is interpolated across the jump between them
    assert len(fractions) == 4


def test_a_degree_that_makes_a_call_no_faster_ends_the_list() -> None:
    large = {shape.tensor_parallel for shape in profile_shapes(workload(), "qwen3-32b", "h100")}
    small = {
        shape.tensor_parallel
        for shape in profile_shapes(workload(), "qwen3-embedding-0.6b", "h100")
    }
    assert {1, 2, 4} <= large
    assert small < large


def test_a_long_recorded_call_rules_out_shapes_that_cannot_hold_it() -> None:
    short = profile_shapes(workload(), "qwen3-32b", "h100", degrees=[1])
    long = profile_shapes(workload(60_000), "qwen3-32b", "h100", degrees=[1, 2])
    assert {shape.tensor_parallel for shape in long} == {2}
    assert len(short) >= 1
    with pytest.raises(InfeasibleError, match="calls of up to 60100 tokens fits no shape on h100"):
        profile_shapes(workload(60_000), "qwen3-32b", "h100", degrees=[1])


def test_fractions_that_are_asked_for_are_taken_as_they_are() -> None:
    shapes = profile_shapes(
        workload(), "qwen3-8b", "h100", degrees=[1, 2], fractions=[0.1, 0.55, 1]
    )
    assert [(s.tensor_parallel, s.gpu_fraction) for s in shapes if s.tensor_parallel == 1] == [
        (1, 0.55),
        (1, 1),
    ]
