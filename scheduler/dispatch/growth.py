"""Growth: starts instances because calls wait. It is a part of the assignment pass and never awaits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pool.clock import Clock, Timer
from pool.engine.base import EngineDown
from pool.instance import Instance, StartReason
from pool.pool import Pool
from pool.states import LEAVING, LIVE, PENDING, UNUSED, Reason, State
from scheduler.dispatch.decisions import Demand, smooth, wanted_starts
from scheduler.dispatch.errors import EngineAway, NoCapacity, NotReady
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.fair_share import CLAIM_AFTER_SECONDS
from scheduler.dispatch.function import Function, Revision, Waiter
from scheduler.dispatch.reclaimer import Reclaimer
from scheduler.dispatch.start_reasons import Shortage, reason_to_start

SHORT_WAIT_SECONDS = 0.03
"""Wait for which no instance is started, however fast a start would be. Also the shortest time after which a queue
that is expected to move is looked at again."""

CLAIM_LATE_SECONDS = 0.001
"""Delay after the moment at which a function may claim memory: a timer that fires a little early must not miss it."""


class Growth:
    """Starts and specialises instances for the `hungry` revisions, the ones with waiting calls."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        cores: int,
        functions: Mapping[str, Function],
        hungry: Mapping[Revision, None],
        evictor: Evictor,
        upkeep_soon: Callable[[], None],
        engine_down: Callable[[], EngineDown | None],
        refuse: Callable[[Waiter, Exception], None],
    ) -> None:
        self.evictor = evictor
        self.memory_was_short = False
        """True if a revision waits for memory and holds back those behind it."""
        self.reclaimer = Reclaimer(pool, functions, hungry, evictor, self._wanted)
        self._memory_timer: Timer | None = None
        """Set while a revision waits for memory."""
        self._pool = pool
        self._clock = clock
        self._cores = cores
        self._hungry = hungry
        self._upkeep_soon = upkeep_soon
        self._engine_down = engine_down
        self._refuse = refuse

    def run(self, arrived_for: Revision | None = None) -> None:
        """Start the needed instances, for the longest waiting revision first.

        A revision that waits for memory holds back those behind it, so that none starves.
        """
        was_short, self.memory_was_short = self.memory_was_short, False
        for revision in self._in_order(arrived_for, was_short):
            if not self._grow(revision):
                self.memory_was_short = True
                break
        if not self.memory_was_short:
            self.reclaimer.forget()
        elif not was_short and len(self._hungry) > 1:
            self.run()  # memory is short now, which may change the order
        elif self._engine_down() is None:  # otherwise drained instances could not be removed
            self._share_memory()

    def _in_order(self, arrived_for: Revision | None, memory_is_short: bool) -> Iterable[Revision]:
        if len(self._hungry) == 1:
            return [arrived_for or next(iter(self._hungry))]
        return (
            self.reclaimer.in_order() if memory_is_short else sorted(self._hungry, key=Revision.waits_since)
        )

    def _share_memory(self) -> None:
        """Drain instances for revisions that have waited long enough, and look again when the next one has."""
        self.reclaimer.drain()
        if self._memory_timer is None:
            delay = min(CLAIM_AFTER_SECONDS, self.reclaimer.next_claim() + CLAIM_LATE_SECONDS)
            self._memory_timer = self._clock.call_later(delay, self._look_at_memory)

    def _look_at_memory(self) -> None:
        self._memory_timer = None
        self.reclaimer.forget()  # the plan was made before this claim
        if self.memory_was_short:
            self.run()

    def _grow(self, revision: Revision) -> bool:
        """Start or specialise instances for the waiters of one revision. Return False if it lacks memory."""
        blocked = self.blocked(revision)
        if (
            blocked is None
            and revision.wants_a_place(self._pool.ledger)
            and revision.room(self._pool.ledger) <= 0
        ):
            self._give_up_one(revision.function)
        wanted = self._wanted(revision)
        revision.enough_for = 0
        for _ in range(wanted):
            if not (self._specialise_one(revision) if blocked else self._start_one(revision)):
                if revision.trial and not self._pool.ledger.memory_stopping:
                    self._give_up_one(revision.function)
                return False
        if blocked is not None and self._nobody_will_serve(revision):
            for waiter in list(revision.queue):
                self._refuse(waiter, blocked)
        if not wanted:
            revision.enough_for = revision.waiting  # counted here, after some may have been refused
        if revision.waiting and revision.look_again is None:
            delay = self._expected_start(revision)
            due = self._clock.now() + delay
            first = revision.first_waiter()
            revision.look_again = self._clock.call_later(delay, self._look_again, revision, first, due)
        return True

    def _give_up_one(self, function: Function) -> None:
        """Drain one instance of a function for a revision that is tried out, unless one is leaving already."""
        mine = list(self._pool.ledger.of(function.name))
        if mine and not any(instance.state in LEAVING for instance in mine):
            least = min(
                mine, key=lambda i: (i.state not in UNUSED, i.state not in LIVE, i.in_use, i.last_used)
            )
            self._pool.drain(least, Reason.REPLACED)

    def _wanted(self, revision: Revision) -> int:
        """Return how many instances to start for a revision now, if there is memory."""
        demand = self._demand(revision)
        wanted = min(wanted_starts(demand), max(0, self._cores - self._slow(revision)))
        if self._clock.now() < revision.not_before:  # starts fail: one at most, to see if they still do
            wanted = min(wanted, 0 if demand.live_slots or demand.pending else 1)
        return wanted

    def helps(self, revision: Revision) -> bool:
        """Return whether more memory would allow one more start for the waiters of a revision."""
        return revision.room(self._pool.ledger) > 0 and not self._slow(revision)

    def _slow(self, revision: Revision) -> int:
        """Return how many instances wait for their own program. Further ones would probably wait as well."""
        return sum(i.slow and i.state in PENDING for i in revision.instances(self._pool.ledger))

    def _look_again(self, revision: Revision, first: Waiter | None, due: float) -> None:
        """Check a queue after the time in which it was expected to move. With the same first waiter it is stuck.

        If this check itself is late, the whole gateway is, and another instance would not help.
        """
        revision.look_again = None
        revision.enough_for = 0
        late = self._clock.now() - due > SHORT_WAIT_SECONDS
        revision.stuck = first is revision.first_waiter() and not late
        if revision.waiting and revision in self._hungry:
            self.run()
        revision.stuck = False

    def blocked(self, revision: Revision) -> NoCapacity | None:
        """Return why no container can be created for a revision now, or None if a start may be tried."""
        if (down := self._engine_down()) is not None:
            return EngineAway(f"no instance of {revision.name} can be started: {down}", down.retry_after)
        left = revision.not_before - self._clock.now()
        return NoCapacity(revision.blocked, left) if revision.blocked and left > 0 else None

    def why_none(self, revision: Revision) -> NoCapacity:
        """Return the fault of a call that has waited too long for a slot."""
        ledger, room = self._pool.ledger, revision.room(self._pool.ledger)
        waited = f"within {revision.limits.queue_timeout:g} s (queue_timeout)"
        instances = revision.instances(ledger)
        is_live = any(i.state in LIVE for i in instances)
        starting = [i for i in instances if i.state in PENDING and i.awaits]
        if starting and not is_live:
            first = min(starting, key=lambda i: i.given_at)
            return NotReady(f"no instance of {revision.name} was ready {waited}: {self._how_far(first)}")
        why = "every instance is busy"
        if ledger.memory_free < revision.workload.container.memory and room > 0:
            why = "the gateway's memory budget is in use"
        elif ledger.count(revision.name) == 0:
            why = "no instance could be started"
        elif not is_live:
            why = "its instances have not become ready yet"
        return NoCapacity(f"no instance of {revision.name} {waited}: {why}")

    def _how_far(self, instance: Instance) -> str:
        """Return what a start that takes long has come to, and what to do."""
        seconds = self._clock.now() - instance.given_at
        said = (
            f"{instance.awaits} after {seconds:.1f} s. The start goes on; call again, or raise queue_timeout"
        )
        printed = self._pool.printed.last_lines_of(instance).strip()
        return f"{said}. It has printed: {printed}" if printed else said

    def _nobody_will_serve(self, revision: Revision) -> bool:
        demand = self._demand(revision)
        return not demand.pending and (demand.single_use or not demand.live_slots)

    def _specialise_one(self, revision: Revision) -> bool:
        """Give the revision a prewarmed instance if free memory suffices; nothing can be evicted now."""
        workload, ledger = revision.workload, self._pool.ledger
        if workload.generic:
            for instance in ledger.prewarmed(workload.container.image)[:1]:
                if workload.container.memory - instance.memory <= ledger.memory_free:
                    self._give(revision, instance)
        return True

    def _start_one(self, revision: Revision) -> bool:
        workload, ledger = revision.workload, self._pool.ledger
        if not ledger.count(revision.name):
            revision.function.calls = 0  # the frequency for eviction begins anew
        if workload.generic:
            for instance in ledger.prewarmed(workload.container.image)[:1]:
                missing = workload.container.memory - instance.memory
                if not self.evictor.make_room(missing, but=instance, taker=revision.function):
                    return False
                self._give(revision, instance)
                self._upkeep_soon()
                return True
            if ledger.refilling(workload.container.image):
                return True  # one is being started; the pass runs again when it is ready
        if ledger.starting >= self._cores and not self._give_way():
            return True  # more starts at once only make each slower; the pass runs again when one is ready
        if not self.evictor.make_room(workload.container.memory, taker=revision.function):
            return False
        self._pool.start(workload, self._why(revision))
        revision.function.memory_since = self._clock.now()
        return True

    def _give_way(self) -> bool:
        """Have a spare that is being started give up its place among the starts; return whether one did."""
        spare = self.evictor.spares.starting
        if spare is None or spare.slow or spare.state is not State.STARTING:
            return False
        self._pool.ledger.note_slow(spare)
        return True

    def _give(self, revision: Revision, instance: Instance) -> None:
        """Give a revision a prewarmed instance."""
        self._pool.specialise(instance, revision.workload, self._why(revision))
        revision.function.memory_since = self._clock.now()

    def _why(self, revision: Revision) -> StartReason:
        """Return why an instance of a revision is started now."""
        ledger, workload = self._pool.ledger, revision.workload
        return reason_to_start(
            Shortage(
                demand=self._demand(revision),
                version=revision.version,
                trial=revision.trial,
                fresh_by_default=workload.contract.fresh_by_default,
                last=ledger.last_stops.get(revision.name),
                now=self._clock.now(),
            )
        )

    def _demand(self, revision: Revision) -> Demand:
        workload = revision.workload
        live = pending = 0
        for instance in revision.instances(self._pool.ledger):
            live += instance.state in LIVE and instance.link is not None and instance.link.alive
            pending += instance.state in PENDING
        first = revision.first_waiter()
        took = revision.exec_seconds
        # Compared with a short call our own lateness is large: then only a stuck queue is evidence.
        telling = first is not None and (revision.stuck or took is None or took > SHORT_WAIT_SECONDS)
        return Demand(
            waiters=revision.waiting,
            live_slots=live * workload.concurrency,
            pending=pending,
            room=revision.room(self._pool.ledger),
            concurrency=workload.concurrency,
            single_use=workload.single_use,
            exec_seconds=revision.exec_seconds,
            start_seconds=self._expected_start(revision),
            oldest_wait=self._clock.now() - first.arrived if first and telling else 0.0,
            cores=self._cores,
        )

    def _expected_start(self, revision: Revision) -> float:
        workload = revision.workload
        ready = workload.generic and self._pool.ledger.prewarmed(workload.container.image)
        return max(SHORT_WAIT_SECONDS, revision.specialise_seconds if ready else revision.start_seconds)

    def note_start(self, revision: Revision, instance: Instance) -> None:
        """Note that an instance has become ready, and measure its start."""
        revision.starts_work()
        self.evictor.spares.note_service(revision)
        instance.clock = self.evictor.clock
        assert instance.ready_at is not None
        if instance.adopted:
            return  # an earlier gateway started it
        if instance.born_generic:
            took = instance.ready_at - instance.given_at
            revision.specialise_seconds = smooth(revision.specialise_seconds, took)
        else:
            took = instance.ready_at - instance.created_at
            revision.start_seconds = smooth(revision.start_seconds, took)
