"""The pool: holds instances and carries out what was decided about them.

Everything synchronous here takes effect at once in the ledger; the slow part (engine, sockets) runs in a task
that belongs to the instance. When something has happened, the listener (the dispatcher) is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, Protocol

from pool.backoff import Backoff, Retries, jitter
from pool.clock import Clock
from pool.engine.base import ContainerSpec, EngineDown, EngineError
from pool.errors import PoolError
from pool.freezer import Freezer, may_freeze
from pool.host.uids import OWN_USER
from pool.instance import Instance, InstanceRecords
from pool.lease import Lease
from pool.ledger import Ledger
from pool.observe.logs import InstanceLog, LogStore
from pool.observe.metrics import Metrics
from pool.states import GOING, LIVE, PENDING, UNUSED, Reason, State
from pool.workload import Workload

log = logging.getLogger("hearth.pool")

REMOVE_RETRY = Backoff(0.2, 5.0)
"""Pauses until a removal that failed is tried again."""
INSTANCE_LOG = 64 * 1024
SLOW_START = 1.0
"""Seconds that a function's own program has, once its container runs, before starts of others wait for it no more."""


class Listener(Protocol):
    """Who decides; told of everything that may change a decision."""

    def instance_ready(self, instance: Instance) -> None:
        """An instance has become IDLE or PREWARMED."""

    def start_failed(self, instance: Instance, error: PoolError) -> None:
        """An instance did not become ready; it is being removed."""

    def capacity_freed(self) -> None:
        """An instance is gone: memory and a place are free."""

    def slots_changed(self, instance: Instance) -> None:
        """A connection of an instance came or went."""


class Launches(Protocol):
    """The work on the engine; `pool.launcher.Launcher`, or a fake on virtual time."""

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None: ...

    async def specialise(self, instance: Instance, workload: Workload) -> None: ...

    async def adopt(self, instance: Instance) -> None: ...

    async def leave(self, instance: Instance) -> None: ...

    async def pause(self, instance: Instance) -> None: ...

    async def unpause(self, instance: Instance) -> None: ...

    async def destroy(self, instance: Instance) -> None: ...


