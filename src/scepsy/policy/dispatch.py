"""When a waiting call goes to which replica: the seam between policies and what serves calls.

A dispatcher decides for one LLM. It is told what arrives and ends, and is asked what goes now; a
call that it does not give yet waits with it and is bound to a replica late. It does no I/O, knows
no clock, and sees only what a gateway can know. Simulator and gateway run the same object.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from scepsy.errors import InputError
from scepsy.model.execution import BLOCK_TOKENS, ExecutionId, ReplicaName
from scepsy.policy.program import NO_TOOL, ToolName
from scepsy.policy.replicas import ReplicaSet
from scepsy.policy.route import CallView, LeastLoaded, Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What one replica holds, and how fast it computes."""

    kv_tokens: int
    """That fit beside the weights."""
    seqs: int
    """Calls in its batch at most."""
    prompt_token_s: float
    """Computing one token of a prompt."""
    context_token_s: float = 0.0
    """More of that for each token before it."""
    decode_s: float = 0.0
    """From one token of an answer to the next, beside a few other calls."""
    host_tokens: int = 0
    """KV that is kept in host memory when the GPU has no room for it."""
    host_token_s: float = 0.0
    """Bringing back one token of that."""
    block_tokens: int = BLOCK_TOKENS
    """Of one block of ``CallView.prefix_blocks``."""

    def __post_init__(self) -> None:
        if min(self.kv_tokens, self.seqs, self.block_tokens) < 1 or not self.prompt_token_s > 0:
            raise InputError("a replica needs room for one token and call, and > 0 s per token")

    def prefill_s(self, prompt_tokens: int, cached_tokens: int = 0) -> float:
        """Computing what is not cached of a prompt."""
        pairs = (prompt_tokens + cached_tokens) / 2 * self.context_token_s
        return (prompt_tokens - cached_tokens) * (self.prompt_token_s + pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What is known of a call when it has ended."""

    output_tokens: int
    cached_tokens: int | None = None
    """Prompt tokens that the engine found in its KV cache; None where it does not tell."""
    tool: ToolName = NO_TOOL
    """What its answer asks for."""


class Dispatch(NamedTuple):
    """A call that goes to a replica now."""

    call: CallView
    replica: ReplicaName
    moved_blocks: int = 0
    """So many of its prefix blocks, from the first on, are moved there, where engines can."""
    move_s: float = 0.0
    """How long that takes."""


class Dispatcher(Protocol):
    """Decides for one LLM. Calls are told apart by ``CallView.id``; instants must not run back."""

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """A replica is up, and empty."""
        ...

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """A replica is gone with its cache; calls that ran there are told to arrive again."""
        ...

    def arrived(self, now_s: float, call: CallView) -> None:
        """A call waits."""
        ...

    def take(self, now_s: float) -> list[Dispatch]:
        """Calls that go now, in this order, each of them once. The caller sends them all."""
        ...

    def first_token(self, now_s: float, call: CallView) -> None:
        """The prompt of a call that was sent is computed, where this can be seen."""
        ...

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """A call that was sent has ended."""
        ...

    def dropped(self, now_s: float, call: CallView) -> None:
        """A call has left without an answer, whether it waited or was sent."""
        ...

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """No call of an execution follows: it has ended, or was abandoned."""
        ...

    @property
    def next_s(self) -> float:
        """When ``take`` may give more though nothing happens (s); infinite: not before."""
        ...


MakeDispatcher = Callable[[], Dispatcher]


class AtOnce:
    """Each call goes when it arrives, to where a router says; it waits only for a replica."""

    def __init__(self, router: Router | None = None) -> None:
        """No replica is up."""
        self._router: Router = LeastLoaded() if router is None else router
        self._among = ReplicaSet()
        self._waiting: dict[str, CallView] = {}
        self._sent: dict[str, ReplicaName] = {}

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:  # noqa: ARG002
        """It may be chosen."""
        self._among.add(replica)

    def lost(self, now_s: float, replica: ReplicaName) -> None:  # noqa: ARG002
        """It may not."""
        self._among.remove(replica)
        self._router.lost(replica)
        self._sent = {call: name for call, name in self._sent.items() if name != replica}

    def arrived(self, now_s: float, call: CallView) -> None:  # noqa: ARG002
        """It goes with the next ``take``."""
        self._waiting[call.id] = call

    def take(self, now_s: float) -> list[Dispatch]:  # noqa: ARG002
        """All that wait, first come first, if any replica is up."""
        if not self._waiting or not self._among.names:
            return []
        found = [self._send(call) for call in self._waiting.values()]
        self._waiting.clear()
        return found

    def first_token(self, now_s: float, call: CallView) -> None:
        """A router counts calls until they end."""

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:  # noqa: ARG002
        """It is no longer in flight."""
        self._leave(call)

    def dropped(self, now_s: float, call: CallView) -> None:  # noqa: ARG002
        """It neither waits nor is in flight."""
        if self._waiting.pop(call.id, None) is None:
            self._leave(call)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Nothing is kept of executions."""

    @property
    def next_s(self) -> float:
        """Nothing comes of waiting."""
        return float("inf")

    def _send(self, call: CallView) -> Dispatch:
        name = self._router.choose(call, self._among)
        self._router.started(call, name)
        self._among.started(name, call.prompt_tokens)
        self._sent[call.id] = name
        return Dispatch(call, name)

    def _leave(self, call: CallView) -> None:
        name = self._sent.pop(call.id, None)
        if name is not None:
            self._among.ended(name, call.prompt_tokens)
