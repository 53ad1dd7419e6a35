"""The replicas, what is in flight on each, and which one gets the next call."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace

from scepsy.errors import InputError
from scepsy.gateway.openai import parse_replica_url
from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.route import CallView, ReplicaView, RoutePolicy

AVOID_S = 1.0
"""How long a replica that could not be reached is passed over while there are others (real s)."""


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


class NoReplicaLeft(Exception):  # noqa: N818 - an outcome, not a fault
    """Every replica of the LLM is among those that must not be used."""


class ReplicaPool:
    """Knows what is in flight, exactly: a call counts from its lease to the end of the block."""

    def __init__(
        self, replicas: Sequence[Replica], policy: RoutePolicy, now_s: Callable[[], float]
    ) -> None:
        """Take the replicas, the routing policy, and a clock of real seconds."""
        self._policy = policy
        self._now_s = now_s
        self._replicas = {replica.name: replica for replica in replicas}
        self._avoid_until_s = dict.fromkeys(self._replicas, float("-inf"))
        self._views: dict[LlmName, dict[ReplicaName, ReplicaView]] = {}
        for replica in replicas:
            view = ReplicaView(name=replica.name, inflight_calls=0, inflight_tokens=0)
            self._views.setdefault(replica.llm, {})[replica.name] = view

    @property
    def llms(self) -> Set[LlmName]:
        """The LLMs that are served."""
        return self._views.keys()

    @property
    def views(self) -> Mapping[LlmName, Mapping[ReplicaName, ReplicaView]]:
        """What is in flight now."""
        return self._views

    @contextmanager
    def lease(
        self, llm: LlmName, call: CallView, *, without: Set[ReplicaName] = frozenset()
    ) -> Iterator[Replica]:
        """Hold a place on the replica that the policy picks, given back however the block ends.

        Raises:
            NoReplicaLeft: all are in ``without``.
        """
        name = self._policy(call, self._candidates(llm, without)).name
        self._add(llm, name, 1, call.prompt_tokens)
        try:
            yield self._replicas[name]
        finally:
            self._add(llm, name, -1, -call.prompt_tokens)

    def avoid(self, replica: Replica) -> None:
        """Pass a replica over for a while: it could not be reached."""
        self._avoid_until_s[replica.name] = self._now_s() + AVOID_S

    def _candidates(self, llm: LlmName, without: Set[ReplicaName]) -> Sequence[ReplicaView]:
        views = [view for name, view in self._views[llm].items() if name not in without]
        if not views:
            raise NoReplicaLeft
        if len(views) == 1:
            return views
        now_s = self._now_s()
        return [view for view in views if self._avoid_until_s[view.name] <= now_s] or views

    def _add(self, llm: LlmName, name: ReplicaName, calls: int, tokens: int) -> None:
        view = self._views[llm][name]
        self._views[llm][name] = replace(
            view,
            inflight_calls=view.inflight_calls + calls,
            inflight_tokens=view.inflight_tokens + tokens,
        )
