"""Dispatcher: one synchronous assignment pass over waiters and instances.

It runs on every arrival, release, start, death and cancellation, and never awaits. Its decisions take effect in the
pool's ledger at once: a picked instance is leased inside the pass. The pool's tasks do the slow part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pool.clock import Clock
from pool.engine.base import EngineDown
from pool.errors import FunctionBroken, PoolError
from pool.instance import Instance
from pool.lease import Lease
from pool.pool import Pool
from pool.states import LIVE, PENDING, Reason, State
from pool.workload import Workload
from scheduler.dispatch.decisions import pick, smooth_low
from scheduler.dispatch.errors import Gone, NoCapacity, QueueFull
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.fair_share import Snapshot
from scheduler.dispatch.function import (
    DEFAULT_MAX_INSTANCES,
    Function,
    Limits,
    Prewarm,
    Revision,
    Settle,
    Waiter,
)
from scheduler.dispatch.growth import Growth
from scheduler.dispatch.route import Route
from scheduler.dispatch.spares.keeper import SpareKeeper
from scheduler.dispatch.spares.plan import NO_SPARES, Keeping
from scheduler.dispatch.upkeep import Upkeep, engine_was_down, pause_after

RETIRE_DELAY_SECONDS = 0.05
"""Pause before the instances of a replaced revision are removed, so that calls of a tried-out one come first."""


class Dispatcher:
    """Gives slots of instances to invocations, and decides about starts and evictions of instances for them."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        cores: int,
        keeping: Keeping = NO_SPARES,
        engine_down: Callable[[], EngineDown | None] = lambda: None,
    ) -> None:
        self.pool = pool
        self.cores = cores
        self.functions: dict[str, Function] = {}
        self.routes: dict[str, Route] = {}
        """Routes by name. For now each function has one, under its own name, to one revision."""
        self._clock = clock
        self.hungry: dict[Revision, None] = {}
        """Revisions with waiting calls."""
        self.draining = False
        self.prewarm: dict[str, Prewarm] = {}
        """Prewarm pools by image."""
        self.spares = SpareKeeper(pool, keeping.spares, self.prewarm)
        evictor = Evictor(pool, self.functions, self.prewarm, keeping.policy, self.spares)
        self._upkeep = upkeep = Upkeep(pool, self.functions, self.routes, self.calls_need_starts, evictor)
        self._growth = Growth(
            pool, clock, cores, self.functions, self.hungry, evictor, upkeep.soon, engine_down, self._refuse
        )
        self._engine_down = engine_down
        pool.listener = self

    # -- calls ----------------------------------------------------------------------------------------------

    def revision_for(self, name: str) -> Revision | None:
        """Return the revision that a call of this name goes to, or None if the name leads nowhere."""
        route = self.routes.get(name)
        return route.draw() if route is not None else None

    def try_lease(self, revision: Revision, invocation: str, arrived: float) -> Lease | None:
        """Lease a slot that is free now, or return None; then call `enqueue`."""
        if revision.waiting:
            return None
        instance = pick(self.pool.ledger.of(revision.name), revision.version)
        if instance is None:
            return None
        if revision.single_use:
            self.spares.note_call(revision)
            self._upkeep.soon()  # to replace it, if it was ready ahead
        return self.pool.lease(instance, invocation, arrived)

    def enqueue(self, revision: Revision, invocation: str, arrived: float, settle: Settle) -> Waiter:
        """Add a call to the queue of a revision, or of the one that has replaced it since.

        `settle` is called with the outcome, perhaps before this returns. Raises `QueueFull` and `Gone`.
        """
        name = revision.name
        if self.functions.get(name) is not revision.function:
            raise Gone(f"{name} is no longer deployed")
        if revision.retired:
            revision = self.revision_for(name) or revision
        limits, now = revision.limits, self._clock.now()
        if revision.waiting >= limits.queue_size:
            raise QueueFull(name, limits.queue_size, max(1.0, revision.exec_seconds or 1.0))
        if revision.single_use:
            self.spares.note_call(revision)
        waiter = Waiter(invocation, arrived, now + limits.queue_timeout, settle, revision)
        revision.add(waiter)
        self.hungry[revision] = None
        if revision.expiry is None:
            revision.expiry = self._clock.call_later(limits.queue_timeout, self._expire_due, revision)
        if revision.waiting == 1:
            self._serve(revision)  # a slot may have become free since `try_lease`
        if revision.waiting > revision.enough_for:
            self._growth.run(arrived_for=revision)
        return waiter

    def refuse(self, waiter: Waiter, fault: Exception) -> None:
        """Remove a waiter from its queue with this fault, unless it has its slot already."""
        self._refuse(waiter, fault)
        self._growth.run()

    def _refuse(self, waiter: Waiter, fault: Exception) -> None:
        if not waiter.left:
            self._leave(waiter)
            waiter.settle(None, fault)

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter from its queue without a word, unless it has left already."""
        if not waiter.left:
            self._leave(waiter)
            self._growth.run()  # others may have waited behind it for memory

    def release(self, lease: Lease, fatal: Reason | None = None, used: bool = True) -> None:
        """End a lease and serve the next waiter. `fatal` is the reason if the instance must serve no further call.
        `used` is False if nothing was called, so nothing was measured."""
        if lease.ended:
            return
        hungry = self.hungry
        if hungry and self._growth.reclaimer.owed:
            self._growth.reclaimer.collect(lease.instance)
        self.pool.release(lease, fatal, used)
        workload = lease.workload
        function = self.functions.get(workload.function)
        if function is None:
            return
        revision = function.revisions.get(workload.version)
        if used:
            function.calls += 1
            lease.instance.clock = self._growth.evictor.clock
            if revision is not None:
                took = lease.seconds if lease.exec_seconds is None else min(lease.exec_seconds, lease.seconds)
                revision.exec_seconds = smooth_low(revision.exec_seconds, took)
        if not hungry:
            return
        waits = revision is not None and revision.waiting
        if revision is not None and waits:
            self._serve(revision, freed=lease.instance)
        if hungry and (fatal is not None or not waits or self._growth.memory_was_short):
            self._growth.run()  # the function lost an instance, or others may evict one now

    def _expire_due(self, revision: Revision) -> None:
        """Refuse the calls that have waited for `queue_timeout`. The queue is in order of deadlines, so one timer is
        enough."""
        revision.expiry = None
        now = self._clock.now()
        while (waiter := revision.first_waiter()) is not None:
            if waiter.deadline > now:
                revision.expiry = self._clock.call_later(waiter.deadline - now, self._expire_due, revision)
                break
            self._refuse(waiter, self._growth.why_none(revision))
        self._growth.run()

    def _leave(self, waiter: Waiter) -> None:
        """Take a waiter out of its queue."""
        revision = waiter.revision
        revision.remove(waiter)
        if not revision.waiting:
            self.hungry.pop(revision, None)
            self._upkeep.soon()

    # -- deployed revisions -----------------------------------------------------------------------------------

    def deploy(
        self, workload: Workload, limits: Limits, max_instances: int = DEFAULT_MAX_INSTANCES
    ) -> Revision:
        """Serve a function's calls, waiting ones included, by this revision from now on. Return it.

        Instances of its predecessor drain. If the revision is in service already, it gets the new limits.
        """
        name = workload.function
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(workload)
        function.max_instances = max_instances
        before = self.revision_for(name)
        if before is not None and before.version == workload.version:
            revision = before
            self._drop_trials(function)
        else:
            tried = function.revisions.get(workload.version)
            revision = tried or Revision(function, workload, limits, before)
            self._replace(before, revision)
        revision.renew(workload, limits)
        self.pool.renew(workload)
        self._shorten_waits(revision)
        self._run()
        return revision

    def _replace(self, before: Revision | None, revision: Revision) -> None:
        """Put a revision in the place of another, or into service if there is none before."""
        function = revision.function
        self._drop_trials(function, but=revision)
        was_tried, revision.trial = revision.trial, False
        self.spares.note_service(revision)
        function.revisions = {revision.version: revision}
        self.routes[function.name] = Route((revision, 1.0))
        if before is not None:
            revision.take_queue_of(before)
            if before in self.hungry:
                del self.hungry[before]
                self.hungry[revision] = None
            at_once = not was_tried or self.hungry  # who waits may need the memory
            self._retire(function.name, revision.version, 0.0 if at_once else RETIRE_DELAY_SECONDS)

    def try_out(self, workload: Workload, limits: Limits) -> Revision:
        """Return a new revision of a function in service, on trial. No call goes to it, but `enqueue` takes it.

        `deploy` puts it into service. `abandon` removes it, and so does the next trial.
        """
        function = self.functions[workload.function]
        self._drop_trials(function)
        revision = Revision(function, workload, limits, self.revision_for(function.name))
        revision.trial = True
        function.revisions[revision.version] = revision
        return revision

    def abandon(self, revision: Revision) -> None:
        """Remove a revision on trial; harmless if it is in service or gone."""
        if revision.trial and not revision.retired:
            self._drop_trials(revision.function)
            self._run()

    def _drop_trials(self, function: Function, but: Revision | None = None) -> None:
        for revision in [r for r in function.revisions.values() if r.trial and r is not but]:
            del function.revisions[revision.version]
            for waiter in list(revision.queue):
                self._refuse(waiter, Gone(f"another revision of {function.name} is tried out"))
            revision.retire()
            for instance in revision.instances(self.pool.ledger):
                self.pool.drain(instance, Reason.REPLACED)

    def _shorten_waits(self, revision: Revision) -> None:
        """Shorten deadlines to the current `queue_timeout`, so that the queue stays in order of deadlines."""
        latest = self._clock.now() + revision.limits.queue_timeout
        for waiter in revision.queue:
            waiter.deadline = min(waiter.deadline, latest)
        if revision.expiry is not None:
            revision.expiry.cancel()
        self._expire_due(revision)

    def withdraw(self, name: str) -> None:
        """Take a function out of service: refuse its waiting calls, and let its running ones finish."""
        function = self.functions.pop(name, None)
        if function is None:
            return
        del self.routes[name]
        for revision in function.revisions.values():
            for waiter in list(revision.queue):
                self._refuse(waiter, Gone(f"{name} is no longer deployed"))
            revision.retire()
        self._retire(name)
        self._run()

    def close(self) -> None:
        """Start no further instance, and refuse all waiting calls."""
        self.draining = True
        for revision in list(self.hungry):
            for waiter in list(revision.queue):
                self._refuse(waiter, NoCapacity("the gateway is shutting down"))

    def _retire(self, name: str, keep: str | None = None, pause: float = 0.0) -> None:
        for instance in list(self.pool.ledger.of(name)):
            if instance.workload is not None and instance.workload.version != keep:
                self.pool.drain(instance, Reason.REPLACED, pause)

    def workloads(self) -> Iterator[Workload]:
        """Yield the workload of each revision of each function."""
        for function in self.functions.values():
            for revision in function.revisions.values():
                yield revision.workload

    def set_prewarm(self, wanted: dict[str, Prewarm]) -> None:
        """Replace the prewarm pools by these, by image."""
        self._upkeep.set_prewarm(wanted)

    def is_provisioned(self, instance: Instance) -> bool:
        """Return whether an instance stays although it is idle: for its function's `min_instances`, or as a spare."""
        return self._upkeep.is_provisioned(instance)

    def settled(self) -> bool:
        """Return whether every function has its `min_instances`, or has failed to get them."""
        return self._upkeep.settled()

    # -- reports of the pool ------------------------------------------------------------------------------

    def _revision_of(self, instance: Instance) -> Revision | None:
        """Return the revision of an instance, or None if it is generic or its revision is not in service."""
        function = self.functions.get(instance.function or "")
        return function.revision_of(instance) if function is not None else None

    def instance_ready(self, instance: Instance) -> None:
        """Note that an instance has become IDLE or PREWARMED, and run the pass."""
        if instance.workload is None:
            self._upkeep.prewarmed()
        elif (revision := self._revision_of(instance)) is None:
            self.pool.remove(instance, Reason.REPLACED)
        else:
            self._growth.note_start(revision, instance)
        self._run()
        if instance.state is State.PREWARMED:
            self._upkeep.remove_surplus()

    def start_failed(self, instance: Instance, error: PoolError) -> None:
        """Note that an instance did not become ready. Refuse waiting calls that no instance is left to serve."""
        if instance.workload is None:
            self._upkeep.prewarming_failed(error)
        elif (revision := self._revision_of(instance)) is not None:
            self._note_failure(revision, error)
        self._run()

    def _note_failure(self, revision: Revision, error: PoolError) -> None:
        if not engine_was_down(error):  # otherwise `engine_back` tries it again
            self._back_off(revision, error)
        if not any(i.state in LIVE or i.state in PENDING for i in revision.instances(self.pool.ledger)):
            fault = error if isinstance(error, FunctionBroken) else self._growth.blocked(revision)
            fault = fault or NoCapacity(str(error))
            for waiter in list(revision.queue):
                self.pool.printed.tell(waiter.invocation, revision.printed)
                self._refuse(waiter, fault)

    def _back_off(self, revision: Revision, error: PoolError) -> None:
        """Delay the next start after a failed one; the delay grows with the failures in a row."""
        revision.note_failure(error)
        pause = pause_after(revision.failures, error)
        revision.not_before = self._clock.now() + pause
        self._clock.call_later(pause, self._upkeep.soon)

    def engine_back(self) -> None:
        """Note that the engine answers again, and run the pass."""
        self._run()

    def capacity_freed(self) -> None:
        """Note that an instance is gone and its memory free, and run the pass."""
        self._run()

    def slots_changed(self, instance: Instance) -> None:
        """Note that a connection of an instance was opened or closed, and serve its revision."""
        if (revision := self._revision_of(instance)) is not None:
            self._serve(revision)

    # -- the pass -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for revision in list(self.hungry):
            self._serve(revision)
        self._growth.run()
        self._upkeep.soon()

    def _serve(self, revision: Revision, freed: Instance | None = None) -> None:
        """Lease free slots to waiters, first come, first served. `freed` is an instance with one slot free again; no
        other can have one, since calls waited."""
        while revision.waiting and (waiter := revision.first_waiter()) is not None:
            instances = self.pool.ledger.of(revision.name) if freed is None else (freed,)
            instance = pick(instances, revision.version)
            if instance is None:
                return
            self._leave(waiter)
            waiter.settle(self.pool.lease(instance, waiter.invocation, waiter.arrived), None)
            if freed is not None:
                return

    @property
    def eviction_clock(self) -> float:
        """Return the clock of the eviction policy, which never falls."""
        return self._growth.evictor.clock

    def memory_snapshot(self) -> Snapshot:
        """Return the memory that functions have and want, as fair sharing sees it now."""
        return self._growth.reclaimer.snapshot()

    def calls_need_starts(self) -> bool:
        """Return whether calls need every possible start; instances that are started ahead come later."""
        if self.draining or self._engine_down() is not None:
            return True
        return any(self._growth.helps(revision) for revision in self.hungry)

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self.functions)} functions, {len(self.hungry)} hungry, {self.pool!r}>"
