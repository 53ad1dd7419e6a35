"""It goes into the vLLM that it knows, and leaves any other as it is, with a warning."""

import sys

import pytest

from scepsy.vllm_plugin import register
from scepsy.vllm_plugin.free_list import RetainedFreeList
from scepsy.vllm_plugin.install import install
from tests.unit.vllm_plugin.made_up_vllm import (
    FullAttentionManager,
    MambaManager,
    Request,
    put_in_place,
)


def untouched(vllm):
    before = {
        (owner, name): member
        for owner in vars(vllm).values()
        for name, member in vars(owner).items()
    }
    return lambda: all(vars(owner).get(name) is was for (owner, name), was in before.items())


@pytest.fixture
def vllm(monkeypatch):
    return put_in_place(monkeypatch)


def test_a_known_vllm_evicts_by_value(vllm, caplog):
    assert install()
    assert install()  # vLLM may load plugins again

    scheduler = vllm.Scheduler(8)
    manager = scheduler.kv_cache_manager
    free_list = manager.block_pool.free_block_queue
    assert isinstance(free_list, RetainedFreeList)
    assert not isinstance(free_list._inner, RetainedFreeList)
    for name, last in (("a/1", 0), ("b/1", 1)):
        for call in range(2):
            hashes = [f"{name}{number}".encode() for number in range(3)]
            request = Request(f"{name}{call}", hashes, name, {"scepsy_last": last * call})
            scheduler.add_request(request)
            assert manager.allocate_slots(request, 3) is not None
            request.finished = True
            manager.free(request)

    stranger = Request("s", [b"s"] * 5, "s")
    scheduler.add_request(stranger)
    assert manager.allocate_slots(stranger, 5) is not None

    cached = {block.block_hash for block in manager.block_pool.blocks}
    assert {b"a/10", b"a/11", b"a/12"} <= cached, "b is over, and was used last"
    assert len(scheduler.waiting) == 5
    assert caplog.records == []


def test_a_reset_empties_the_order_too(vllm):
    install()
    manager = vllm.Scheduler(4).kv_cache_manager
    request = Request("r", [b"a", b"b"], "p")
    manager.allocate_slots(request, 2)
    assert not manager.reset_prefix_cache()
    manager.free(request)

    assert manager.reset_prefix_cache()

    assert manager.block_pool.take(4)
    assert manager.block_pool.free_block_queue.evictions == 0


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0", "unknown"])
def test_an_unknown_version_is_left_alone(monkeypatch, caplog, version):
    is_untouched = untouched(put_in_place(monkeypatch, version))
    assert not install()
    assert is_untouched()
    assert f"stays vLLM's own: this is vLLM {version}, and only 0.32.x is known" in caplog.text


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("KVCacheManager", "pop_blocks_for_free"),
        ("Scheduler", "add_request"),
        ("FreeKVCacheBlockQueue", "prepend_n"),
        ("BlockPool", "get_cached_block"),
    ],
)
def test_a_vllm_without_a_method_is_left_alone(vllm, caplog, owner, name):
    delattr(getattr(vllm, owner), name)
    is_untouched = untouched(vllm)
    assert not install()
    assert is_untouched()
    assert f"vLLM 0.32.0 has no {owner}.{name}" in caplog.text


def test_a_vllm_whose_methods_take_something_else_is_left_alone(vllm, caplog):
    vllm.KVCacheManager.free = lambda self, request_id: None
    assert not install()
    assert "has no request of KVCacheManager.free" in caplog.text


def test_a_vllm_with_another_way_to_take_blocks_is_left_alone(vllm, caplog):
    vllm.FreeKVCacheBlockQueue.popright = lambda self: None
    assert not install()
    assert "changes its free blocks by popright, too" in caplog.text


def test_a_vllm_without_a_module_is_left_alone(vllm, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm.v1.core.block_pool", None)
    assert not install()
    assert "there is no vllm.v1.core.block_pool.BlockPool" in caplog.text


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("enable_caching", False, ""),
        (
            "kinds",
            (FullAttentionManager, MambaManager),
            "this model has FullAttentionManager, MambaManager",
        ),
        ("kinds", (MambaManager,), "only full attention is supported"),
    ],
)
def test_an_engine_that_it_does_not_suit_is_left_alone(vllm, caplog, attribute, value, told):
    setattr(vllm.KVCacheManager, attribute, value)
    assert install()
    scheduler = vllm.Scheduler(4)
    scheduler.add_request(Request("r"))
    free_list = scheduler.kv_cache_manager.block_pool.free_block_queue
    assert not isinstance(free_list, RetainedFreeList)
    assert told in caplog.text


def test_an_engine_with_other_attributes_is_left_alone(vllm, caplog):
    as_known = vllm.KVCacheManager.__init__

    def make(self, size):
        as_known(self, size)
        del self.coordinator

    vllm.KVCacheManager.__init__ = make
    assert install()
    free_list = vllm.KVCacheManager(4).block_pool.free_block_queue
    assert not isinstance(free_list, RetainedFreeList)
    assert "no attribute 'coordinator'" in caplog.text


@pytest.mark.parametrize(
    ("named", "is_in"), [(None, False), ("", False), ("other", False), ("other,scepsy", True)]
)
def test_it_is_put_in_only_where_it_is_named(vllm, monkeypatch, named, is_in):
    if named is None:
        monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("VLLM_PLUGINS", named)
    is_untouched = untouched(vllm)
    register()
    assert is_untouched() is not is_in
