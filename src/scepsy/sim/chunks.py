"""What a step computes of prompts: chunks of those in the batch, within the step's budget."""

from scepsy.sim.kv_cache import KvCache
from scepsy.sim.sequence import Sequence


class Chunks:
    """The prompt tokens of one step."""

    def __init__(self, cache: KvCache, block_tokens: int) -> None:
        self._cache = cache
        self._block_tokens = block_tokens
        self.left_tokens = 0
        """Of the step's budget."""
        self.tokens = 0
        """Prompt tokens that the step computes."""
        self.context_tokens = 0
        """Tokens in KV that those attend to."""

    def begin(self, budget_tokens: int) -> None:
        """A new step."""
        self.left_tokens = budget_tokens
        self.tokens = self.context_tokens = 0

    def take(self, sequence: Sequence) -> None:
        """As much of a call's prompt as the budget has left."""
        computed, chunk = sequence.computed_tokens, self.left_tokens
        if (rest := sequence.target_tokens - computed) < chunk:
            chunk = rest
        sequence.chunk_tokens = chunk
        if not chunk:
            return
        self.left_tokens -= chunk
        self.tokens += chunk
        self.context_tokens += computed
        # As in vLLM, calls scheduled from now on, even in this step, can share these blocks.
        registered = sequence.registered
        if fresh := sequence.chain[registered : (computed + chunk) // self._block_tokens]:
            sequence.held += self._cache.share(fresh)
            sequence.registered = registered + len(fresh)
