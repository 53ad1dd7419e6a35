"""Workflows that are served apart from each other, each by replicas of its own."""

from collections.abc import Mapping

from scepsy.errors import UnknownNameError
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName, WorkflowName
from scepsy.policy.route import CallView
from scepsy.sim.engine import EngineCall, EngineEvent, Finished
from scepsy.sim.fleet import Serving


class Apart:
    """Used like one fleet; its replicas are named after their workflow."""

    def __init__(self, servings: Mapping[WorkflowName, Serving]) -> None:
        self._servings = servings
        self._where: dict[str, WorkflowName] = {}
        self._ended: list[str] = []

    def submit(self, now_s: float, llm: LlmName, view: CallView, call: EngineCall) -> None:
        """Let a call arrive where its workflow is served.

        Raises:
            UnknownNameError: nowhere.
        """
        if view.workflow not in self._servings:
            raise UnknownNameError("workflow of the plan", view.workflow, self._servings)
        self._servings[view.workflow].submit(now_s, llm, view, call)
        self._where[call.id] = view.workflow

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when idle."""
        return min(serving.next_event_s() for serving in self._servings.values())

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since, by workflow."""
        for call_id in self._ended:
            del self._where[call_id]
        events = [event for each in self._servings.values() for event in each.advance(now_s)]
        self._ended = [event.call_id for event in events if isinstance(event, Finished)]
        return events

    def replica_of(self, call_id: str) -> ReplicaName:
        """Where a call runs or, until the next call of ``advance``, ran."""
        workflow = self._where[call_id]
        return ReplicaName(f"{workflow}/{self._servings[workflow].replica_of(call_id)}")
