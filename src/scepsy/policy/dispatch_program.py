"""Serve programs, not calls: a dispatcher that minds whose KV is where, and how much fits.

A call whose context is believed to be on a replica goes there at once. Any other one waits at the
door until a replica has room for all of it, beside what runs there and the contexts of programs in
gaps that are worth their room; of those, the door lets in by tenants' shares, then levels of work,
then arrival. Who has waited for as long as a bound goes before all others of its tenant, and after
twice that whatever it costs.
"""

from collections.abc import Collection, Iterable
from itertools import count

from scepsy.model.execution import ExecutionId, ReplicaName
from scepsy.policy.dispatch import CallResult, Capacity, Dispatch
from scepsy.policy.dispatch_belief import Context, Replica
from scepsy.policy.dispatch_bound import Bounds
from scepsy.policy.dispatch_call import (
    DOOR,
    REPLICA,
    SENT,
    Place,
    Waiting,
    as_arrived,
    as_ended,
    work_s,
)
from scepsy.policy.dispatch_contexts import Contexts, match
from scepsy.policy.dispatch_door import Door
from scepsy.policy.dispatch_estimates import Estimates
from scepsy.policy.dispatch_place import emptiest, soonest, without_claims
from scepsy.policy.dispatch_settings import Settings
from scepsy.policy.learned import LearnedGaps
from scepsy.policy.program import NO_TENANT
from scepsy.policy.program_table import Programs
from scepsy.policy.route import CallView

_INF = float("inf")


