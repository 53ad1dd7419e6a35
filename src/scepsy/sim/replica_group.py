"""Replicas of one LLM behind a router, in virtual time: engines and the policy that feeds them."""

from scepsy.model.execution import ReplicaName
from scepsy.policy.route import CallView, ReplicaView, RoutePolicy, least_loaded
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.engine import Engine, EngineCall, EngineEvent, Finished


class RoutedEngines:
    """Equal engines with one router, used like one engine. Its instants must not run back."""

    def __init__(
        self, spec: EngineSpec, replicas: int, *, route: RoutePolicy = least_loaded
    ) -> None:
        self._route = route
        self._engines = {ReplicaName(f"{n:04}"): Engine(spec) for n in range(replicas)}
        self._views = {
            name: ReplicaView(name=name, inflight_calls=0, inflight_tokens=0)
            for name in self._engines
        }
        self._inflight: dict[str, tuple[ReplicaName, int]] = {}

    @property
    def waiting_calls(self) -> int:
        """Calls that wait in any engine's queue at the instant last advanced to."""
        return sum(engine.waiting_calls for engine in self._engines.values())

    def submit(self, now_s: float, view: CallView, call: EngineCall) -> None:
        """Let a call arrive: the router sees the view, the engine it picks gets the call."""
        name = self._route(view, tuple(self._views.values())).name
        self._count(name, 1, call.prompt_tokens)
        self._inflight[call.id] = (name, call.prompt_tokens)
        self._engines[name].submit(now_s, call)

    def next_event_s(self) -> float:
        """An instant (s) before which nothing observable happens; infinite when all are idle."""
        return min(engine.next_event_s() for engine in self._engines.values())

    def advance(self, now_s: float) -> list[EngineEvent]:
        """Run up to and including ``now_s``; give what happened since, by engine, then by time."""
        events = [
            event
            for engine in self._engines.values()
            if engine.next_event_s() <= now_s
            for event in engine.advance(now_s)
        ]
        for event in events:
            if isinstance(event, Finished):
                name, tokens = self._inflight.pop(event.call_id)
                self._count(name, -1, -tokens)
        return events

    def _count(self, name: ReplicaName, calls: int, tokens: int) -> None:
        view = self._views[name]
        self._views[name] = ReplicaView(
            name=name,
            inflight_calls=view.inflight_calls + calls,
            inflight_tokens=view.inflight_tokens + tokens,
        )
