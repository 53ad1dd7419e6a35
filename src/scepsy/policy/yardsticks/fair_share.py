"""Agent Fair Share (SAGA, arXiv 2605.00528): tenants share by the urgency of their tasks.

A task's urgency is its remaining GPU time over the time to its deadline, which is 1.5 times its
expected time after it came; a tenant's is the sum over its tasks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from scepsy.model.execution import ExecutionId
from scepsy.model.workflow import WorkflowName
from scepsy.policy.program import TenantName
from scepsy.policy.route import CallView

SLACK = 1.5
"""Of the expected time, until the deadline."""
LEAST_S = 1.0
"""To a deadline that is near or over: as published the urgency would grow without end."""
_FIRST_TASK_S = 60.0
"""Expected of a workflow before a task of it has ended."""


@dataclass(slots=True, eq=False)
class _Task:
    tenant: TenantName
    workflow: WorkflowName
    began_s: float
    gpu_s: float = 0.0


class _Mean:
    def __init__(self, value: float) -> None:
        self.value, self._count = value, 0

    def saw(self, value: float) -> None:
        self._count += 1
        self.value += (value - self.value) / self._count


class FairShare:
    """Whose turn it is: the tenant that has had least for its share."""

    def __init__(self) -> None:
        """Nothing is known of any workflow."""
        self._tasks: dict[ExecutionId, _Task] = {}
        self._task_s: dict[WorkflowName, _Mean] = {}
        self._gpu_s: dict[WorkflowName, _Mean] = {}
        self._had_s: dict[TenantName, float] = {}

    def arrived(self, now_s: float, call: CallView) -> None:
        """The task is live."""
        if call.execution not in self._tasks:
            self._tasks[call.execution] = _Task(call.tenant, call.workflow, now_s)
            least = min(self._had_s.values(), default=0.0)
            self._had_s.setdefault(call.tenant, least)

    def used(self, call: CallView, gpu_s: float) -> None:
        """A call took so much."""
        self._had_s[call.tenant] = self._had_s.get(call.tenant, 0.0) + gpu_s
        if (task := self._tasks.get(call.execution)) is not None:
            task.gpu_s += gpu_s

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """The task has ended."""
        if (task := self._tasks.pop(execution, None)) is not None:
            expected = self._task_s.setdefault(task.workflow, _Mean(_FIRST_TASK_S))
            expected.saw(now_s - task.began_s)
            self._gpu_s.setdefault(task.workflow, _Mean(0.0)).saw(task.gpu_s)

    def first(self, now_s: float, calls: Iterable[CallView]) -> CallView:
        """Of calls in their order, the one whose tenant's turn it is; there must be one."""
        by_tenant: dict[TenantName, CallView] = {}
        for call in calls:
            by_tenant.setdefault(call.tenant, call)
        if len(by_tenant) == 1:
            return next(iter(by_tenant.values()))
        urgency = dict.fromkeys(by_tenant, 0.0)
        for task in self._tasks.values():
            if task.tenant in urgency:
                urgency[task.tenant] += self._urgency(now_s, task)
        return min(
            by_tenant.values(),
            key=lambda call: self._had_s.get(call.tenant, 0.0) / max(1e-9, urgency[call.tenant]),
        )

    def _urgency(self, now_s: float, task: _Task) -> float:
        task_s = self._task_s.setdefault(task.workflow, _Mean(_FIRST_TASK_S)).value
        gpu_s = self._gpu_s.setdefault(task.workflow, _Mean(0.0)).value or task_s
        left_s = max(0.0, gpu_s - task.gpu_s)
        return left_s / max(LEAST_S, task.began_s + SLACK * task_s - now_s)
