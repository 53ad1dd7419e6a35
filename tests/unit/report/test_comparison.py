import pytest

from scepsy.errors import InputError
from scepsy.model.workflow import WorkflowName
from scepsy.report.comparison import BottleneckComparison, Comparison


def comparison(predicted: float, measured: float, allowed: float | None = 0.1) -> Comparison:
    return Comparison(
        workflow=WorkflowName("beam"),
        condition="60 % of capacity",
        quantity="mean",
        unit="s",
        predicted=predicted,
        measured=measured,
        max_error_fraction=allowed,
    )


def test_the_error_is_relative_to_what_was_measured() -> None:
    assert comparison(12.0, 10.0).error_fraction == pytest.approx(0.2)
    assert comparison(8.0, 10.0).error_fraction == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("predicted", "kept"), [(10.9, True), (9.1, True), (11.2, False), (8.8, False)]
)
def test_a_promise_is_kept_on_both_sides(predicted: float, kept: bool) -> None:
    assert comparison(predicted, 10.0).is_kept is kept


def test_nothing_promised_is_neither_kept_nor_missed() -> None:
    assert comparison(1.0, 10.0, allowed=None).is_kept is None


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InputError, match="nothing was measured"):
        comparison(1.0, 0.0)


def test_a_bottleneck_is_compared_by_name() -> None:
    assert BottleneckComparison(workflow=WorkflowName("w"), predicted="a", measured="a").is_kept
    assert not BottleneckComparison(workflow=WorkflowName("w"), predicted="a", measured="b").is_kept
