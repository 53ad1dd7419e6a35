"""The calls of an engine that decode, counted in aggregate.

All of them get one token a step, so a step moves one counter and no call. Kept apart are only the
steps at which something is due: a call's end, and a call's next KV block.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Decode:
    """One call in the batch, as it joined. Ordered, as one that left may join again for one end."""

    call_id: str
    order: int
    """By arrival; ties are given in this order."""
    joined_step: int
    kv_tokens: int
    """Its tokens in KV when it joined."""
    end_step: int
    """Step count at which its last token is there."""


class DecodeBatch:
    """Who decodes, since when, until when, and which blocks that takes."""

    def __init__(self, block_tokens: int) -> None:
        self.steps = 0
        """Steps of the engine so far."""
        self.context_tokens = 0
        """Tokens in KV, over all calls."""
        self._block_tokens = block_tokens
        self._calls: dict[str, Decode] = {}
        self._ends: list[tuple[int, int, Decode]] = []  # a heap; calls that left stay in it
        self._due = [0] * block_tokens  # calls by the step, modulo, at which they need a block

    def __len__(self) -> int:
        return len(self._calls)

    def join(self, call_id: str, order: int, *, kv_tokens: int, left_tokens: int) -> Decode:
        """Let a call decode from the next step on."""
        decode = Decode(call_id, order, self.steps, kv_tokens, self.steps + left_tokens)
        self._calls[call_id] = decode
        self.context_tokens += kv_tokens
        self._due[self._slot(decode)] += 1
        heapq.heappush(self._ends, (decode.end_step, order, decode))
        return decode

    def leave(self, decode: Decode) -> None:
        """Take a call out, at its end or before."""
        del self._calls[decode.call_id]
        self.context_tokens -= decode.kv_tokens + self.steps - decode.joined_step
        self._due[self._slot(decode)] -= 1

    def step(self, steps: int) -> None:
        """Give each call a token in each of so many steps."""
        self.steps += steps
        self.context_tokens += steps * len(self._calls)

    @property
    def longest_tokens(self) -> int:
        """Tokens in KV of the call that has most; 0 without calls."""
        return max(
            (d.kv_tokens - d.joined_step + self.steps for d in self._calls.values()), default=0
        )

    @property
    def steps_left(self) -> int:
        """Steps until the first call ends; there must be a call."""
        while self._calls.get(self._ends[0][2].call_id) is not self._ends[0][2]:
            heapq.heappop(self._ends)  # it left before its end
        return self._ends[0][0] - self.steps

    def ended(self) -> list[Decode]:
        """The calls that have all their tokens, by arrival; they are still in the batch."""
        found: list[Decode] = []
        while self._ends and self._ends[0][0] <= self.steps:
            decode = heapq.heappop(self._ends)[2]
            if self._calls.get(decode.call_id) is decode:
                found.append(decode)
        return found

    @property
    def next_blocks(self) -> int:
        """KV blocks that the next step will need."""
        return self._due[self.steps % self._block_tokens]

    def blocks_due(self, first: int, end: int) -> int:
        """KV blocks that the steps [first, end) from now will need; 0 is the next step."""
        if end <= first:
            return 0
        if not self._calls:
            return 0
        size, due = self._block_tokens, self._due
        cycles, rest = divmod(end - first, size)
        at = (self.steps + first) % size
        over = at + rest - size
        some = sum(due[at:]) + sum(due[:over]) if over > 0 else sum(due[at : at + rest])
        return cycles * len(self._calls) + some

    def steps_with_room(self, steps: int, blocks: int) -> int:
        """Steps, at most ``steps``, until so many blocks are used; the next has its own."""
        size = self._block_tokens
        if len(self._calls) * (steps // size + 1) <= blocks:
            return steps
        cycles, blocks = divmod(blocks, len(self._calls))
        fit = 1 + cycles * size
        while fit < steps and self._due[(self.steps + fit) % size] <= blocks:
            blocks -= self._due[(self.steps + fit) % size]
            fit += 1
        return min(fit, steps)

    def _slot(self, decode: Decode) -> int:
        """A call needs a block in steps in which its tokens in KV are a multiple of a block's."""
        return (decode.joined_step - decode.kv_tokens) % self._block_tokens
