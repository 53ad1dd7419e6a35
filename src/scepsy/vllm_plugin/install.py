"""Puts a retention policy into vLLM, if it is a vLLM that is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from inspect import signature
from typing import Any

from scepsy.vllm_plugin.free_list import OWN_METHODS, READING_METHODS, RetainedFreeList
from scepsy.vllm_plugin.retainer import Retainer, log

KNOWN_VERSIONS = ("0.32",)
"""Versions that the tests run on; a build's suffix and the last number do not matter."""
_RETAINER = "_scepsy_retainer"
_CORE = "vllm.v1.core"
_FULL_ATTENTION = "FullAttentionManager"
"""vLLM's manager of a cache in which a prompt's blocks are all kept until it has ended."""
_KEPT = "the order of eviction stays vLLM's own"


class _Unknown(Exception):  # noqa: N818 - an outcome, not a fault
    """This is not the vLLM that we know."""


@dataclass(frozen=True, slots=True)
class _Engine:
    """Classes of vLLM that the policy must hear from."""

    scheduler: Any
    manager: Any
    pool: Any
    free_list: Any


def install() -> bool:
    """Make every engine of this process that is created from now on evict by value.

    Returns:
        Whether that is so. If it is not, a warning says why, and vLLM is as it was.
    """
    try:
        engine = _find()
    except _Unknown as why:
        log.warning("%s: %s", _KEPT, why)
        return False
    if not hasattr(engine.manager, _RETAINER):  # plugins may be loaded more than once
        setattr(engine.manager, _RETAINER, None)
        _patch(engine)
    log.info("blocks of the KV cache are evicted by value")
    return True


def _find() -> _Engine:
    version = str(getattr(import_module("vllm"), "__version__", "unknown"))
    if ".".join(version.split(".")[:2]) not in KNOWN_VERSIONS:
        known = ", ".join(f"{name}.x" for name in KNOWN_VERSIONS)
        raise _Unknown(f"this is vLLM {version}, and only {known} is known")
    engine = _Engine(
        scheduler=_get(f"{_CORE}.sched.scheduler", "Scheduler"),
        manager=_get(f"{_CORE}.kv_cache_manager", "KVCacheManager"),
        pool=_get(f"{_CORE}.block_pool", "BlockPool"),
        free_list=_get(f"{_CORE}.kv_cache_utils", "FreeKVCacheBlockQueue"),
    )
    if missing := list(_missing(engine)):
        raise _Unknown(f"vLLM {version} has no {', '.join(missing)}")
    listed = {name for name in vars(engine.free_list) if not name.startswith("_")}
    if more := listed - OWN_METHODS - READING_METHODS:
        raise _Unknown(f"vLLM {version} changes its free blocks by {', '.join(sorted(more))}, too")
    return engine


def _get(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise _Unknown(f"there is no {module}.{name}") from None


def _missing(engine: _Engine) -> Iterator[str]:
    """Methods that we replace or call, with the parameters that we need."""
    needed = [
        (engine.scheduler, "add_request", ("request",)),
        (engine.manager, "allocate_slots", ("request",)),
        (engine.manager, "free", ("request",)),
        (engine.manager, "pop_blocks_for_free", ("request",)),
        (engine.manager, "reset_prefix_cache", ()),
        (engine.pool, "get_cached_block", ("block_hash", "kv_cache_group_ids")),
        *((engine.free_list, name, ()) for name in sorted(OWN_METHODS)),
    ]
    for owner, name, parameters in needed:
        method = getattr(owner, name, None)
        if not callable(method):
            yield f"{owner.__name__}.{name}"
        elif lacking := [each for each in parameters if each not in signature(method).parameters]:
            yield f"{', '.join(lacking)} of {owner.__name__}.{name}"


def _patch(engine: _Engine) -> None:
    manager, scheduler = engine.manager, engine.scheduler

    @_around(manager, "__init__")
    def init(make: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        setattr(self, _RETAINER, _attach(self))

    @_around(scheduler, "add_request")
    def add(proceed: Callable[..., Any], self: Any, request: Any) -> Any:
        if retainer := getattr(self.kv_cache_manager, _RETAINER, None):
            retainer.arrived(request)
        return proceed(self, request)

    @_around(manager, "allocate_slots")
    def allocate(
        proceed: Callable[..., Any], self: Any, request: Any, *args: Any, **kwargs: Any
    ) -> Any:
        blocks = proceed(self, request, *args, **kwargs)
        if blocks is not None and (retainer := getattr(self, _RETAINER)):
            retainer.scheduled(request)
        return blocks

    @_around(manager, "free")
    @_around(manager, "pop_blocks_for_free")
    def free(proceed: Callable[..., Any], self: Any, request: Any) -> Any:
        if retainer := getattr(self, _RETAINER):
            retainer.leaving(request, self.coordinator.get_blocks(request.request_id)[0])
        return proceed(self, request)

    @_around(manager, "reset_prefix_cache")
    def reset(proceed: Callable[..., bool], self: Any) -> bool:
        is_reset = proceed(self)
        if is_reset and (retainer := getattr(self, _RETAINER)):
            retainer.emptied()
        return is_reset


def _around(owner: Any, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Call a function in a method's place, with the method as its first argument."""
    original = getattr(owner, name)

    def replace(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return function(original, self, *args, **kwargs)

        setattr(owner, name, method)
        return function

    return replace


def _attach(manager: Any) -> Retainer | None:
    """Put the policy between a manager and its free blocks, where that makes sense."""
    try:
        if not manager.enable_caching:
            return None
        kinds = [type(each).__name__ for each in manager.coordinator.single_type_managers]
        if kinds != [_FULL_ATTENTION]:
            named = ", ".join(kinds)
            log.warning("%s: only full attention is supported, and this model has %s", _KEPT, named)
            return None
        pool = manager.block_pool
        retainer = Retainer(pool)
        free_list = RetainedFreeList(pool.free_block_queue, pool.blocks, retainer)
        manager.coordinator.get_blocks("")  # answers for calls that it does not know
        assert free_list.fake_free_list_head is not None
    except (AttributeError, AssertionError, KeyError, TypeError) as fault:
        log.warning("%s: %r", _KEPT, fault)
        return None
    pool.free_block_queue = free_list
    return retainer
