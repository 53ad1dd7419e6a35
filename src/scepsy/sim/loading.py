"""KV blocks that are on their way to an engine, from host memory or from another replica."""

from heapq import heapify, heappop, heappush

from scepsy.sim.host_tier import HostTier
from scepsy.sim.kv_cache import KvCache
from scepsy.sim.sequence import Sequence

_INF = float("inf")


class Loading:
    """The calls that wait for blocks, and until when."""

    def __init__(self, cache: KvCache, host: HostTier) -> None:
        self._cache = cache
        self._host = host
        self._by_end: list[tuple[float, int, Sequence]] = []  # a heap
        self.next_s = _INF
        """When the first has its blocks (s); infinite where none waits."""

    def begin(self, now_s: float, sequence: Sequence, chain: tuple[int, ...]) -> bool:
        """Bring what can be had of a chain beyond what the call holds; say if it must wait for it.

        It comes from host memory, or from another replica where that has more. It counts as in
        the cache from now on, and the call as holding it.
        """
        if not (self._host.blocks or sequence.call.fetched_blocks):
            return False
        hits = len(sequence.held)
        on_host = self._host.hits(chain[hits:])
        fetched = min(sequence.call.fetched_blocks, len(chain))
        if not on_host and fetched <= hits:
            return False
        if hits + on_host >= fetched:
            found = hits + on_host
            ready_s = self._host.load(now_s, chain[hits:found])
        else:
            found = fetched
            ready_s = now_s + sequence.call.fetch_s * (found - hits) / found
        sequence.held += self._cache.share(chain[hits:found])
        sequence.registered = found
        if ready_s <= now_s:
            return False
        heappush(self._by_end, (ready_s, sequence.order, sequence))
        self.next_s = self._by_end[0][0]
        return True

    def ready(self, now_s: float) -> list[Sequence]:
        """Those that have their blocks by now, which wait no longer."""
        found: list[Sequence] = []
        while self._by_end and self._by_end[0][0] <= now_s:
            found.append(heappop(self._by_end)[2])
        self.next_s = self._by_end[0][0] if self._by_end else _INF
        return found

    def remove(self, sequence: Sequence) -> None:
        """One that left the engine, if it waits."""
        self._by_end = [entry for entry in self._by_end if entry[2] is not sequence]
        heapify(self._by_end)
        self.next_s = self._by_end[0][0] if self._by_end else _INF
