"""Which replica gets a call of an LLM that takes turns with others on the same GPUs.

While several LLMs have work there, each call waits through a step of each of them for its next
token. So a call goes where its steps cost least time, its own and that of the calls beside it: to
where its LLM is at work already, if it does not wait for too many others there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scepsy.model.execution import ReplicaName
from scepsy.model.workflow import LlmName
from scepsy.policy.prefix_index import BLOCKS_PER_REPLICA, PrefixIndex
from scepsy.policy.replicas import NoReplicaLeft, ReplicaSet
from scepsy.policy.route import CallView, PrefixAware, Router
from scepsy.profiles.step_time import EngineSpec, StepTimes

_CONTEXT_TOKENS = 64
"""In which contexts are told apart where the time of a step is asked for."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """About how long an LLM's steps take."""

    times: StepTimes
    most_calls: int
    """In one step."""
    prompt_token_s: float
    """For each token of a prompt, in a step that it fills."""
    _known_s: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    def step_s(self, calls: int, context_tokens: float) -> float:
        """That gives so many calls a token, of so long a context in the mean; 0 with no calls."""
        if not calls:
            return 0.0
        key = min(calls, self.most_calls), round(context_tokens / _CONTEXT_TOKENS)
        known_s = self._known_s.get(key)
        if known_s is None:
            decodes, tokens = key[0], key[0] * max(1, key[1] * _CONTEXT_TOKENS)
            known_s = self._known_s[key] = self.times.decode_run_s(
                decodes=decodes, decode_context_tokens=tokens, steps=1
            )
        return known_s


def step_cost(spec: EngineSpec) -> StepCost:
    """That of an engine's steps."""
    prefill_s = spec.times.step_s(
        prefill_tokens=spec.chunk_tokens,
        prefill_context_tokens=0,
        decodes=0,
        decode_context_tokens=0,
    )
    return StepCost(spec.times, spec.max_seqs, prefill_s / spec.chunk_tokens)


@dataclass(slots=True)
class _Contexts:
    """How long the contexts of an LLM's calls are."""

    calls: int = 0
    prompt_tokens: int = 0

    def mean_tokens(self, answer_tokens: float) -> float:
        """Halfway through the answer."""
        return self.prompt_tokens / max(1, self.calls) + answer_tokens / 2


@dataclass(frozen=True, slots=True)
class TurnGroup:
    """LLMs that take turns, and what their replicas have to do."""

    costs: Mapping[LlmName, StepCost]
    replicas: Mapping[LlmName, ReplicaSet]
    beside: Mapping[ReplicaName, Collection[tuple[LlmName, ReplicaName]]]
    """For each replica those of the other LLMs on its GPUs."""
    _prompt_tokens: dict[ReplicaName, int] = field(default_factory=dict)
    _contexts: dict[LlmName, _Contexts] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        together: Iterable[Sequence[ReplicaName]],
        costs: Mapping[LlmName, StepCost],
        replicas: Mapping[LlmName, ReplicaSet],
    ) -> "TurnGroup":
        """Of the replicas that sit together, each among those of its LLM."""
        llm_of = {name: llm for llm, each in replicas.items() for name in each.names}
        beside = {
            name: tuple((llm_of[other], other) for other in names if other != name)
            for names in together
            for name in names
        }
        return cls(costs, replicas, beside)

    def routers(self, routers: Mapping[LlmName, Router]) -> dict[LlmName, Router]:
        """Those of LLMs; of LLMs that take turns by what goes on beside each replica."""
        return {
            llm: FewestTurns(llm, self, is_prefix_aware=isinstance(router, PrefixAware))
            if any(name in self.beside for name in self.replicas[llm].names)
            else router
            for llm, router in routers.items()
        }

    def came(self, llm: LlmName, prompt_tokens: int) -> None:
        """A call of an LLM looks for a replica."""
        seen = self._contexts.setdefault(llm, _Contexts())
        seen.calls += 1
        seen.prompt_tokens += prompt_tokens

    def started(self, name: ReplicaName, prompt_tokens: int) -> None:
        """A call was sent to a replica."""
        self._prompt_tokens[name] = self.prompt_tokens(name) + prompt_tokens

    def answers(self, name: ReplicaName, prompt_tokens: int) -> None:
        """A call's prompt is computed: its first token has come, or its end."""
        self._prompt_tokens[name] = max(0, self.prompt_tokens(name) - prompt_tokens)

    def lost(self, name: ReplicaName) -> None:
        """A replica is gone, or came back empty."""
        self._prompt_tokens.pop(name, None)

    def step_s(self, llm: LlmName, calls: int) -> float:
        """About how long a step of an LLM takes that gives so many calls a token."""
        seen = self._contexts.get(llm)
        if seen is None or not calls:
            return 0.0
        tokens = seen.mean_tokens(self.replicas[llm].answer_tokens)
        return self.costs[llm].step_s(calls, tokens)

    def prompt_tokens(self, name: ReplicaName) -> int:
        """Of calls on a replica without a first token."""
        return self._prompt_tokens.get(name, 0)


class FewestTurns:
    """Least seconds of a call and those that it costs the calls beside it."""

    def __init__(self, llm: LlmName, group: TurnGroup, *, is_prefix_aware: bool) -> None:
        """For one of the LLMs of a group, with or without regard to cached prefixes."""
        self._llm = llm
        self._group = group
        self._index = PrefixIndex(BLOCKS_PER_REPLICA) if is_prefix_aware else None

    def choose(
        self, call: CallView, replicas: ReplicaSet, without: Collection[ReplicaName] = ()
    ) -> ReplicaName:
        """The replica on whose GPUs it costs least."""
        self._group.came(self._llm, call.prompt_tokens)
        hits = self._index.hits(call.prefix_blocks) if self._index else {}
        block_tokens = call.prompt_tokens / len(call.prefix_blocks) if hits else 0.0
        costs = [
            (self._cost_s(call.prompt_tokens - hits.get(n, 0) * block_tokens, n, replicas), n)
            for n in replicas.names
            if n not in without
        ]
        if not costs:
            raise NoReplicaLeft
        return min(costs)[1]

    def started(self, call: CallView, replica: ReplicaName) -> None:
        """The replica will have the prompt's blocks."""
        self._group.started(replica, call.prompt_tokens)
        if self._index:
            self._index.saw(replica, call.prefix_blocks)

    def lost(self, replica: ReplicaName) -> None:
        """Its blocks are gone."""
        self._group.lost(replica)
        if self._index:
            self._index.forget(replica)

    def _cost_s(self, prompt_tokens: float, name: ReplicaName, replicas: ReplicaSet) -> float:
        group, prompt_token_s = self._group, self._group.costs[self._llm].prompt_token_s
        calls = inflight = replicas.inflight(name).calls
        step_s = group.step_s(self._llm, calls)
        more_s = group.step_s(self._llm, calls + 1) - step_s
        prompts_s = group.prompt_tokens(name) * prompt_token_s
        for llm, other in group.beside.get(name, ()):
            others = group.replicas[llm]
            if other in others.names:
                count = others.inflight(other).calls
                inflight += count
                step_s += group.step_s(llm, count)
                prompts_s += group.prompt_tokens(other) * group.costs[llm].prompt_token_s
        steps = 1 + replicas.answer_tokens
        adds_s = more_s * steps + prompt_tokens * prompt_token_s
        return prompts_s + step_s * steps + adds_s * (1 + inflight)
