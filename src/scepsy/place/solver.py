"""What both models of a placement share: goals one after the other, and the last solution."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from scepsy.model.plan import Placement

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

SEED = 1


@dataclass(frozen=True, slots=True)
class Reached:
    """How far down a goal came."""

    value: int | None
    """The least found; None where nothing was."""
    bound: int
    """No solution (that reaches the goals before) is below."""


class Model(ABC):
    """The variables of a placement and the solver's last solution. Mutable."""

    touched: "cp_model.LinearExprT"
    """GPUs that are touched."""
    part_free: "cp_model.LinearExprT"
    """Touched GPUs with units that nobody uses."""

    def __init__(self) -> None:
        from ortools.sat.python import cp_model  # noqa: PLC0415  (takes a second)

        self.cp = cp_model.CpModel()
        self.infeasible = False
        """Whether the solver proved that there is no placement."""
        self._last = cp_model.CpSolver()

    def minimize(self, goal: "cp_model.LinearExprT", limit_s: float) -> Reached:
        """Bring a goal down as far as time allows, and hold it there from now on."""
        solver = type(self._last)()
        solver.parameters.max_time_in_seconds = limit_s
        solver.parameters.random_seed = SEED
        solver.parameters.num_workers = 2
        self.cp.minimize(goal)
        status = solver.status_name(solver.solve(self.cp))
        self.infeasible |= status == "INFEASIBLE"
        bound = 0 if self.infeasible else ceil(solver.best_objective_bound - 1e-6)
        if status not in {"OPTIMAL", "FEASIBLE"}:
            return Reached(None, bound)
        self._last = solver
        value = round(solver.objective_value)
        self.cp.add(goal <= value)
        return Reached(value, bound)

    def value(self, expression: "cp_model.LinearExprT") -> int:
        """Of an expression in the last solution."""
        return int(self._last.value(expression))

    @abstractmethod
    def start_from(self, placement: Placement) -> None:
        """Let the solver start from a placement."""

    @abstractmethod
    def placement(self) -> Placement:
        """The last solution."""
