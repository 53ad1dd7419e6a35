"""What is learned of gaps, as a retention policy asks for it.

The two name programs differently: retention knows agents of executions, ``execution/role``, and the
table of programs whole executions. An agent is taken to return when its execution calls again.
"""

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import WorkflowName
from scepsy.policy.learned import Learned
from scepsy.policy.program import NO_TENANT, Program
from scepsy.policy.program_table import Programs
from scepsy.policy.retain_return import ReturnTime


class LearnedReturns:
    """Answers from a table of programs, which others keep. See ``ReturnTimes``."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def ended(self, now_s: float, program: str, kind: str) -> ReturnTime:
        """By its execution's record; where there is none, by what is known of the workflow."""
        execution = ExecutionId(program.partition("/")[0])
        found = self._programs.get(execution)
        if found is None:
            found = Program(
                execution=execution,
                tenant=NO_TENANT,
                workflow=WorkflowName(kind.partition("/")[0]),
                start_s=now_s,
            )
            found.gap_start_s = now_s
        return _Gap(self._programs.learned, found)

    def arrived(self, now_s: float, program: str) -> None:
        """The table is told by others."""

    def over(self, now_s: float, program: str) -> None:
        """As are ends."""


class _Gap:
    """One program's wait; its gap may not have begun by the table, as other calls of it run."""

    __slots__ = ("_learned", "_program")

    def __init__(self, learned: Learned, program: Program) -> None:
        self._learned, self._program = learned, program

    def probability(self, now_s: float, until_s: float) -> float:
        """Of its coming by ``until_s``, given that it has not come by ``now_s``."""
        if self._program.is_over:
            return 0.0
        from_s = max(now_s, self._program.gap_start_s)
        return self._learned.gap(self._program, from_s).returns_within(until_s - now_s)
