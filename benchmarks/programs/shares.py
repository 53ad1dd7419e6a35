"""What tenants got while they waited side by side, and where the time of executions went."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks.programs.scenario import prefill_s
from benchmarks.programs.trouble import Relay
from scepsy.model.execution import ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch, Dispatcher
from scepsy.policy.dispatch_call import work_s
from scepsy.policy.program import TenantName
from scepsy.policy.route import CallView
from scepsy.profiles.step_time import EngineSpec
from scepsy.sim.run import ServedExecution


@dataclass(slots=True)
class Deviation:
    """Of service, between two tenants since both wait: the largest over any part of that time."""

    now_s: float = 0.0
    """One's service less the other's, in seconds of a replica."""
    least_s: float = 0.0
    most_s: float = 0.0
    largest_s: float = 0.0

    def served(self, work_s: float) -> None:
        """One of them was, or the other where it is negative."""
        self.now_s += work_s
        self.least_s = min(self.least_s, self.now_s)
        self.most_s = max(self.most_s, self.now_s)
        apart_s = max(self.now_s - self.least_s, self.most_s - self.now_s)
        self.largest_s = max(self.largest_s, apart_s)

    def again(self) -> None:
        """They wait side by side anew."""
        self.now_s = self.least_s = self.most_s = 0.0


@dataclass(slots=True)
class Shares:
    """Who waits, and who is served."""

    waiting: Counter[TenantName] = field(default_factory=Counter)
    """Calls, at the dispatcher."""
    pairs: dict[tuple[TenantName, TenantName], Deviation] = field(default_factory=dict)
    flights: dict[TenantName, list[tuple[float, float]]] = field(default_factory=dict)
    """When so much work (s) of a tenant was sent, and with a minus when it ended."""

    def waits(self, tenant: TenantName) -> None:
        if not self.waiting[tenant]:
            for other, calls in self.waiting.items():
                if calls and other != tenant:
                    self._pair(tenant, other)[0].again()
        self.waiting[tenant] += 1

    def goes(self, tenant: TenantName) -> None:
        self.waiting[tenant] -= 1

    def served(self, tenant: TenantName, sent_s: float, now_s: float, work_s: float) -> None:
        self.flights.setdefault(tenant, []).extend([(sent_s, work_s), (now_s, -work_s)])
        if self.waiting[tenant]:
            for other, calls in self.waiting.items():
                if calls and other != tenant:
                    pair, sign = self._pair(tenant, other)
                    pair.served(sign * work_s)

    @property
    def largest_s(self) -> float:
        """Deviation of any pair."""
        return max((pair.largest_s for pair in self.pairs.values()), default=0.0)

    @property
    def in_flight_s(self) -> float:
        """What one tenant has in flight at a time, at most.

        An order that counts work when it is done lets who has had less get ahead by that: so two
        tenants come apart by at most twice that where every call waits for its turn. Calls that go
        on where their context is do not, and come on top.
        """
        most_s = 0.0
        for changes in self.flights.values():
            most_s = max(most_s, *accumulate(work_s for _, work_s in sorted(changes)))
        return most_s

    def _pair(self, one: TenantName, other: TenantName) -> tuple[Deviation, int]:
        key, sign = ((one, other), 1) if one < other else ((other, one), -1)
        return self.pairs.setdefault(key, Deviation()), sign


class Noting(Relay):
    """Notes when calls went, and what tenants got."""

    def __init__(self, inner: Dispatcher) -> None:
        super().__init__(inner)
        self.shares = Shares()
        self.sent_s: dict[str, float] = {}
        self._capacity: Capacity | None = None

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        self._capacity = capacity
        super().joined(now_s, replica, capacity)

    def arrived(self, now_s: float, call: CallView) -> None:
        self.shares.waits(call.tenant)
        super().arrived(now_s, call)

    def take(self, now_s: float) -> list[Dispatch]:
        found = super().take(now_s)
        for each in found:
            self.sent_s[each.call.id] = now_s
            self.shares.goes(each.call.tenant)
        return found

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        assert self._capacity is not None
        worked_s = work_s(self._capacity, call, result)
        self.shares.served(call.tenant, self.sent_s[call.id], now_s, worked_s)
        super().ended(now_s, call, result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where an execution's time went beyond what it takes without waiting (s), over its calls."""

    tenant: str
    number: int
    calls: int
    slowdown: float
    door_s: float
    """At the dispatcher."""
    queue_s: float
    """In an engine's queue."""
    prompts_s: float
    """Prompts computed anew, or beside others."""
    answers_s: float
    """Decoding slower."""
    cold_calls: int
    """That found less than half of what there was to find."""


def spent(
    execution: ServedExecution,
    sent_s: Mapping[str, float],
    spec: EngineSpec,
    expected_s: float,
    decodes: int,
) -> Spent:
    """Over the same with so many calls that decode at a time."""
    door = queue = prompts = answers = 0.0
    cold, seen = 0, set[int]()
    for served in execution.calls:
        call = execution.script.segment.calls[served.position]
        hits = call.shared_blocks
        while hits < call.prefix_blocks and call.blocks[hits] in seen:
            hits += 1
        seen.update(call.blocks)
        there = min(hits * spec.block_tokens, call.prompt_tokens - 1)
        cold += 2 * served.cached_tokens < there
        went_s = sent_s[f"{execution.number}-{served.position}"]
        first_s = served.start_s + served.ttft_s
        alone_s = spec.times.decode_run_s(
            decodes=decodes,
            decode_context_tokens=decodes * call.prompt_tokens,
            steps=call.output_tokens - 1,
        )
        door += went_s - served.start_s
        queue += served.scheduled_s - went_s
        prompts += first_s - served.scheduled_s - prefill_s(spec, there, call.prompt_tokens)
        answers += served.end_s - first_s - alone_s
    return Spent(
        tenant=str(execution.script.tenant),
        number=execution.number,
        calls=len(execution.calls),
        slowdown=round(execution.execution_s / expected_s, 3),
        door_s=round(door, 1),
        queue_s=round(queue, 1),
        prompts_s=round(prompts, 1),
        answers_s=round(answers, 1),
        cold_calls=cold,
    )
