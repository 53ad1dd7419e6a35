"""The replicas, what is in flight on each, and which one gets the next call."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from scepsy.errors import InputError
from scepsy.gateway.exchange import Exchange
from scepsy.gateway.openai import parse_replica_url
from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.replicas import ReplicaSet
from scepsy.policy.route import CallView, MakeRouter

AVOID_S = 1.0
"""How long a replica that could not be reached is passed over while there are others (real s)."""
_SENDS = 2


@dataclass(frozen=True, slots=True)
class Replica:
    """A server that answers for one LLM."""

    name: ReplicaName
    llm: LlmName
    url: str
    """Base URL, without ``/v1``."""


def parse_replicas(texts: Sequence[str]) -> tuple[Replica, ...]:
    """Read ``<llm>=<url>`` items; an LLM's replicas are named ``<llm>-0``, ``<llm>-1``, ...

    Raises:
        InputError: an item of another form, the same one twice, or none at all.
    """
    replicas: list[Replica] = []
    for text in texts:
        llm, equals, url = text.partition("=")
        if not equals or not llm:
            raise InputError(
                f"`{text}` is not a replica", hint="write it like qwen3-8b=http://127.0.0.1:8000"
            )
        earlier = [replica for replica in replicas if replica.llm == llm]
        base = parse_replica_url(url)
        if any(replica.url == base for replica in earlier):
            raise InputError(f"replica `{text}` is given twice", hint="leave one of them out")
        name = ReplicaName(f"{llm}-{len(earlier)}")
        replicas.append(Replica(name, LlmName(llm), base))
    if not replicas:
        raise InputError("no replica is given", hint="add --replica qwen3-8b=http://127.0.0.1:8000")
    return tuple(replicas)


class Replicas:
    """All replicas of a gateway, and what is in flight on them: counted once, for all who ask."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        """Nothing is in flight."""
        self._by_name = {replica.name: replica for replica in replicas}
        self._by_llm: dict[LlmName, ReplicaSet] = {}
        for replica in self:
            self._by_llm.setdefault(replica.llm, ReplicaSet()).add(replica.name)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._by_name.values())

    def __getitem__(self, name: ReplicaName) -> Replica:
        return self._by_name[name]

    @property
    def llms(self) -> Set[LlmName]:
        """The LLMs that are served."""
        return self._by_llm.keys()

    @property
    def by_llm(self) -> Mapping[LlmName, ReplicaSet]:
        """The replicas of each LLM, up or not."""
        return self._by_llm

    @contextmanager
    def occupied(self, name: ReplicaName, prompt_tokens: int) -> Iterator[Replica]:
        """A call is in flight on a replica until the block ends, however that is."""
        replica = self._by_name[name]
        among = self._by_llm[replica.llm]
        among.started(name, prompt_tokens)
        try:
            yield replica
        finally:
            among.ended(name, prompt_tokens)


class Failure(Exception):  # noqa: N818 - an outcome, not a fault
    """A replica gave a call no answer, and the client has got nothing yet."""

    def __init__(
        self, replica: Replica, reason: str, *, was_reached: bool, timed_out: bool = False
    ) -> None:
        super().__init__(f"`{replica.name}`: {reason}")
        self.replica, self.reason = replica, reason
        self.was_reached = was_reached
        """Where not, it has seen nothing of the call."""
        self.timed_out = timed_out


class Pool(Protocol):
    """What decides which replica answers a call."""

    @property
    def reads_hints(self) -> bool:
        """Whether what clients say ahead is of use."""
        ...

    def place(
        self, exchange: Exchange, *, without: Set[ReplicaName]
    ) -> AbstractAsyncContextManager[Replica]:
        """Wait for a replica, and hold a place on it however the block ends.

        Raises:
            NoReplicaLeft: all are in ``without``.
            Refusal: too many calls wait, or this one has waited for too long.
        """
        ...

    async def failed(self, exchange: Exchange, failure: Failure) -> bool:
        """A call has left its replica unanswered. Whether it may be sent again."""
        ...

    def over(self, execution: ExecutionId) -> None:
        """No call of an execution follows."""
        ...


class ReplicaPool:
    """Sends each call when it comes, to where a router says."""

    reads_hints = False

    def __init__(
        self, replicas: Replicas, make_router: MakeRouter, now_s: Callable[[], float]
    ) -> None:
        """Take the replicas, what makes a router for each LLM, and a clock of real seconds."""
        self._now_s = now_s
        self._replicas = replicas
        self._avoid_until_s: dict[ReplicaName, float] = {}
        self._routers = {llm: make_router() for llm in replicas.llms}

    @contextmanager
    def lease(
        self, llm: LlmName, call: CallView, *, without: Set[ReplicaName] = frozenset()
    ) -> Iterator[Replica]:
        """Hold a place on the replica that the policy picks, given back however the block ends.

        Raises:
            NoReplicaLeft: all are in ``without``.
        """
        among, router = self._replicas.by_llm[llm], self._routers[llm]
        name = router.choose(call, among, self._without(among, without))
        router.started(call, name)
        with self._replicas.occupied(name, call.prompt_tokens) as replica:
            yield replica

    @asynccontextmanager
    async def place(
        self, exchange: Exchange, *, without: Set[ReplicaName]
    ) -> AsyncIterator[Replica]:
        """As a lease: nothing waits."""
        with self.lease(exchange.llm, exchange.view(), without=without) as replica:
            yield replica

    async def failed(self, exchange: Exchange, failure: Failure) -> bool:
        """A call that no replica has seen may go to another one, once."""
        if failure.was_reached:
            return False
        self.avoid(failure.replica)
        return exchange.sends < _SENDS

    def over(self, execution: ExecutionId) -> None:
        """Nothing is kept of executions."""

    def avoid(self, replica: Replica) -> None:
        """Pass a replica over for a while: it could not be reached, or lost what it had cached."""
        self._avoid_until_s[replica.name] = self._now_s() + AVOID_S
        self._routers[replica.llm].lost(replica.name)

    def _without(self, among: ReplicaSet, without: Set[ReplicaName]) -> Set[ReplicaName]:
        """Those and the ones to be avoided, unless that leaves none."""
        now_s = self._now_s()
        avoided = {name for name, until_s in self._avoid_until_s.items() if until_s > now_s}
        every = without | (avoided & set(among.names))
        return every if len(every) < len(among.names) else without
