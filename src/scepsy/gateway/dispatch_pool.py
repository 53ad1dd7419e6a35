"""Replicas fed by dispatchers: calls wait here, and are bound to a replica late.

A replica takes calls from when it answers ``/health`` until it no longer does. It is asked when a
call got nothing from it, and now and then besides. The calls of a lost one arrive again, as long as
their clients have got nothing; a call that has lost so many replicas may be what kills them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import aiohttp

from scepsy.clock import ScaledClock
from scepsy.gateway.capacity import ASSUMED, Hardware, read_capacity
from scepsy.gateway.door import Door, DoorLimits, Seat
from scepsy.gateway.door_metrics import DoorMetrics
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.identify import clean_name
from scepsy.gateway.pool import Failure, Replica, Replicas
from scepsy.model.execution import CallStatus, ExecutionId, ReplicaName
from scepsy.model.prompt import count_tokens
from scepsy.model.workflow import LlmName
from scepsy.policy.dispatch import CallResult, MakeDispatcher
from scepsy.policy.program import NO_TENANT, NO_TOOL, ToolName
from scepsy.policy.route import CallView

SENDS = 3
"""To replicas that gave nothing, before a call is refused."""
WATCH_S = 5.0
"""Between two looks at a replica that is up, and how long it may take to answer (real s)."""
DOWN_S = 0.5
"""Between two looks at one that is not (real s)."""


MOST_TENANTS = 4096
"""With a share of their own; clients make names up. Later ones share that of calls without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchConfig:
    """What calls wait for."""

    make_dispatcher: MakeDispatcher
    limits: DoorLimits = field(default_factory=DoorLimits)
    hardware: Mapping[LlmName, Hardware] = field(default_factory=dict)
    """What replicas should do, where their engines do not say."""
    kv_tokens: Mapping[LlmName, int] = field(default_factory=dict)
    """What fits on a replica, whatever its engine says."""
    host_bytes: Mapping[LlmName, float] = field(default_factory=dict)
    """Host memory that a replica offloads KV to, whatever its engine says."""


class DispatchPool:
    """See the module. Use as ``async with``."""

    reads_hints = True

    def __init__(
        self,
        replicas: Replicas,
        config: DispatchConfig,
        clock: ScaledClock,
        metrics: DoorMetrics,
    ) -> None:
        """No replica is up."""
        self._config = config
        self._metrics = metrics
        self._replicas = replicas
        self._doors = {
            llm: Door(config.make_dispatcher(), clock, config.limits, partial(metrics.sent, llm))
            for llm in replicas.llms
        }
        for llm, door in self._doors.items():
            metrics.watch(llm, door)
        self._tenants = {NO_TENANT}
        self._judging: dict[ReplicaName, asyncio.Task[None]] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Each replica has been asked once when this is done, and those that answered are up."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=WATCH_S),
        )
        await asyncio.gather(*map(self._look, self._replicas))
        self._watches = [asyncio.create_task(self._watch(r)) for r in self._replicas]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [*self._watches, *self._judging.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for door in self._doors.values():
            door.stop()
        await self._session.close()

    # ---- Calls

    @asynccontextmanager
    async def place(
        self,
        exchange: Exchange,
        *,
        without: Set[ReplicaName],  # noqa: ARG002 - those are lost, or were asked and are up
    ) -> AsyncIterator[Replica]:
        """Wait for a replica, and hold a place on it however the block ends.

        Raises:
            Refusal: too many calls wait, or this one has waited for too long.
            Failure: the replica was lost before the client got anything.
        """
        door = self._doors[exchange.llm]
        self._metrics.told(exchange.told)
        seat = await door.enter(self._view(exchange))
        assert seat.replica is not None
        exchange.on_begun = seat.begun
        exchange.on_first_token = partial(door.first_token, seat)
        try:
            with self._replicas.occupied(seat.replica, exchange.prompt_tokens) as replica:
                async with self._unless_lost(seat, replica):
                    yield replica
        finally:
            exchange.on_begun = exchange.on_first_token = None
            door.leave(seat, _result(exchange))
            if exchange.status is CallStatus.ERROR:
                self._judge(self._replicas[seat.replica])

    @asynccontextmanager
    async def _unless_lost(self, seat: Seat, replica: Replica) -> AsyncIterator[None]:
        lost = Failure(replica, "it was lost", was_reached=True)
        if seat.is_lost:
            raise lost
        try:
            async with asyncio.timeout(None) as seat.scope:
                yield
        except TimeoutError:
            if not seat.is_lost:
                raise
            raise lost from None

    def _view(self, exchange: Exchange) -> CallView:
        """With the tenant that its client names, as long as there are not too many of those."""
        view = exchange.view()
        if view.tenant not in self._tenants:
            if len(self._tenants) >= MOST_TENANTS:
                return view._replace(tenant=NO_TENANT)
            self._tenants.add(view.tenant)
        return view

    async def failed(self, exchange: Exchange, failure: Failure) -> bool:
        """A call arrives again when its replica has been asked whether it is there."""
        if exchange.has_begun or exchange.sends >= SENDS:
            return False
        await asyncio.shield(self._judge(failure.replica))
        return True

    def over(self, execution: ExecutionId) -> None:
        """No call of an execution follows, of whichever LLM."""
        for door in self._doors.values():
            door.over(execution)

    # ---- Replicas

    def _judge(self, replica: Replica) -> "asyncio.Task[None]":
        """Ask it once, however many want to know."""
        task = self._judging.get(replica.name)
        if task is None:
            task = self._judging[replica.name] = asyncio.create_task(self._look(replica))
            task.add_done_callback(lambda _: self._judging.pop(replica.name, None))
        return task

    async def _watch(self, replica: Replica) -> None:
        door = self._doors[replica.llm]
        while True:
            await asyncio.sleep(WATCH_S if door.is_up(replica.name) else DOWN_S)
            await self._judge(replica)

    async def _look(self, replica: Replica) -> None:
        door = self._doors[replica.llm]
        if not await self._answers(replica):
            if door.is_up(replica.name):
                self._metrics.lost(replica.llm)
            door.lost(replica.name)
        elif not door.is_up(replica.name):
            config, llm = self._config, replica.llm
            capacity = await read_capacity(
                self._session,
                replica.url,
                config.hardware.get(llm, ASSUMED),
                config.kv_tokens.get(llm),
                config.host_bytes.get(llm),
            )
            door.joined(replica.name, capacity)

    async def _answers(self, replica: Replica) -> bool:
        """Whether its server is there; one without ``/health`` is, if it says so."""
        try:
            async with self._session.get(f"{replica.url}/health") as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


def _result(exchange: Exchange) -> CallResult | None:
    """What is known of a call that was answered; None where it was not."""
    if exchange.status is not CallStatus.OK:
        return None
    answer = exchange.answer
    output_tokens = answer.usage.output_tokens
    if output_tokens is None:
        output_tokens = count_tokens(answer.all_text())
    return CallResult(
        output_tokens=output_tokens,
        cached_tokens=answer.usage.cached_tokens,
        tool=_tool(exchange),
    )


def _tool(exchange: Exchange) -> ToolName:
    """The tools that an answer asks for, in one word."""
    called = exchange.answer.tool_calls.values()
    parts = [part.get("function", {}) for calls in called for part in calls.values()]
    names = sorted({part.get("name", "") for part in parts} - {""})
    return ToolName(clean_name("+".join(names))) if names else NO_TOOL
