"""Predicted against measured: one quantity under one condition."""

from dataclasses import dataclass

from scepsy.errors import InputError
from scepsy.model.workflow import WorkflowName


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A number that was predicted and then measured."""

    workflow: WorkflowName
    condition: str
    """Under which load, e.g. ``60 % of capacity``."""
    quantity: str
    unit: str
    predicted: float
    measured: float
    max_error_fraction: float | None = None
    """Error above which the prediction is called wrong; None where nothing was promised."""

    def __post_init__(self) -> None:
        if not self.measured > 0:
            raise InputError(f"{self.workflow}, {self.quantity}: nothing was measured")

    @property
    def error_fraction(self) -> float:
        """(predicted - measured) / measured: positive where the prediction is too high."""
        return (self.predicted - self.measured) / self.measured

    @property
    def is_kept(self) -> bool | None:
        """Whether the promised error was kept; None where nothing was promised."""
        if self.max_error_fraction is None:
            return None
        return abs(self.error_fraction) <= self.max_error_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckComparison:
    """Which LLM was expected to saturate first, and which one did."""

    workflow: WorkflowName
    predicted: str
    measured: str
    evidence: str = ""
    """How close the others were, in the prediction and in the measurement."""

    @property
    def is_kept(self) -> bool:
        """Whether the expectation held."""
        return self.predicted == self.measured