class Pool:
    """Instances, leases, and the tasks that start and remove them."""

    def __init__(
        self,
        launcher: Launches,
        clock: Clock,
        metrics: Metrics,
        logs: LogStore,
        memory_budget: int,
        records: InstanceRecords | None = None,
    ) -> None:
        """`records`: where to write what instances become, for the next process; None: it can adopt none."""
        self.ledger = Ledger(memory_budget)
        self.clock = clock
        self.logs = logs
        self.listener: Listener | None = None
        self.freezer = Freezer(self.ledger, clock, launcher, self.remove)
        self._launcher = launcher
        self._records = records
        self._metrics = metrics
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._current: dict[str, Lease | None] = {}
        self._instance_logs: dict[str, InstanceLog] = {}

    # -- starting -------------------------------------------------------------------------------------------

    def start(self, workload: Workload) -> Instance:
        """Reserve and start an instance of a function."""
        return self._begin(
            Instance(
                new_id(), workload.container.image, workload.container.memory, workload, self.clock.now()
            ),
            workload.container,
        )

    def prewarm(self, prototype: ContainerSpec) -> Instance:
        """Reserve and start a generic instance."""
        return self._begin(
            Instance(new_id(), prototype.image, prototype.memory, None, self.clock.now()), prototype
        )

    def _begin(self, instance: Instance, prototype: ContainerSpec) -> Instance:
        if prototype.user == OWN_USER:
            instance.uid = self.ledger.uids.free()
        self.ledger.add(instance)
        self._spawn_start(instance, self._start(instance, prototype))
        return instance

    def specialise(self, instance: Instance, workload: Workload) -> None:
        """Give a prewarmed instance to a function, for ever."""
        instance.given_at = self.clock.now()
        self.ledger.give(instance, workload, instance.given_at)
        self.running(instance)
        self._spawn_start(instance, self._specialise(instance, workload))

    def _spawn_start(self, instance: Instance, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guard(instance, work))
        self._starts[instance.id] = task
        task.add_done_callback(
            lambda _: self._starts.pop(instance.id, None) if self._starts.get(instance.id) is task else None
        )

    async def _guard(self, instance: Instance, work: Coroutine[Any, Any, None]) -> None:
        """Whatever goes wrong with a start ends in a removal and in a word to the listener."""
        try:
            await work
        except Exception as error:
            fault = error if isinstance(error, PoolError) else PoolError(f"{type(error).__name__}: {error}")
            if not isinstance(error, PoolError):
                log.exception("Starting %r failed because of a fault of the gateway", instance)
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
        if self._records is not None:  # before any code is sent: it is never taken for a generic one again
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
        """Count an instance that an earlier process left; it is FOUND. Then `adopt` it or `remove` it."""
        self.ledger.add(instance)

    def adopt(self, instance: Instance, workload: Workload | None) -> None:
        """Take over an instance that was found; None: it is generic. It is removed if that does not work."""
        self.ledger.adopt(instance, workload, self.clock.now())
        self._spawn_start(instance, self._adopt(instance))

    async def _adopt(self, instance: Instance) -> None:
        try:
            await self._launcher.adopt(instance)
        except PoolError as error:
            log.info("Removing %r, which cannot be adopted: %s", instance, error)
            self.remove(instance, Reason.ORPHANED)
            if self.listener is not None:
                self.listener.capacity_freed()  # who counted on it has to look again
            return
        instance.adopted = True
        self._ready(instance, State.PREWARMED if instance.workload is None else State.IDLE)

    async def _leave(self) -> set[str]:
        """Let go of every instance that the next process can adopt; their ids."""
        records = self._records
        if records is None:
            return set()
        everyone = [i for i in self.ledger.instances.values() if records.has(i.id)]
        resting = [i for i in everyone if i.state in UNUSED or i.state is State.PREWARMED]
        for instance in resting:
            if may_freeze(instance, float("inf")):  # nobody looks after it meanwhile
                self.freezer.freeze(instance)
        for instance in resting:
            await self.freezer.finished(instance)
            await self._launcher.leave(instance)
            records.update(instance.id, ready=True, served=instance.served)
        return {i.id for i in everyone if i in resting or i.state is State.FOUND}

    # -- leases ---------------------------------------------------------------------------------------------

    def lease(self, instance: Instance, invocation: str, arrived: float) -> Lease:
        """Lease a slot of an instance that has one free. Effective at once."""
        assert instance.workload is not None
        now = self.clock.now()
        lease = Lease(instance, instance.workload, invocation, arrived, now)
        if instance.in_use == 0:
            frozen = instance.state is State.FROZEN
            self.ledger.enter(instance, State.BUSY, now)
            self._current[instance.id] = lease
            if frozen:
                self.freezer.thaw(instance)
        else:
            self._current[instance.id] = None  # several at once: the output cannot be attributed
        instance.in_use += 1
        lease.take()
        return lease

    def release(self, lease: Lease, fatal: Reason | None = None, used: bool = True) -> None:
        """End a lease; a second time is harmless. `fatal`: the instance must serve nobody any more, and why.
        `used`: False when nothing was called."""
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
            fatal = worn_out(lease.workload, instance.served)
        if instance.in_use == 0:
            self._current[instance.id] = None
            if instance.state is State.DRAINING:
                self.remove(instance, Reason(instance.reason or Reason.REPLACED))
            elif fatal is not None:
                self.remove(instance, fatal)
            else:
                self.ledger.enter(instance, State.IDLE, now)
        elif fatal is not None:
            self.drain(instance, fatal)

    def measure(self, instance: Instance) -> None:
        """Note how much memory an instance uses, where that can be seen without the engine."""
        instance.measured_at = self.clock.now()
        if instance.cgroup is not None:
            with contextlib.suppress(OSError):
                instance.measured = instance.cgroup.memory_in_use()

    # -- removing -------------------------------------------------------------------------------------------

    def renew(self, workload: Workload) -> None:
        """Let the instances of a function version go by what is said of it now, where that makes no new version."""
        for instance in self.ledger.of(workload.function):
            if instance.workload is not None and instance.workload.version == workload.version:
                instance.workload = workload

    def drain(self, instance: Instance, reason: Reason) -> None:
        """Accept nothing new on an instance; it is removed when what runs on it has finished."""
        if instance.state is State.BUSY:
            self._forget(instance)
            self.ledger.enter(instance, State.DRAINING, self.clock.now())
            instance.reason = str(reason)
        elif instance.state is not State.DRAINING:
            self.remove(instance, reason)

    def remove(self, instance: Instance, reason: Reason) -> None:
        """Remove an instance now; calls that run on it are lost. A second time is harmless."""
        if instance.state in (State.STOPPING, State.GONE):
            return
        self._forget(instance)
        self.ledger.stop(instance, reason, self.clock.now())
        self._removals[instance.id] = asyncio.ensure_future(self._destroy(instance))

    def _forget(self, instance: Instance) -> None:
        """It must serve nobody any more: if this process is killed now, the next does not adopt it."""
        if self._records is not None:
            try:
                self._records.drop(instance.id)
            except OSError as error:
                log.warning("Cannot remove the record of %r: %s", instance, error)

    async def _destroy(self, instance: Instance) -> None:
        start = self._starts.get(instance.id)
        if start is not None and not start.done():
            start.cancel()
            await asyncio.wait((start,))
        await self._destroy_surely(instance)
        await self.freezer.finished(instance)
        self.ledger.enter(instance, State.GONE, self.clock.now())
        self._metrics.removals.labels(instance.reason).inc()
        self._current.pop(instance.id, None)
        self._instance_logs.pop(instance.id, None)
        self._removals.pop(instance.id, None)
        if self.listener is not None:
            self.listener.capacity_freed()

    async def _destroy_surely(self, instance: Instance) -> None:
        """Return when an instance's container is known to be gone: until then it counts, for it may still run."""
        retries = Retries(REMOVE_RETRY)
        while True:
            try:
                await self._launcher.destroy(instance)
                return
            except EngineDown as error:  # nothing was asked, and the guard has logged why
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
        """Remove every instance and wait until all are gone; returns how many were left. `keep_warm`: leave those
        that the next process can adopt, frozen where they may be."""
        keep = await self._leave() if keep_warm else set()
        # Again and again: a call that ends meanwhile may have another one started.
        while going := [i for i in self.ledger.instances.values() if i.id not in keep]:
            for instance in going:
                self.remove(instance, Reason.SHUTDOWN)
            await asyncio.wait(list(self._removals.values()))
        return len(keep)

    # -- what the launcher reports --------------------------------------------------------------------------

    def running(self, instance: Instance) -> None:
        """The instance's container runs: what is waited for from now on is the program in it."""
        self.clock.call_later(SLOW_START, self._unless_ready, instance)

    def _unless_ready(self, instance: Instance) -> None:
        # A generic instance runs nobody's code: it is left to count, so that no second one is started for it.
        if instance.state in PENDING and instance.workload is not None and not instance.slow:
            self.ledger.note_slow(instance)
            if self.listener is not None:
                self.listener.capacity_freed()

    def slots_changed(self, instance: Instance) -> None:
        """A connection of the instance came or went."""
        if self.listener is not None and instance.state in LIVE:
            self.listener.slots_changed(instance)

    def output(self, instance: Instance, data: bytes) -> None:
        """Something that an instance has printed: of the one invocation that runs on it, else of the instance."""
        lease = self._current.get(instance.id)
        if lease is not None:
            self.logs.write(lease.invocation, data)
        else:
            self._instance_logs.setdefault(instance.id, InstanceLog(INSTANCE_LOG)).write(data)

    def instance_log(self, instance: Instance) -> bytes:
        """What an instance has printed that belongs to no single invocation."""
        kept = self._instance_logs.get(instance.id)
        return kept.read() if kept else b""

    def __repr__(self) -> str:
        return f"<Pool {self.ledger!r}>"


def worn_out(workload: Workload, served: int) -> Reason | None:
    """Why an instance that has served so many calls serves no more; None if it does."""
    if workload.single_use:
        return Reason.SINGLE_USE
    if workload.max_invocations is not None and served >= workload.max_invocations:
        return Reason.MAX_INVOCATIONS
    return None


def new_id() -> str:
    """An id for an instance: 12 hexadecimal digits, also part of its container's name."""
    return secrets.token_hex(6)
