"""Tells a retention policy what happens in one vLLM engine, and what it says which block goes.

Whatever goes wrong here is logged once, and vLLM goes on by its own order: no request fails for it.
"""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from time import monotonic
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from scepsy.policy.retain import Retention
from scepsy.policy.retain_value import ByValue
from scepsy.vllm_plugin.free_list import Block
from scepsy.vllm_plugin.programs import Programs, Request, Whose

log = logging.getLogger("vllm.scepsy")  # below vLLM's, so that its handlers write what we log

P = ParamSpec("P")
R = TypeVar("R")


class Pool(Protocol):
    """vLLM's block pool."""

    hash_block_size: int

    def get_cached_block(self, block_hash: Any, kv_cache_group_ids: list[int]) -> Any:
        """The cached block of this content in each group, or None."""
        ...


def _or_give_up(
    act: Callable[Concatenate["Retainer", P], R],
) -> Callable[Concatenate["Retainer", P], R | None]:
    """Leave all to vLLM from the first fault on; give None then."""

    @wraps(act)
    def guarded(self: "Retainer", /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if not self.is_on:
            return None
        try:
            return act(self, *args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - whatever it is, requests must go on
            self.give_up(repr(fault), fault)
            return None

    return guarded


class Retainer:
    """One engine's retention policy, and the calls that the engine has."""

    def __init__(
        self,
        pool: Pool,
        *,
        retention: Retention | None = None,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """No call has come and no block is cached.

        Args:
            pool: the engine's.
            retention: by value where it is None.
            now_s: the clock.
        """
        self.is_on = True
        """False when vLLM's own order holds, since something went wrong."""
        self.now_s = now_s
        self._pool = pool
        self._retention: Retention = ByValue() if retention is None else retention
        self._programs = Programs(pool.hash_block_size)
        self._calls: dict[str, Whose] = {}
        self._waiting: set[str] = set()

    def give_up(self, why: str, fault: BaseException | None = None) -> None:
        """Leave all to vLLM from now on."""
        if self.is_on:
            self.is_on = False
            log.warning("blocks are evicted by vLLM's order from now on: %s", why, exc_info=fault)

    # ---- Calls

    @_or_give_up
    def arrived(self, request: Request) -> None:
        """A call has come, and waits."""
        if request.request_id in self._calls:
            return  # more input for a call that goes on
        whose = self._programs.whose(request)
        log.debug("call %s is of program %s", request.request_id, whose.program)
        self._calls[request.request_id] = whose
        self._wait(self.now_s(), request, whose, self._cached(request))

    @_or_give_up
    def scheduled(self, request: Request) -> None:
        """A call holds blocks: it waits no more, if it did."""
        if request.request_id in self._waiting:
            self._waiting.discard(request.request_id)
            whose = self._calls[request.request_id]
            self._retention.scheduled(self.now_s(), whose.program)

    @_or_give_up
    def leaving(self, request: Request, held: Sequence[Block]) -> None:
        """A call is about to let go of its blocks, as it has ended or must wait again.

        Args:
            request: the call.
            held: its blocks, from the first on.
        """
        whose = self._calls.get(request.request_id)
        if whose is None:
            return
        now_s = self.now_s()
        if request.request_id in self._waiting:  # it never ran, and may be called again
            chain = self._cached(request)
        else:
            chain = [block.block_id for block in held if block.block_hash is not None]
        self._retention.ended(now_s, whose.program, whose.kind, chain)
        if not request.is_finished():
            self._wait(now_s, request, whose, chain)
            return
        del self._calls[request.request_id]
        self._waiting.discard(request.request_id)
        self._programs.ended(whose, request)
        if whose.is_last:
            self._retention.over(now_s, whose.program)

    def _wait(self, now_s: float, request: Request, whose: Whose, chain: Sequence[int]) -> None:
        self._waiting.add(request.request_id)
        self._retention.arrived(now_s, whose.program, chain)

    def _cached(self, request: Request) -> list[int]:
        find = self._pool.get_cached_block
        chain = []
        for content in request.block_hashes:
            found = find(content, [0])
            if not found:
                break
            chain.append(found[0].block_id)
        return chain

    # ---- Blocks: see free_list.Order

    def keeps(self, block: int) -> bool:
        """Whether it is for the policy to say when this block goes."""
        return self.is_on and block in self._retention

    @_or_give_up
    def keep(self, blocks: Sequence[int]) -> None:
        """Nobody holds these cached blocks any more."""
        self._retention.keep(blocks)

    @_or_give_up
    def wake(self, block: int) -> None:
        """A block is held again."""
        if block in self._retention:
            self._retention.wake((block,))

    @_or_give_up
    def evict(self) -> int:
        """The block to go."""
        return self._retention.evict(self.now_s())

    @_or_give_up
    def emptied(self) -> None:
        """Nothing is cached any more."""
        now_s = self.now_s()
        while len(self._retention):
            self._retention.evict(now_s)
