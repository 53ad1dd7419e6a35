"""What the plugin adds to vLLM's scheduler: for benchmarks.vllm_eviction.

It runs in vLLM's environment:

    .venv/vllm/bin/python benchmarks/vllm_cost.py

Calls of many programs go through vLLM's own block pool, which has room for half of what they would
use, with vLLM's list of free blocks and with ours. CPU time, so that a busy machine matters less.
"""

import json
from random import Random
from time import thread_time
from types import SimpleNamespace
from typing import Any

from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import BlockHash, make_block_hash_with_group_id

from scepsy.vllm_plugin.free_list import RetainedFreeList
from scepsy.vllm_plugin.retainer import Retainer

PROGRAMS, OWN_BLOCKS, SHARED_BLOCKS, BLOCKS, CALLS = 3_000, 50, 16, 75_000, 2_500
CHAIN = SHARED_BLOCKS + OWN_BLOCKS


class Costs:
    """One pool, and what its calls took."""

    def __init__(self, *, by_value: bool) -> None:
        self.now_s = 0.0
        self.pool: Any = BlockPool(BLOCKS, enable_caching=True, hash_block_size=16)
        self.retainer = None
        if by_value:
            self.retainer = Retainer(self.pool, now_s=lambda: self.now_s)
            self.pool.free_block_queue = RetainedFreeList(
                self.pool.free_block_queue, self.pool.blocks, self.retainer
            )
        self.spent_s: list[float] = []
        """Of each call, but for what vLLM alone does too to find and to cache blocks."""
        self.taken: list[tuple[float, int]] = []
        """Seconds for so many blocks."""

    def call(self, number: int, program: int) -> None:
        first = program * 1000
        contents = [
            BlockHash(b"%032d" % (at if at < SHARED_BLOCKS else first + at)) for at in range(CHAIN)
        ]
        request = SimpleNamespace(
            request_id=str(number), session_id=f"w/r/{program}", block_hashes=contents,
            sampling_params=None, num_prompt_tokens=16 * CHAIN, is_finished=lambda: True,
        )  # fmt: skip
        began_s = thread_time()
        if self.retainer:
            self.retainer.arrived(request)
        spent_s = thread_time() - began_s
        hits = []
        for content in contents:
            if not (found := self.pool.get_cached_block(content, [0])):
                break
            hits += found
        began_s = thread_time()
        self.pool.touch(hits)
        before_s = thread_time()
        new = self.pool.get_new_blocks(CHAIN - len(hits))
        after_s = thread_time()
        if self.retainer:
            self.retainer.scheduled(request)
        spent_s += thread_time() - began_s
        self.taken += [(after_s - before_s, len(new))] if new else []
        for content, block in zip(contents[len(hits) :], new, strict=True):
            self.pool._insert_block_hash(  # noqa: SLF001 - what caching a block comes to
                make_block_hash_with_group_id(content, 0), block, 16
            )
        began_s = thread_time()
        if self.retainer:
            self.retainer.leaving(request, hits + new)
        self.pool.free_blocks(reversed(hits + new))
        self.spent_s.append(spent_s + thread_time() - began_s)


def measure(*, by_value: bool) -> dict[str, float]:
    rng = Random(0)
    costs = Costs(by_value=by_value)
    for number in range(PROGRAMS + CALLS):
        if number == PROGRAMS:
            costs.spent_s.clear()
            costs.taken.clear()
        costs.now_s += rng.expovariate(100.0)
        costs.call(number, rng.randrange(PROGRAMS) if number >= PROGRAMS else number)
    assert costs.retainer is None or costs.retainer.is_on
    blocks = sum(count for _, count in costs.taken)
    each = sorted(1e6 * spent_s / count for spent_s, count in costs.taken)
    return {
        "us_per_block_taken": round(1e6 * sum(spent_s for spent_s, _ in costs.taken) / blocks, 2),
        "us_per_block_taken_median_call": round(each[len(each) // 2], 2),
        "us_per_block_taken_p99_call": round(each[int(0.99 * len(each))], 2),
        "us_per_block_of_a_prompt": round(1e6 * sum(costs.spent_s) / CALLS / CHAIN, 2),
    }


if __name__ == "__main__":
    print(json.dumps({"lru": measure(by_value=False), "value": measure(by_value=True)}))
