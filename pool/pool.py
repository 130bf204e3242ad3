"""Pool: holds instances and carries out the scheduler's decisions about them.

Synchronous verbs take effect in the ledger at once. The slow part, engine and sockets, runs in a task of the
instance. The listener, which is the dispatcher, is told of every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Protocol

from pool.backoff import Backoff, Retries, jitter
from pool.clock import Clock
from pool.engine.base import ContainerSpec, EngineDown, EngineError
from pool.errors import FunctionBroken, PoolError
from pool.freezer import Freezer, may_freeze
from pool.host.uids import OWN_USER
from pool.instance import Instance, InstanceRecords, StartReason, new_instance_id
from pool.lease import Lease
from pool.ledger import Ledger
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics
from pool.observe.printed import PrintedOutput
from pool.states import GOING, LIVE, PENDING, UNUSED, Reason, State
from pool.workload import Workload

log = logging.getLogger("hearth.pool")

REMOVE_RETRY = Backoff(0.2, 5.0)
"""Pauses between attempts to remove a container."""
SLOW_START_SECONDS = 1.0
"""Time that a function's program has to become ready in its container. After that other starts do not wait for it."""


class Listener(Protocol):
    """The part that decides about instances. It is told of everything that may change a decision."""

    def instance_ready(self, instance: Instance) -> None:
        """Note that an instance has become IDLE or PREWARMED."""

    def start_failed(self, instance: Instance, error: PoolError) -> None:
        """Note that an instance did not become ready; it is being removed."""

    def capacity_freed(self) -> None:
        """Note that an instance is gone: memory and a place are free."""

    def slots_changed(self, instance: Instance) -> None:
        """Note that a connection of an instance was opened or closed."""


class Launches(Protocol):
    """The work on the engine: `pool.launcher.Launcher`, or a fake on virtual time."""

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None: ...

    async def specialise(self, instance: Instance, workload: Workload) -> None: ...

    async def adopt(self, instance: Instance) -> None: ...

    async def leave(self, instance: Instance) -> None: ...

    async def pause(self, instance: Instance) -> None: ...

    async def unpause(self, instance: Instance) -> None: ...

    async def destroy(self, instance: Instance) -> None: ...


