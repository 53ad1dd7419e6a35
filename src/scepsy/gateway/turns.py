"""Routing of LLMs that take turns: what a call costs depends on what goes on beside a replica.

The policy is that of the simulator. It is told of first tokens where answers are streamed: of
others a prompt counts as waiting until the answer is whole.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from scepsy.errors import InputError, MissingError, UnknownNameError
from scepsy.gateway.capacity import Hardware, hardware_of
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.openai import parse_replica_url
from scepsy.gateway.pool import Replica, ReplicaPool, Replicas
from scepsy.model.execution import CallStatus, ReplicaName
from scepsy.model.plan import Allocation, Plan
from scepsy.model.workflow import LlmName
from scepsy.policy.route import MakeRouter
from scepsy.policy.turns import StepCost, TurnGroup, step_cost
from scepsy.sim.specs import published, specs_of


@dataclass(frozen=True, slots=True)
class Turns:
    """Which replicas take turns, and what their steps cost."""

    together: tuple[tuple[ReplicaName, ...], ...]
    costs: Mapping[LlmName, StepCost]


def planned_replicas(plan: Plan, texts: Sequence[str]) -> tuple[Replica, ...]:
    """Read ``<replica>=<url>`` items, one for each replica of a plan.

    Raises:
        InputError: an item of another form, the same replica twice, or one is left out.
    """
    llm_of = {replica.name: replica.llm for replica in plan.placement.replicas}
    urls: dict[ReplicaName, str] = {}
    for text in texts:
        name, equals, url = text.partition("=")
        if not equals:
            raise InputError(
                f"`{text}` is not a replica", hint="write it like qwen3-8b-0=http://127.0.0.1:8000"
            )
        if name not in llm_of:
            raise UnknownNameError("replica of the plan", name, llm_of)
        if name in urls:
            raise InputError(f"replica `{name}` is given twice", hint="leave one of them out")
        urls[ReplicaName(name)] = parse_replica_url(url)
    if missing := [name for name in llm_of if name not in urls]:
        raise InputError(
            f"the plan has replicas whose server is not given: {', '.join(missing)}",
            hint=f"add --replica {missing[0]}=http://127.0.0.1:8000",
        )
    return tuple(Replica(name, llm, urls[name]) for name, llm in llm_of.items())


def planned_turns(plan: Plan) -> Turns | None:
    """Who takes turns in a plan; None where nobody does.

    Raises:
        MissingError: no step times are known for an LLM that does.
    """
    allocation = plan.allocation
    if not allocation.turns:
        return None
    taking = tuple(group for group in allocation.groups if allocation.turns_of(group.llm))
    specs = specs_of(Allocation(taking, allocation.turns), published)
    together = tuple(tuple(replica.name for replica in each) for each in plan.together)
    return Turns(together, {llm: step_cost(spec) for llm, spec in specs.items()})


def planned_hardware(plan: Plan) -> dict[LlmName, Hardware]:
    """What the replicas of a plan should do, as far as anything is published of them."""
    allocation, found = plan.allocation, dict[LlmName, Hardware]()
    for llms in dict.fromkeys(allocation.turns_of(g.llm) or (g.llm,) for g in allocation.groups):
        groups = tuple(map(allocation.group, llms))
        turns = (llms,) if len(llms) > 1 else ()
        with suppress(MissingError, UnknownNameError):
            specs = specs_of(Allocation(groups, turns), published)
            for group in groups:
                spec, degree = specs[group.llm], group.tensor_parallel
                found[group.llm] = hardware_of(spec, group.llm, group.gpu_type, degree)
    return found


class TurnPool(ReplicaPool):
    """Routes calls of LLMs that take turns by what goes on beside each replica."""

    def __init__(
        self,
        replicas: Replicas,
        make_router: MakeRouter,
        now_s: Callable[[], float],
        turns: Turns,
    ) -> None:
        """As ``ReplicaPool``; LLMs that take no turns are routed as there."""
        super().__init__(replicas, make_router, now_s)
        self._group = TurnGroup.of(turns.together, turns.costs, replicas.by_llm)
        self._routers = self._group.routers(self._routers)

    @asynccontextmanager
    async def place(
        self, exchange: Exchange, *, without: Set[ReplicaName]
    ) -> AsyncIterator[Replica]:
        """As a lease; the policy learns when the prompt is computed and how long the answer is."""
        waiting_tokens = exchange.prompt_tokens

        def answers() -> None:
            nonlocal waiting_tokens
            self._group.answers(replica.name, waiting_tokens)
            waiting_tokens = 0

        with self.lease(exchange.llm, exchange.view(), without=without) as replica:
            exchange.on_first_token = answers
            try:
                yield replica
            finally:
                exchange.on_first_token = None
                answers()
                if exchange.status is CallStatus.OK:
                    self._replicas.by_llm[exchange.llm].answered(exchange.output_tokens)
