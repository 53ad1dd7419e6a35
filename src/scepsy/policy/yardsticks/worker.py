"""A replica as a gateway can follow it: calls that were sent, and the KV blocks that they hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from scepsy.policy.dispatch import Capacity
from scepsy.policy.route import CallView


@dataclass(slots=True, eq=False)
class Worker:
    """Counts distinct blocks, as calls of one agent, or of one program, share most of theirs."""

    capacity: Capacity
    calls: dict[str, CallView] = field(default_factory=dict)
    """That were sent, by id."""
    uncached_tokens: dict[str, int] = field(default_factory=dict)
    """Of those without a first token: what of the prompt was thought to be not cached."""
    loose_tokens: int = 0
    """Of calls, beyond their last full block."""
    _holders: dict[int, int] = field(default_factory=dict)

    @property
    def held_tokens(self) -> int:
        """KV that the calls need, and whatever else holds blocks."""
        return len(self._holders) * self.capacity.block_tokens + self.loose_tokens

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens that are thought to be left to compute."""
        return sum(self.uncached_tokens.values())

    def more_tokens(self, call: CallView) -> int:
        """KV that a call needs beyond what is held."""
        held = self._holders
        blocks = sum(block not in held for block in call.prefix_blocks)
        return blocks * self.capacity.block_tokens + self._loose(call)

    def start(self, call: CallView, cached_tokens: int = 0) -> None:
        """A call is sent."""
        self.calls[call.id] = call
        self.uncached_tokens[call.id] = max(1, call.prompt_tokens - cached_tokens)
        self.loose_tokens += self._loose(call)
        self.hold(call.prefix_blocks)

    def first_token(self, call: CallView) -> None:
        """Its prompt is computed."""
        self.uncached_tokens.pop(call.id, None)

    def end(self, call: CallView) -> None:
        """It was sent, and is over."""
        del self.calls[call.id]
        self.uncached_tokens.pop(call.id, None)
        self.loose_tokens -= self._loose(call)
        self.free(call.prefix_blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """Something needs blocks."""
        holders = self._holders
        for block in blocks:
            holders[block] = holders.get(block, 0) + 1

    def free(self, blocks: Sequence[int]) -> None:
        """It does so no longer."""
        holders = self._holders
        for block in blocks:
            if holders[block] == 1:
                del holders[block]
            else:
                holders[block] -= 1

    def _loose(self, call: CallView) -> int:
        full_tokens = len(call.prefix_blocks) * self.capacity.block_tokens
        return max(0, call.prompt_tokens - full_tokens)
