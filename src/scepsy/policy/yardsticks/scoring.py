"""Prefix-aware routing by a score: as NVIDIA Dynamo's and llm-d's routers do it.

``docs/reference/yardsticks/dynamo.md`` and ``docs/reference/yardsticks/llm-d.md``
"""

from collections.abc import Mapping

from scepsy.model.execution import ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity
from scepsy.policy.prefix_index import PrefixIndex
from scepsy.policy.route import CallView
from scepsy.policy.yardsticks.eager import Eager

_ALL = 1 << 20
"""Replicas that are told of one prompt: there are fewer."""


class _Indexed(Eager):
    """Follows what each replica has cached: the blocks used last, as many as it has room for."""

    _index: PrefixIndex
    _found: Mapping[ReplicaName, int]
    """For the call that was looked up last."""

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:
        """It may be chosen. All replicas are taken to have the room of the first."""
        if not self.workers:
            self._index = PrefixIndex(capacity.kv_tokens // capacity.block_tokens)
        super().joined(now_s, replica, capacity)

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """It may not, and its blocks are gone."""
        super().lost(now_s, replica)
        self._index.forget(replica)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """Its blocks were used last, when it let go of them."""
        if (name := self._sent.get(call.id)) is not None:
            self._index.saw(name, call.prefix_blocks)
        super().ended(now_s, call, result)

    def cached_tokens(self, call: CallView, replica: ReplicaName) -> int:
        """By the index; from now on the replica has the whole prompt."""
        cached = self._found.get(replica, 0)
        self._index.saw(replica, call.prefix_blocks)
        return cached

    def look_up(self, call: CallView) -> Mapping[ReplicaName, int]:
        """Prompt tokens that each replica is thought to have."""
        size = next(iter(self.workers.values())).capacity.block_tokens
        most = call.prompt_tokens - 1
        hits = self._index.hits(call.prefix_blocks, _ALL)
        self._found = {name: min(most, blocks * size) for name, blocks in hits.items()}
        return self._found


class KvRouter(_Indexed):
    """Dynamo's: least of ``weight * prefill blocks + decode blocks``."""

    def __init__(self, overlap_weight: float = 1.0) -> None:
        """Args: overlap_weight: of prompt tokens to compute, against KV in use."""
        super().__init__()
        self._weight = overlap_weight

    def choose(self, call: CallView) -> ReplicaName:
        """Prompt tokens to compute, its own and those sent before, and KV that calls hold."""
        cached = self.look_up(call)

        def cost(name: ReplicaName) -> tuple[float, int, ReplicaName]:
            worker = self.workers[name]
            prefill_tokens = worker.prefill_tokens + call.prompt_tokens - cached.get(name, 0)
            return self._weight * prefill_tokens + worker.held_tokens, len(worker.calls), name

        return min(self.workers, key=cost)


class LlmD(_Indexed):
    """llm-d's: most of the weighted scores of prefix, queue and KV in use, each from 0 to 1."""

    def __init__(self, prefix: float = 3.0, queue: float = 2.0, kv: float = 2.0) -> None:
        """Weights of the three scores."""
        super().__init__()
        self._weights = prefix, queue, kv

    def choose(self, call: CallView) -> ReplicaName:
        """The best score; of equal ones, the fewest calls."""
        cached = self.look_up(call)
        queues = {name: len(worker.uncached_tokens) for name, worker in self.workers.items()}
        least, most = min(queues.values()), max(queues.values())
        prefix, queue, kv = self._weights

        def score(name: ReplicaName) -> float:
            worker = self.workers[name]
            free = 1.0 - min(1.0, worker.held_tokens / worker.capacity.kv_tokens)
            short = (most - queues[name]) / (most - least) if most > least else 1.0
            found = cached.get(name, 0) / call.prompt_tokens
            return prefix * found + queue * short + kv * free

        return min(self.workers, key=lambda n: (-score(n), len(self.workers[n].calls), n))
