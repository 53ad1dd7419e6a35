"""The calls of an engine that decode, counted in aggregate.

All of them get one token a step, so a step moves one counter and no call. Kept apart are only the
steps at which something is due: a call's end, and a call's next KV block.
"""

from dataclasses import dataclass
from heapq import heappop, heappush


@dataclass(slots=True, eq=False)
class Decode:
    """One call in the batch, as it joined; nothing of it changes."""

    call_id: str
    joined_step: int
    kv_tokens: int
    """Its tokens in KV when it joined."""


class DecodeBatch:
    """Who decodes, since when, until when, and which blocks that takes."""

    def __init__(self, block_tokens: int) -> None:
        self.steps = 0
        """Steps of the engine so far."""
        self.calls = 0
        """That decode."""
        self.context_tokens = 0
        """Tokens in KV, over all calls."""
        self._block_tokens = block_tokens
        self._calls: dict[str, Decode] = {}
        # A heap by end, arrival, and when it joined; calls that left stay in it.
        self._ends: list[tuple[int, int, int, Decode]] = []
        # Calls by the step, modulo, at which they need a block: when they fill one.
        self._due = [0] * block_tokens

    def join(self, call_id: str, order: int, kv_tokens: int, left_tokens: int) -> Decode:
        """Let a call decode from the next step on."""
        steps = self.steps
        decode = Decode(call_id, steps, kv_tokens)
        self._calls[call_id] = decode
        self.calls += 1
        self.context_tokens += kv_tokens
        self._due[(steps - kv_tokens) % self._block_tokens] += 1
        heappush(self._ends, (steps + left_tokens, order, steps, decode))
        return decode

    def leave(self, decode: Decode) -> None:
        """Take a call out, at its end or before."""
        del self._calls[decode.call_id]
        self.calls -= 1
        was_at = decode.joined_step - decode.kv_tokens
        self.context_tokens -= self.steps - was_at
        self._due[was_at % self._block_tokens] -= 1

    def step(self, steps: int) -> list[Decode]:
        """Give each call a token in each of so many steps.

        Returns:
            The calls that have all their tokens, by arrival; they are still in the batch.
        """
        now = self.steps = self.steps + steps
        self.context_tokens += steps * self.calls
        ends, found = self._ends, []
        while ends and ends[0][0] <= now:
            decode = heappop(ends)[3]
            if self._calls.get(decode.call_id) is decode:
                found.append(decode)
        return found

    @property
    def longest_tokens(self) -> int:
        """Tokens in KV of the call that has most; 0 without calls."""
        return max(
            (d.kv_tokens - d.joined_step + self.steps for d in self._calls.values()), default=0
        )

    @property
    def steps_left(self) -> int:
        """Steps until the first call ends; there must be a call."""
        ends = self._ends
        while self._calls.get(ends[0][3].call_id) is not ends[0][3]:
            heappop(ends)  # it left before its end
        return ends[0][0] - self.steps

    @property
    def next_blocks(self) -> int:
        """KV blocks that the next step will need."""
        return self._due[self.steps % self._block_tokens]

    def blocks_due(self, first: int, end: int) -> int:
        """KV blocks that the steps [first, end) from now will need; 0 is the next step."""
        if end <= first or not self.calls:
            return 0
        size, due = self._block_tokens, self._due
        cycles, rest = divmod(end - first, size)
        at = (self.steps + first) % size
        over = at + rest - size
        some = sum(due[at:]) + sum(due[:over]) if over > 0 else sum(due[at : at + rest])
        return cycles * self.calls + some

    def steps_with_room(self, steps: int, blocks: int) -> int:
        """Steps, at most ``steps``, until so many blocks are used; the next has its own."""
        size = self._block_tokens
        if self.calls * (steps // size + 1) <= blocks:
            return steps
        cycles, blocks = divmod(blocks, self.calls)
        fit = 1 + cycles * size
        while fit < steps and self._due[(self.steps + fit) % size] <= blocks:
            blocks -= self._due[(self.steps + fit) % size]
            fit += 1
        return min(fit, steps)
