"""As much of vLLM's scheduler as the plugin touches, in vLLM's names."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace


@dataclass(eq=False)
class Block:
    block_id: int
    ref_cnt: int = 0
    block_hash: bytes | None = None
    prev_free_block: "Block | None" = None
    next_free_block: "Block | None" = None


@dataclass(eq=False)
class Request:
    request_id: str
    block_hashes: list[bytes] = field(default_factory=list)
    session_id: str | None = None
    extra_args: dict | None = None
    num_prompt_tokens: int = 0
    finished: bool = False

    @property
    def sampling_params(self):
        return SimpleNamespace(extra_args=self.extra_args)

    def is_finished(self):
        return self.finished


class FreeKVCacheBlockQueue:
    def __init__(self, blocks):
        self.fake_free_list_head, self.fake_free_list_tail = Block(-1), Block(-1)
        self._link(self.fake_free_list_head, self.fake_free_list_tail)
        self.num_free_blocks = 0
        self.append_n(blocks)

    @staticmethod
    def _link(left, right):
        left.next_free_block, right.prev_free_block = right, left

    def _insert(self, block, before):
        self._link(before.prev_free_block, block)
        self._link(block, before)
        self.num_free_blocks += 1

    def popleft(self):
        if not self.num_free_blocks:
            raise ValueError("none is free")
        block = self.fake_free_list_head.next_free_block
        self.remove(block)
        return block

    def popleft_n(self, n):
        return [self.popleft() for _ in range(n)]

    def remove(self, block):
        self._link(block.prev_free_block, block.next_free_block)
        block.prev_free_block = block.next_free_block = None
        self.num_free_blocks -= 1

    def append(self, block):
        self._insert(block, self.fake_free_list_tail)

    def append_n(self, blocks):
        for block in blocks:
            self.append(block)

    def prepend_n(self, blocks):
        before = self.fake_free_list_head.next_free_block
        for block in blocks:
            self._insert(block, before)

    def get_all_free_blocks(self):
        found, at = [], self.fake_free_list_head.next_free_block
        while at is not self.fake_free_list_tail:
            found.append(at)
            at = at.next_free_block
        return found


class BlockPool:
    hash_block_size = 4

    def __init__(self, size):
        self.blocks = [Block(number) for number in range(size)]
        self.free_block_queue = FreeKVCacheBlockQueue(self.blocks)
        self.cached = {}

    def get_cached_block(self, block_hash, kv_cache_group_ids):
        block = self.cached.get(block_hash)
        return None if block is None else [block]

    def take(self, count):
        taken = self.free_block_queue.popleft_n(count)
        for block in taken:
            assert not block.ref_cnt, "a block that is held was given away"
            self.cached.pop(block.block_hash, None)
            block.block_hash, block.ref_cnt = None, 1
        return taken

    def touch(self, blocks):
        for block in blocks:
            if not block.ref_cnt:
                self.free_block_queue.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, blocks):
        unheld = []
        for block in blocks:
            block.ref_cnt -= 1
            if not block.ref_cnt:
                unheld.append(block)
        self.free_block_queue.prepend_n([each for each in unheld if each.block_hash is None])
        self.free_block_queue.append_n([each for each in unheld if each.block_hash is not None])


class FullAttentionManager:
    pass


class MambaManager:
    pass


class KVCacheManager:
    enable_caching = True
    kinds = (FullAttentionManager,)

    def __init__(self, size):
        self.block_pool = BlockPool(size)
        self.held = {}
        self.coordinator = SimpleNamespace(
            get_blocks=lambda name: (self.held.get(name, []),),
            single_type_managers=[kind() for kind in self.kinds],
        )

    def allocate_slots(self, request, blocks):
        """Hold what is cached of a call, and new blocks for the rest of its first ``blocks``."""
        pool = self.block_pool
        hits = []
        for content in request.block_hashes:
            if (found := pool.get_cached_block(content, [0])) is None:
                break
            hits += found
        idle = sum(not each.ref_cnt for each in hits)
        if blocks - len(hits) > pool.free_block_queue.num_free_blocks - idle:
            return None
        pool.touch(hits)
        new = pool.take(blocks - len(hits))
        for block, content in zip(new, request.block_hashes[len(hits) :], strict=False):
            block.block_hash = content
            pool.cached.setdefault(content, block)
        self.held[request.request_id] = hits + new
        return new

    def free(self, request):
        self.block_pool.free_blocks(reversed(self.held.pop(request.request_id, [])))

    def pop_blocks_for_free(self, request):
        return self.held.pop(request.request_id, [])

    def reset_prefix_cache(self):
        if self.held:
            return False
        for block in self.block_pool.blocks:
            block.block_hash = None
        self.block_pool.cached.clear()
        return True


class Scheduler:
    def __init__(self, size):
        self.kv_cache_manager = KVCacheManager(size)
        self.waiting = []

    def add_request(self, request):
        self.waiting.append(request)


def put_in_place(monkeypatch, version="0.32.0"):
    """Make it what ``import vllm`` finds, with classes of its own so that patches do not last."""
    core = "vllm.v1.core"
    where = {
        f"{core}.sched.scheduler": Scheduler,
        f"{core}.kv_cache_manager": KVCacheManager,
        f"{core}.block_pool": BlockPool,
        f"{core}.kv_cache_utils": FreeKVCacheBlockQueue,
    }
    fresh = {}
    for name in ("vllm", "vllm.v1", core, f"{core}.sched", *where):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vllm"].__version__ = version
    for module, owner in where.items():
        fresh[owner.__name__] = type(owner.__name__, (), dict(vars(owner)))
        setattr(sys.modules[module], owner.__name__, fresh[owner.__name__])
    fresh["Scheduler"].__init__ = _scheduler_of(fresh["KVCacheManager"])
    return SimpleNamespace(**fresh)


def _scheduler_of(manager):
    def make(self, size):
        self.kv_cache_manager = manager(size)
        self.waiting = []

    return make