class ByProgram:
    """See the module. One for each LLM; ``Settings`` say which of its mechanisms are on."""

    def __init__(self, settings: Settings | None = None, programs: Programs | None = None) -> None:
        """No replica is up, and nothing is known of programs but what is given."""
        self.settings = settings or Settings()
        self.programs = Programs(LearnedGaps()) if programs is None else programs
        self._replicas: dict[ReplicaName, Replica] = {}
        self._changed: dict[Replica, None] = {}
        """Where more may fit than when the door was tried last."""
        self._contexts = Contexts(self.settings, self.programs, self._changed)
        self._waiting: dict[str, Waiting] = {}
        self._bounds = Bounds(self.settings)
        self._sent: dict[str, Waiting] = {}
        self._door = Door(
            self.settings.weights,
            due=self._bounds.due_at_door,
            place=self._place,
            is_limited=self.settings.admits,
        )
        self._reserved: tuple[Waiting, Replica] | None = None
        """The one who goes before all others, and the replica that is kept for it."""
        self._serial = count()
        self._now_s = -_INF
        self._estimates = Estimates()
        self._capacity: Capacity | None = None
        """Of the replica that came last: what calls are taken to cost before one is chosen."""

    @property
    def replicas(self) -> Collection[Replica]:
        """Those that are up, to look at."""
        return self._replicas.values()

    @property
    def live_executions(self) -> int:
        """Of which something is kept."""
        return len(self._contexts)

    # ---- What happens

    def joined(self, now_s: float, replica: ReplicaName, capacity: Capacity) -> None:  # noqa: ARG002
        """It takes calls from now on."""
        self._capacity = capacity
        fill, claimed_last = self.settings.fill_fraction, self.settings.engines_ask
        found = Replica(replica, capacity, fill_fraction=fill, claimed_last=claimed_last)
        self._replicas[replica] = found
        self._changed[found] = None

    def lost(self, now_s: float, replica: ReplicaName) -> None:
        """What was there is forgotten; calls that waited for it wait at the door."""
        gone = self._replicas.pop(replica)
        self._changed.pop(gone, None)
        for call in [each for each in self._sent.values() if each.replica is gone]:
            del self._sent[call.view.id]
            call.live.calls -= 1
            self.programs.failed(call.view.execution, now_s)
        self._contexts.lost(gone)
        for call in self._waiting.values():
            if call.context is not None and call.context.replica is None:
                self._to_door(call)
        if self._reserved is not None and self._reserved[1] is gone:
            self._reserved = None

    def arrived(self, now_s: float, call: CallView) -> None:
        """It waits, at the replica that has its context or at the door."""
        for program in self.programs.expire(now_s):
            self._contexts.forget(program.execution)
        means = self._estimates.of(call)
        self.programs.arrived(as_arrived(call, means.stage), now_s)
        live = self._contexts.live(call.execution)
        is_first = not live.calls and not live.has_begun
        live.calls += 1
        self._waiting[call.id] = found = Waiting(call, live, means, now_s, next(self._serial))
        if not self.settings.shares:
            found.tenant = NO_TENANT
        of_many = self._estimates.goes_on(call, is_first=is_first)
        context, blocks = match(live, call) if self.settings.routes else (None, 0)
        if context is None or not self._contexts.want(context):
            self._to_door(found)
        else:
            self._to_context(found, context, blocks)
        self._bounds.add(now_s, found, len(self._replicas), of_many=of_many)

    def first_token(self, now_s: float, call: CallView) -> None:
        """Its prompt is computed: others are the sooner."""
        found = self._sent.get(call.id)
        if found is not None and found.is_computing:
            found.is_computing = False
            assert found.replica is not None
            found.replica.computed(now_s)

    def ended(self, now_s: float, call: CallView, result: CallResult) -> None:
        """Its KV stays, as the context of its program's next call."""
        found = self._leave_replica(now_s, call)
        if found is None:
            return
        replica, live = found.replica, found.live
        assert replica is not None
        live.has_begun = True
        self._estimates.ended(found, result)
        self._door.charge(found.tenant, work_s(replica.capacity, call, result))
        self.programs.ended(as_ended(call, found.means.stage, result), now_s)
        if not live.is_over:
            tokens = call.prompt_tokens + result.output_tokens
            own_tokens = max(1, tokens - found.means.shared_of(call.prompt_tokens))
            self._contexts.keep(now_s, found, own_tokens)

    def dropped(self, now_s: float, call: CallView) -> None:
        """It waits no longer, or has left its replica; its context is there as before."""
        found = self._waiting.get(call.id)
        if found is not None:
            self._leave_queue(found)
            if found.place is Place.REPLICA and found.context is not None:
                self._contexts.unwant(found.context)
            found.place = Place.GONE
            found.live.calls -= 1
            self.programs.dropped(call.execution, now_s)
            return
        found = self._leave_replica(now_s, call)
        if found is not None:
            self.programs.failed(call.execution, now_s)
            context = found.context
            if context is not None and not context.calls and not found.live.is_over:
                assert found.replica is not None
                found.replica.keep(context)

    def over(self, now_s: float, execution: ExecutionId) -> None:
        """Its contexts give up their room."""
        self.programs.told_finished(execution, now_s)
        self._contexts.forget(execution)

    @property
    def next_s(self) -> float:
        """When a claim lapses, or a call has waited for long."""
        if not self._waiting:
            return _INF
        next_s, lapse_s = self._bounds.next_s(self._now_s), self._contexts.next_lapse_s
        return min(next_s, lapse_s) if lapse_s > self._now_s else next_s

    def is_kept(self, program: str) -> bool:
        """Whether an engine should keep a program's blocks while it has others to forget."""
        return self._contexts.is_claimed(ExecutionId(program.partition("/")[0]))

    def is_live(self, program: str) -> bool:
        """The same of host memory."""
        return self._contexts.is_live(ExecutionId(program.partition("/")[0]))

    # ---- What goes

    def take(self, now_s: float) -> list[Dispatch]:
        """Overdue calls, calls whose context is there, then what fits of those at the door."""
        self._now_s = now_s
        if not self._waiting or not self._replicas:
            return []
        self._contexts.lapse(now_s)
        found: list[Dispatch] = []
        self._serve_overdue(now_s, found)
        for replica in [each for each in self._changed if each.waiting]:
            self._serve_contexts(now_s, replica, found)
        self._serve_door(now_s, found)
        self._changed.clear()
        return found

    def _serve_overdue(self, now_s: float, found: list[Dispatch]) -> None:
        """Who is due first of a tenant; where that one does not fit, a replica is kept for it."""
        while self._waiting:
            call = self._first()
            if self._reserved is not None and self._reserved[0] is not call:
                self._give_up_reserved()
            if self._reserved is None and now_s < call.hard_s:
                return
            among = self._replicas.values() if self._reserved is None else self._changed
            replica = without_claims(call, among, self._estimates.all_shared_tokens)
            if replica is None:
                if self._reserved is None:
                    self._reserved = call, emptiest(self._replicas.values())
                return
            replica.revoke(call.need_tokens, self._room(replica), call.context)
            self._changed[replica] = None
            if call.context is None:
                replica.push_out(call.need_tokens)
            self._send(now_s, call, replica, found)

    def _first(self) -> Waiting:
        """Who is due first, of the tenant for which a replica is kept, or that was served least."""
        if self._reserved is not None and self._reserved[0].is_waiting:
            return self._bounds.first(self._reserved[0].tenant)
        return self._bounds.first_of_least(self._door.served)

    def _serve_contexts(self, now_s: float, replica: Replica, found: list[Dispatch]) -> None:
        """Calls whose context is on a replica, first come first, as far as they fit."""
        waiting = replica.waiting
        if self._reserved is not None and self._reserved[1] is replica:
            return
        while waiting:
            call = self._waiting.get(waiting[0])
            if call is None or call.place is not REPLICA:
                waiting.popleft()
                continue
            context = call.context
            assert context is not None
            if context.replica is not replica:
                waiting.popleft()
                self._to_door(call)
            elif replica.could_fit(call.need_tokens, self._room(replica)):
                waiting.popleft()
                self._send(now_s, call, replica, found)
            else:
                return

    def _serve_door(self, now_s: float, found: list[Dispatch]) -> None:
        """By the door's order, of the first those that fit."""
        shared_tokens = self._estimates.all_shared_tokens
        for call, replica in self._door.fitting(now_s, self._changed, shared_tokens):
            if call.is_due:
                replica.push_out(call.need_tokens)
            self._send(now_s, call, replica, found)

    def _place(self, now_s: float, call: Waiting) -> Replica | None:
        """Of the replicas with room, where its prompt is computed soonest; then the emptiest."""
        settings = self.settings
        among = self._among(call)
        if self._reserved is not None:
            among = [replica for replica in among if replica is not self._reserved[1]]
        has_host = self._capacity is not None and self._capacity.host_tokens > 0
        if settings.admits and has_host and not call.is_due:
            among = [replica for replica in among if replica.takes_on(call.need_tokens)]
        shared_tokens = self._estimates.all_shared_tokens
        need_tokens = call.need_tokens + shared_tokens if settings.admits else -_INF
        return soonest(now_s, need_tokens, among)

    def _among(self, call: Waiting) -> Iterable[Replica]:
        """Where a call may fit: if it was tried before, not where nothing has changed since."""
        return self._changed if call.is_tried else self._replicas.values()

    def _give_up_reserved(self) -> None:
        if self._reserved is not None:
            self._changed[self._reserved[1]] = None
            self._reserved = None

    def _send(self, now_s: float, call: Waiting, replica: Replica, found: list[Dispatch]) -> None:
        view, context = call.view, call.context
        self._leave_queue(call)
        self._sent[view.id] = call
        if self._reserved is not None and self._reserved[0] is call:
            self._give_up_reserved()
        call.place, call.replica, call.is_warm = SENT, replica, False
        cached, load_s = call.means.shared_of(view.prompt_tokens), 0.0
        if context is not None and context.replica is replica:
            cached = call.cached_tokens
            if context.on_host:
                load_s = cached * replica.capacity.host_token_s
            else:
                call.is_warm = True
            replica.release(context)
            context.calls += 1
        elif context is not None:  # its program goes on elsewhere
            self._contexts.drop(context)
            call.context = None
        call.is_computing = True
        cached = min(cached, view.prompt_tokens - 1)
        prefill_s = load_s + replica.capacity.prefill_s(view.prompt_tokens, cached)
        replica.start(now_s, view.id, call, prefill_s)
        self.programs.started(view.execution)
        found.append(Dispatch(view, replica.name))

    # ---- Calls and executions

    def _to_context(self, call: Waiting, context: Context, blocks: int) -> None:
        """It goes to the replica that has its context, when there is room for the rest of it."""
        replica = self._estimates.at_context(call, context, blocks)
        call.context, call.place = context, REPLICA
        replica.waiting.append(call.view.id)
        self._changed[replica] = None

    def _to_door(self, call: Waiting) -> None:
        """It goes to any replica that has room, and begins anew there."""
        view, again_s = call.view, 0.0
        if self._capacity is not None:
            again_s = self._estimates.at_door(call, self._capacity)
        call.context = None
        rank = (self.settings.level(again_s) - view.hints.priority, call.begin_by_s)
        self._door.put(call.tenant, rank, call)

    def _leave_queue(self, call: Waiting) -> None:
        del self._waiting[call.view.id]
        self._bounds.leave(call, is_last=not self._waiting)
        if call.place is DOOR:
            self._door.left()

    def _leave_replica(self, now_s: float, call: CallView) -> Waiting | None:
        found = self._sent.pop(call.id, None)
        if found is None:
            return None
        replica = found.replica
        assert replica is not None
        if found.is_computing:
            found.is_computing = False
            replica.computed(now_s)
        replica.end(call.id)
        self._changed[replica] = None
        found.live.calls -= 1
        if found.context is not None:
            found.context.calls -= 1
        return found

    def _room(self, replica: Replica) -> float:
        return replica.room_tokens - self._estimates.all_shared_tokens
