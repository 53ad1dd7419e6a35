"""What may go wrong between clients, dispatcher and engines: hints, late news, a new gateway.

*Hints* are what clients say of a call ahead (its tool, its answer's length, the gap after it), the
tool that its answer asks for, and that an execution is over. Wrong ones are those of calls of other
executions, drawn by chance; an execution is then over when as many calls have come as another one
has. *Late* is all that a dispatcher hears of calls that were sent. A *new gateway* knows nothing:
calls that wait arrive anew, and of those in flight it hears nothing that it could use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from benchmarks.programs.systems import Keeper, System
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch, Dispatcher
from scepsy.policy.news import Informed, Late
from scepsy.policy.program import NO_HINTS, NO_TOOL, Hints, ToolName
from scepsy.policy.route import CallView
from scepsy.sim.script import Script

LATE_S = 1.0
_LEAST_GAP_S = 1e-3

Said = Callable[[str], tuple[Hints, ToolName]]
"""Of a call, by its id: what its client says ahead, and the tool of its answer."""


class Relay:
    """A dispatcher that passes on what it is told."""

    def __init__(self, inner: Dispatcher, decides: Dispatcher | None = None) -> None:
        """Args: decides: the one whom engines ask, where ``inner`` passes on itself."""
        self._inner = inner
        self._decides = decides or inner

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        self._inner.joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        self._inner.lost(now_s, replica)

    def arrived(self, now_s: float, call: CallView) -> None:
        self._inner.arrived(now_s, call)

    def take(self, now_s: float) -> list[Dispatch]:
        return self._inner.take(now_s)

    def first_token(self, now_s: float, call: CallView) -> None:
        self._inner.first_token(now_s, call)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        self._inner.ended(now_s, call, result)

    def dropped(self, now_s: float, call: CallView) -> None:
        self._inner.dropped(now_s, call)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        self._inner.over(now_s, execution)

    @property
    def next_s(self) -> float:
        return self._inner.next_s

    def is_kept(self, program: str) -> bool:
        assert isinstance(self._decides, Keeper)
        return self._decides.is_kept(program)


class Unhinted(Relay):
    """Clients say nothing: no hints, no tools, no ends."""

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        super().ended(now_s, call, replace(result, tool=NO_TOOL))

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Nobody is told."""


class Hinted(Relay):
    """Clients say all that is known ahead, or what is known of calls of others."""

    def __init__(self, inner: Dispatcher, said: Said, last: Callable[[str], int] | None) -> None:
        """Args: last: after how many calls an execution is said to be over; None: when it is."""
        super().__init__(inner)
        self._said, self._last = said, last
        self._calls: dict[ExecutionId, int] = {}

    def arrived(self, now_s: float, call: CallView) -> None:
        hints, _ = self._said(call.id)
        super().arrived(now_s, call._replace(hints=hints))

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        hints, tool = self._said(call.id)
        super().ended(now_s, call._replace(hints=hints), replace(result, tool=tool))
        if self._last is not None:
            calls = self._calls[call.execution] = self._calls.get(call.execution, 0) + 1
            if calls == self._last(call.execution):
                super().over(now_s, call.execution)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        self._calls.pop(execution, None)
        if self._last is None:
            super().over(now_s, execution)


class Restarted(Relay):
    """From an instant on, another dispatcher, which knows the replicas alone."""

    def __init__(self, make: Callable[[], Dispatcher], at_s: float) -> None:
        super().__init__(make())
        self._make, self._at_s = make, at_s
        self._up: dict[ReplicaName, Capacity] = {}
        self._waiting: dict[str, CallView] = {}

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        self._up[replica] = capacity
        super().joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        del self._up[replica]
        super().lost(now_s, replica)

    def arrived(self, now_s: float, call: CallView) -> None:
        self._waiting[call.id] = call
        super().arrived(now_s, call)

    def dropped(self, now_s: float, call: CallView) -> None:
        self._waiting.pop(call.id, None)
        super().dropped(now_s, call)

    def take(self, now_s: float) -> list[Dispatch]:
        if now_s >= self._at_s:
            self._at_s = float("inf")
            self._inner = self._decides = self._make()
            for replica, capacity in self._up.items():
                self._inner.joined(now_s, replica, capacity)
            for call in self._waiting.values():
                self._inner.arrived(now_s, call)
        found = super().take(now_s)
        for each in found:
            del self._waiting[each.call.id]
        return found

    @property
    def next_s(self) -> float:
        return min(self._inner.next_s, self._at_s)


class Clients:
    """Know what they run."""

    def __init__(self, run: Sequence[Script], among: Sequence[Script], seed: int) -> None:
        """Args: run: by execution, as they come; among: whose hints are taken for wrong ones."""
        self._run, self._among, self._seed = run, among, seed

    def right(self, call_id: str) -> tuple[Hints, ToolName]:
        """What happens."""
        execution, _, position = call_id.partition("-")
        return _said(self._run[int(execution)], int(position))

    def wrong(self, call_id: str) -> tuple[Hints, ToolName]:
        """What happens in another execution; the same for a call each time."""
        rng = Random(f"{self._seed}/{call_id}")
        script = rng.choice(self._among)
        return _said(script, rng.randrange(len(script.stages)))

    def wrong_last(self, execution: str) -> int:
        """How many calls another execution has."""
        return len(Random(f"{self._seed}/{execution}").choice(self._among).stages)


def _said(script: Script, position: int) -> tuple[Hints, ToolName]:
    calls = script.segment.calls
    tool = script.tools[position] if script.tools else NO_TOOL
    gaps_s = [call.after_s for call in calls if position in call.waits_for]
    hints = Hints(
        next_tool=tool or None,
        gap_s=max(_LEAST_GAP_S, min(gaps_s)) if gaps_s else None,
        output_tokens=max(1, calls[position].output_tokens),
    )
    return (hints if tool or gaps_s else NO_HINTS), tool


def _late(make: Callable[[], Dispatcher]) -> Dispatcher:
    decides = make()
    return Relay(Informed(decides, Late(LATE_S)), decides)


Wrap = Callable[[Callable[[], Dispatcher], Clients, float], Dispatcher]

TROUBLES: Mapping[str, Wrap] = {
    "unhinted": lambda make, _clients, _at_s: Unhinted(make()),
    "hinted": lambda make, clients, _at_s: Hinted(make(), clients.right, None),
    "misled": lambda make, clients, _at_s: Hinted(make(), clients.wrong, clients.wrong_last),
    "late": lambda make, _clients, _at_s: _late(make),
    "restart": lambda make, _clients, at_s: Restarted(make, at_s),
}


def troubled(system: System, trouble: str, clients: Clients, at_s: float) -> System:
    """The same system, in trouble; a gateway restarts at that instant."""
    wrap = TROUBLES[trouble]
    return replace(system, dispatcher=lambda: wrap(system.dispatcher, clients, at_s))
