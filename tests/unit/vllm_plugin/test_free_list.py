"""Blocks are neither lost nor given away twice, and by LRU they go as vLLM lets them go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scepsy.policy.retain import Lru
from scepsy.policy.retain_value import ByValue
from scepsy.vllm_plugin.free_list import RetainedFreeList
from scepsy.vllm_plugin.retainer import Retainer
from tests.unit.vllm_plugin.made_up_vllm import BlockPool

BLOCKS = 12
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "cache", "touch", "free"]), st.integers(0, 5)), max_size=60
)


def pool_by(retention):
    pool = BlockPool(BLOCKS)
    retainer = Retainer(pool, retention=retention, now_s=lambda: 0.0)
    pool.free_block_queue = RetainedFreeList(pool.free_block_queue, pool.blocks, retainer)
    return pool, retainer


def act(pool, steps):
    """Take, cache, touch and free blocks as told; give which were taken, in order."""
    taken, held = [], []
    for at, (what, number) in enumerate(steps):
        if what == "take":
            new = pool.take(min(number, pool.free_block_queue.num_free_blocks))
            taken += [block.block_id for block in new]
            held += [[block] for block in new]
        elif what == "cache":
            for (block,) in held[:number]:
                if block.block_hash is None:
                    block.block_hash = f"{at}/{block.block_id}".encode()
                    pool.cached[block.block_hash] = block
        elif what == "touch":
            cached = sorted(pool.cached.values(), key=lambda block: block.block_id)[:number]
            pool.touch(cached)
            held += [[block] for block in cached]
        else:
            for blocks in [held.pop(0) for _ in range(min(number, len(held)))]:
                pool.free_blocks(blocks)
        in_use = {block.block_id for blocks in held for block in blocks}
        free = [block.block_id for block in pool.free_block_queue.get_all_free_blocks()]
        assert len(free) == pool.free_block_queue.num_free_blocks
        assert sorted([*in_use, *free]) == list(range(BLOCKS))
    return taken


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_by_lru_blocks_go_as_vllm_lets_them_go(steps):
    ours, retainer = pool_by(Lru())
    assert act(ours, steps) == act(BlockPool(BLOCKS), steps)
    assert retainer.is_on


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_by_value_no_block_is_lost_or_given_twice(steps):
    pool, retainer = pool_by(ByValue())
    act(pool, steps)
    assert retainer.is_on


@given(steps=STEPS, good_for=st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_a_policy_that_fails_midway_leaves_vllm_a_whole_list(steps, good_for):
    class Failing(Lru):
        left = good_for

        def evict(self, now_s):
            if not self.left:
                raise RuntimeError("no more")
            self.left -= 1
            return super().evict(now_s)

    pool, _ = pool_by(Failing())
    assert act(pool, steps) == act(BlockPool(BLOCKS), steps)


def test_a_block_that_is_not_free_is_never_given(caplog):
    class Wrong(Lru):
        def evict(self, now_s):
            return 0

    pool, retainer = pool_by(Wrong())
    held, *cached = pool.take(3)
    assert held.block_id == 0
    for block in cached:
        block.block_hash = b"%d" % block.block_id
    pool.free_blocks(cached)

    pool.take(BLOCKS - 1)

    assert not retainer.is_on
    assert "block 0 was chosen, which is not free" in caplog.text


def test_only_blocks_that_are_cached_and_free_are_the_policys():
    pool, retainer = pool_by(ByValue())
    cached, uncached = pool.take(2)
    cached.block_hash, cached.ref_cnt, uncached.ref_cnt = b"c", 0, 0
    pool.free_block_queue.append_n([cached, uncached])
    assert retainer.keeps(cached.block_id)
    assert not retainer.keeps(uncached.block_id)

    pool.touch([cached])
    assert not retainer.keeps(cached.block_id)


def test_of_an_empty_list_nothing_is_taken():
    pool, _ = pool_by(Lru())
    pool.take(BLOCKS)
    with pytest.raises(ValueError, match="none is free"):
        pool.free_block_queue.popleft()
