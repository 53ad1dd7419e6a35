"""The contexts of live executions: which one a call extends, and which have a claim on room."""

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count

from scepsy.model.execution import ExecutionId
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_call import Live, Waiting
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.learned_hold import Holds
from scepsy.policy.program import Program
from scepsy.policy.program_table import Programs
from scepsy.policy.route import CallView

_CONTEXTS = 4
"""Of one execution that are remembered."""


def match(live: Live, call: CallView) -> tuple[Context | None, int]:
    """The context that has most of a prompt, and how many of its blocks."""
    best, most = None, 0
    for context in live.contexts:
        blocks = context.shared_blocks(call.prefix_blocks)
        if blocks > most and context.replica is not None:
            best, most = context, blocks
    return best, most


class Contexts:
    """Keeps them, and lets their claims lapse."""

    def __init__(
        self, settings: Settings, programs: Programs, changed: dict[Replica, None]
    ) -> None:
        """There are none.

        Args:
            settings: whether contexts have claims, and what room costs.
            programs: what is known of the executions.
            changed: replicas that get more room are added to it.
        """
        self._settings, self._programs, self._changed = settings, programs, changed
        self._holds = Holds(programs.learned)
        self._live: OrderedDict[ExecutionId, Live] = OrderedDict()
        self._claims: list[tuple[float, int, int, Context]] = []  # a heap
        self._host_claims: list[tuple[float, int, int, Context]] = []  # another
        self._serial = count()

    def __len__(self) -> int:
        return len(self._live)

    def live(self, execution: ExecutionId) -> Live:
        """What is kept of an execution; beyond as many as the table of programs holds, of fewer."""
        found = self._live.get(execution)
        if found is None:
            found = self._live[execution] = Live()
            if len(self._live) > self._programs.limits.programs:
                oldest = next(iter(self._live))
                if self._live[oldest].calls:
                    self._live.move_to_end(oldest)
                else:
                    self.forget(oldest)
        return found

    def forget(self, execution: ExecutionId) -> None:
        """It is over."""
        live = self._live.pop(execution, None)
        if live is not None:
            live.is_over = True
            for context in live.contexts:
                self.drop(context)
            live.contexts = []

    def lost(self, replica: Replica) -> None:
        """What was there is gone."""
        for live in self._live.values():
            for context in live.contexts:
                if context.replica is replica:
                    context.vanish()
            live.contexts = [each for each in live.contexts if each.replica is not None]

    def is_claimed(self, execution: ExecutionId) -> bool:
        """Whether any of its contexts has a claim."""
        live = self._live.get(execution)
        return live is not None and any(each.claim_until_s >= 0 for each in live.contexts)

    @property
    def next_lapse_s(self) -> float:
        """When a claim lapses (s); infinite where there is none."""
        claims, host_claims = self._claims, self._host_claims
        while claims and claims[0][2] != claims[0][3].turn:
            heappop(claims)
        while host_claims and host_claims[0][2] != host_claims[0][3].host_turn:
            heappop(host_claims)
        at_s = claims[0][0] if claims else float("inf")
        return min(at_s, host_claims[0][0]) if host_claims else at_s

    def keep(self, now_s: float, call: Waiting, tokens: int) -> None:
        """A call's KV is the context of the next one, with a claim while that is worth it."""
        live, replica, context = call.live, call.replica, call.context
        assert replica is not None
        if context is None or context.calls or context.replica is None:
            context = Context()
            live.contexts = [each for each in live.contexts if each.replica is not None]
            live.contexts.append(context)
            if len(live.contexts) > _CONTEXTS:
                self.drop(live.contexts.pop(0))
        else:
            replica.release(context)
        context.tokens = tokens
        context.remember(len(call.view.prefix_blocks), call.marks)
        replica.keep(context)
        program = self._programs.get(call.view.execution)
        if not self._settings.holds or program is None:
            return
        capacity = replica.capacity
        lost_s = again_s = capacity.prefill_s(tokens)
        if tokens <= capacity.host_tokens:
            restored_s = min(again_s, tokens * capacity.host_token_s)
            saved_s, lost_s = again_s - restored_s, restored_s
            host_s = self._hold_s(program, tokens / capacity.host_tokens, saved_s)
            if host_s > 0:
                replica.claim_host(context)
                at = now_s + host_s
                heappush(self._host_claims, (at, next(self._serial), context.host_turn, context))
        hold_s = self._hold_s(program, tokens / capacity.kv_tokens, lost_s)
        if hold_s > 0:
            replica.claim(context, now_s + hold_s)
            heappush(self._claims, (now_s + hold_s, next(self._serial), context.turn, context))

    def _hold_s(self, program: Program, room_fraction: float, saved_s: float) -> float:
        """For so long a claim on a part of a memory is worth what it saves."""
        if saved_s <= 0:
            return 0.0
        return self._holds.hold_s(program, self._settings.price * room_fraction / saved_s)

    def want(self, context: Context) -> bool:
        """A call waits for it: its claim on host memory lasts until that goes or leaves.

        Returns:
            Whether it is worth waiting for: it has a claim, or there is room for one.
        """
        replica = context.replica
        assert replica is not None
        if not replica.capacity.host_tokens:
            return True
        if context.on_host and not context.is_live and not replica.takes_on(context.tokens):
            return False
        replica.claim_host(context)
        context.is_wanted = True
        return True

    def unwant(self, context: Context) -> None:
        """The call has left: the context stays without a claim on host memory."""
        context.is_wanted = False
        if context.replica is not None:
            context.replica.unclaim_host(context)
            self._changed[context.replica] = None

    def is_live(self, execution: ExecutionId) -> bool:
        """Whether any of its contexts has a claim on host memory."""
        live = self._live.get(execution)
        return live is not None and any(each.is_live for each in live.contexts)

    def lapse(self, now_s: float) -> None:
        """Claims whose time is over give up their room."""
        claims = self._claims
        while claims and (claims[0][0] <= now_s or claims[0][2] != claims[0][3].turn):
            _, _, turn, context = heappop(claims)
            if turn == context.turn and context.replica is not None:
                context.replica.unclaim(context)
                self._changed[context.replica] = None

        claims = self._host_claims
        while claims and (claims[0][0] <= now_s or claims[0][2] != claims[0][3].host_turn):
            _, _, turn, context = heappop(claims)
            if turn == context.host_turn and context.replica is not None:
                context.replica.unclaim_host(context)
                self._changed[context.replica] = None

    def drop(self, context: Context) -> None:
        """Nobody will use it."""
        if context.replica is not None:
            self._changed[context.replica] = None
            context.replica.forget(context)