class Pool:
    """The instances of one gateway, their leases, and the tasks that start and remove them."""

    def __init__(
        self,
        launcher: Launches,
        clock: Clock,
        metrics: Metrics,
        logs: LogStore,
        memory_budget: int,
        records: InstanceRecords | None = None,
    ) -> None:
        """`records` lets the next process adopt instances; with None it can adopt none."""
        self.ledger = Ledger(memory_budget)
        self.clock = clock
        self.printed = PrintedOutput(logs, clock)
        self.listener: Listener | None = None
        self.freezer = Freezer(self.ledger, clock, launcher, self.remove)
        self._launcher = launcher
        self._records = records
        self._metrics = metrics
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._latest = self.printed.latest

    # -- starting -------------------------------------------------------------------------------------------

    def start(self, workload: Workload, why: StartReason | None = None) -> Instance:
        """Reserve and start an instance of a function, for this reason."""
        return self._begin(workload.container, workload, why)

    def prewarm(self, prototype: ContainerSpec) -> Instance:
        """Reserve and start a generic instance."""
        return self._begin(prototype, None, None)

    def _begin(self, spec: ContainerSpec, workload: Workload | None, why: StartReason | None) -> Instance:
        instance = Instance(new_instance_id(), spec.image, spec.memory, workload, self.clock.now())
        if spec.user == OWN_USER:
            instance.uid = self.ledger.uids.free()
        self.ledger.add(instance)
        instance.start_reason = why
        self._metrics.instance_starts.labels(instance.started_for).inc()
        self._spawn_start(instance, self._start(instance, spec))
        return instance

    def specialise(self, instance: Instance, workload: Workload, why: StartReason | None = None) -> None:
        """Give a prewarmed instance to a function, for good and for this reason."""
        instance.given_at = self.clock.now()
        self.ledger.give(instance, workload, instance.given_at)
        instance.start_reason = why
        self._metrics.instance_starts.labels(instance.started_for).inc()
        self.running(instance)
        self._spawn_start(instance, self._specialise(instance, workload))

    def _spawn_start(self, instance: Instance, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guard(instance, work))
        self._starts[instance.id] = task
        task.add_done_callback(
            lambda _: self._starts.pop(instance.id, None) if self._starts.get(instance.id) is task else None
        )

    async def _guard(self, instance: Instance, work: Coroutine[Any, Any, None]) -> None:
        """Run a start. If it fails, remove the instance and tell the listener."""
        try:
            await work
        except Exception as error:
            fault = error if isinstance(error, PoolError) else PoolError(f"{type(error).__name__}: {error}")
            if not isinstance(error, PoolError):
                log.exception("Starting %r failed because of a fault of the gateway", instance)
            if isinstance(fault, FunctionBroken):
                fault.printed = self.printed.last_lines_of(instance)
            if instance.state in PENDING:
                self.remove(instance, Reason.START_FAILED)
                if self.listener is not None:
                    self.listener.start_failed(instance, fault)

    async def _start(self, instance: Instance, prototype: ContainerSpec) -> None:
        if self._records is not None:
            self._records.note(instance, prototype, ready=False)
        await self._launcher.launch(instance, prototype)
        workload = instance.workload
        if workload is None:
            self._ready(instance, State.PREWARMED)
        elif workload.contract.specialises:
            await self._specialise(instance, workload)
        else:
            self._ready(instance, State.IDLE)

    async def _specialise(self, instance: Instance, workload: Workload) -> None:
        if self._records is not None:  # before any code is sent: it must never pass as generic again
            self._records.note(instance, workload.container, ready=False)
        await self._launcher.specialise(instance, workload)
        self._ready(instance, State.IDLE)

    def _ready(self, instance: Instance, state: State) -> None:
        if instance.state is State.STOPPING:
            return
        if self._records is not None:
            self._records.update(instance.id, ready=True)
        now = self.clock.now()
        self.ledger.enter(instance, state, now)
        instance.last_used = now
        if state is State.IDLE:
            instance.ready_at = now
        if self.listener is not None:
            self.listener.instance_ready(instance)

    # -- adopting -------------------------------------------------------------------------------------------

    def find(self, instance: Instance) -> None:
        """Count an instance that an earlier process left, as FOUND. Then `adopt` it or `remove` it."""
        self.ledger.add(instance)

    def adopt(self, instance: Instance, workload: Workload | None) -> None:
        """Adopt an instance that was found, with its workload or None if it is generic. If that fails, remove it."""
        self.ledger.adopt(instance, workload, self.clock.now())
        self._spawn_start(instance, self._adopt(instance))

    async def _adopt(self, instance: Instance) -> None:
        try:
            await self._launcher.adopt(instance)
        except PoolError as error:
            log.info("Removing %r, which cannot be adopted: %s", instance, error)
            self.remove(instance, Reason.ORPHANED)
            if self.listener is not None:
                self.listener.capacity_freed()  # the dispatcher may have counted on it
            return
        instance.adopted = True
        self._ready(instance, State.PREWARMED if instance.workload is None else State.IDLE)

    async def _leave(self) -> set[str]:
        """Disconnect from every instance that the next process can adopt; return their ids."""
        records = self._records
        if records is None:
            return set()
        everyone = [i for i in self.ledger.instances.values() if records.has(i.id)]
        resting = [i for i in everyone if i.state in UNUSED or i.state is State.PREWARMED]
        for instance in resting:
            if may_freeze(instance, float("inf")):  # no gateway freezes it until the next process
                self.freezer.freeze(instance)
        for instance in resting:
            await self.freezer.finished(instance)
            await self._launcher.leave(instance)
            records.update(instance.id, ready=True, served=instance.served)
        return {i.id for i in everyone if i in resting or i.state is State.FOUND}

    # -- leases ---------------------------------------------------------------------------------------------

    def lease(self, instance: Instance, invocation: str, arrived: float) -> Lease:
        """Lease a free slot of an instance. It takes effect at once."""
        assert instance.workload is not None
        now = self.clock.now()
        lease = Lease(instance, instance.workload, invocation, arrived, now)
        if instance.in_use == 0:
            frozen = instance.state is State.FROZEN
            self.ledger.enter(instance, State.BUSY, now)
            self._latest[instance.id] = lease
            if frozen:
                self.freezer.thaw(instance)
        else:
            self._latest[instance.id] = None  # with several calls at once, output belongs to none
        instance.in_use += 1
        lease.take()
        return lease

    def release(self, lease: Lease, fatal: Reason | None = None, used: bool = True) -> None:
        """End a lease; a second time is harmless. `used` is False if nothing was called. `fatal` is the reason if the
        instance must serve no further call."""
        if lease.ended:
            return
        instance, now = lease.instance, self.clock.now()
        lease.end(now)
        instance.in_use -= 1
        instance.served += used
        instance.last_used = now
        if instance.state in GOING:
            return
        if lease.workload.wears_out and used and fatal is None:
            fatal = lease.workload.worn_out(instance.served)
        if instance.in_use == 0:
            if instance.state is State.DRAINING:
                self.remove(instance, Reason(instance.reason or Reason.REPLACED))
            elif fatal is not None:
                self.remove(instance, fatal)
            else:
                self.ledger.enter(instance, State.IDLE, now)
        elif fatal is not None:
            self.drain(instance, fatal)

    def measure(self, instance: Instance) -> None:
        """Measure the memory of an instance, if that is possible without the engine."""
        instance.measured_at = self.clock.now()
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):
                instance.measured = instance.cgroup.memory_in_use()

    # -- removing -------------------------------------------------------------------------------------------

    def renew(self, workload: Workload) -> None:
        """Apply changed limits to the instances of a revision. Changes that make no new revision are applied so."""
        for instance in self.ledger.of(workload.function):
            if instance.workload is not None and instance.workload.version == workload.version:
                instance.workload = workload

    def drain(self, instance: Instance, reason: Reason, pause: float = 0.0) -> None:
        """Accept no new call on an instance, and remove it when its calls have ended. `pause`: see `remove`."""
        if instance.state is State.BUSY:
            self._forget(instance)
            self.ledger.enter(instance, State.DRAINING, self.clock.now())
            instance.reason = str(reason)
        elif instance.state is not State.DRAINING:
            self.remove(instance, reason, pause)

    def remove(self, instance: Instance, reason: Reason, pause: float = 0.0) -> None:
        """Remove an instance; running calls are lost. Its container goes after `pause` seconds. Twice is harmless."""
        if instance.state in (State.STOPPING, State.GONE):
            return
        if not pause:
            self._forget(instance)
        self.ledger.stop(instance, reason, self.clock.now())
        self._removals[instance.id] = asyncio.ensure_future(self._destroy(instance, pause))

    def _forget(self, instance: Instance) -> None:
        """Remove the record of an instance that must serve no further call, so that no later process adopts it."""
        if self._records is not None:
            try:
                self._records.drop(instance.id)
            except OSError as error:
                log.warning("Cannot remove the record of %r: %s", instance, error)

    async def _destroy(self, instance: Instance, pause: float) -> None:
        if pause:
            await self.clock.sleep(pause)
            self._forget(instance)  # a process that came sooner could adopt it: it has served well
        start = self._starts.get(instance.id)
        if start is not None and not start.done():
            start.cancel()
            await asyncio.wait((start,))
        await self._destroy_surely(instance)
        await self.freezer.finished(instance)
        self.ledger.enter(instance, State.GONE, self.clock.now())
        self._metrics.removals.labels(instance.reason).inc()
        self.printed.forget(instance)
        self._removals.pop(instance.id, None)
        if self.listener is not None:
            self.listener.capacity_freed()

    async def _destroy_surely(self, instance: Instance) -> None:
        """Try until an instance's container is known to be gone. Until then it counts: it may still run."""
        retries = Retries(REMOVE_RETRY)
        while True:
            try:
                await self._launcher.destroy(instance)
                return
            except EngineDown as error:  # nothing was asked; the guard has logged why
                retries.succeeded()
                pause = error.retry_after * jitter()
            except Exception as error:
                pause = retries.failed()
                unforeseen = None if isinstance(error, EngineError) else error
                log.warning(
                    "Cannot remove %r; trying again in %.1f s: %s",
                    instance,
                    pause,
                    error,
                    exc_info=unforeseen,
                )
            await self.clock.sleep(pause)

    async def close(self, keep_warm: bool = False) -> int:
        """Remove every instance and wait until all are gone; return how many were kept. `keep_warm` keeps those that
        the next process can adopt, frozen if possible."""
        keep = await self._leave() if keep_warm else set()
        # In a loop: a call that ends meanwhile may cause another start.
        while going := [i for i in self.ledger.instances.values() if i.id not in keep]:
            for instance in going:
                self.remove(instance, Reason.SHUTDOWN)
            await asyncio.wait(list(self._removals.values()))
        return len(keep)

    # -- reports of the launcher --------------------------------------------------------------------------

    def running(self, instance: Instance) -> None:
        """Note that the instance's container runs; only the program in it is awaited now."""
        self.clock.call_later(SLOW_START_SECONDS, self._unless_ready, instance)

    def _unless_ready(self, instance: Instance) -> None:
        # A generic instance runs no function's program: it counts as starting until it is ready.
        if instance.state in PENDING and instance.workload is not None and not instance.slow:
            self.ledger.note_slow(instance)
            if self.listener is not None:
                self.listener.capacity_freed()

    def slots_changed(self, instance: Instance) -> None:
        """Note that a connection of the instance was opened or closed."""
        if self.listener is not None and instance.state in LIVE:
            self.listener.slots_changed(instance)

    def output(self, instance: Instance, data: bytes) -> None:
        """Log what an instance prints."""
        self.printed.take(instance, data)

    def remembers(self, instance: Instance) -> bool:
        """Return whether anything of an instance is still in memory: its place, a task, its lease or its log."""
        kept = (self.ledger.instances, self._starts, self._removals)
        return any(instance.id in each for each in kept) or self.printed.remembers(instance)

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks that start and remove instances now."""
        return [*self._starts.values(), *self._removals.values()]

    def __repr__(self) -> str:
        return f"<Pool {self.ledger!r}>"
