from scepsy.sim.kv_cache import KvCache


def test_a_prefix_is_found_again_after_its_call_left() -> None:
    cache = KvCache(4)
    assert cache.hold((1, 2), 3) == 0
    assert cache.share((1, 2)) == [1, 2]
    cache.release([1, 2], 1)
    assert (cache.used_blocks, cache.idle_blocks, cache.available_blocks) == (0, 2, 4)
    assert cache.hold((1, 2, 3), 3) == 2
    assert cache.used_blocks == 3


def test_what_was_unused_for_longest_goes_first_and_the_end_of_a_prompt_before_its_start() -> None:
    cache = KvCache(4)
    for chain in ((1, 2), (3, 4)):
        cache.hold((), 2)
        cache.share(chain)
        cache.release(chain, 0)
    cache.take(3)
    cache.release((), 3)
    assert cache.hold((3, 4), 2) == 1  # 2, 1 and then 4 made room
    assert cache.hold((1,), 1) == 0


def test_what_does_not_fit_changes_nothing() -> None:
    cache = KvCache(3)
    cache.hold((), 2)
    cache.share((1, 2))
    cache.release((1, 2), 0)
    assert cache.hold((1, 2), 4) is None
    assert (cache.used_blocks, cache.idle_blocks) == (0, 2)


def test_a_shared_block_is_used_until_its_last_holder_leaves() -> None:
    cache = KvCache(3)
    cache.hold((), 1)
    cache.share((1,))
    assert cache.hold((1,), 1) == 1
    assert cache.used_blocks == 1
    cache.release((1,), 0)
    assert cache.used_blocks == 1
    cache.release((1,), 0)
    assert cache.used_blocks == 0


def test_a_twin_keeps_its_own_block() -> None:
    cache = KvCache(3)
    for _ in range(2):
        cache.hold((), 1)
    assert cache.share((1,)) == [1]
    assert cache.share((1,)) == []
    assert cache.used_blocks == 2


def test_blocks_of_an_answer_stay_cached() -> None:
    cache = KvCache(3)
    cache.hold((), 2)
    cache.release((), 2, cacheable=(7, 8))
    assert cache.hold((7, 8, 9), 3) == 2
