"""The dispatcher: one synchronous assignment pass over waiters and instances.

It runs on every arrival, release, start, death and cancellation, and never awaits. What it decides takes effect
in the pool's ledger at once (a picked instance is leased inside the pass); the pool's tasks do the slow part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

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
from scheduler.dispatch.eviction import KeepAlivePolicy
from scheduler.dispatch.evictor import Evictor
from scheduler.dispatch.function import Function, Limits, Prewarm, Settle, Waiter
from scheduler.dispatch.growth import Growth
from scheduler.dispatch.upkeep import Upkeep, engine_was_down, pause_after


class Dispatcher:
    """Gives slots to invocations, and decides what is started and evicted for it."""

    def __init__(
        self,
        pool: Pool,
        clock: Clock,
        cores: int,
        policy: KeepAlivePolicy = KeepAlivePolicy.GDSF,
        engine_down: Callable[[], EngineDown | None] = lambda: None,
    ) -> None:
        self.pool = pool
        self.functions: dict[str, Function] = {}
        self._clock = clock
        self._hungry: dict[str, Function] = {}
        self.draining = False
        self._upkeep = Upkeep(pool, clock, self.functions, self._needs_starts)
        evictor = Evictor(pool, self.functions, self._upkeep.prewarm, policy)
        self._growth = Growth(
            pool,
            clock,
            cores,
            self.functions,
            self._hungry,
            evictor,
            self._upkeep.soon,
            engine_down,
            self._refuse,
        )
        self._engine_down = engine_down
        pool.listener = self

    # -- calls ----------------------------------------------------------------------------------------------

    def try_lease(self, function: Function, invocation: str, arrived: float) -> Lease | None:
        """A slot that is free now, or None: then `enqueue`."""
        if function.waiting:
            return None
        instance = pick(self.pool.ledger.of(function.name), function.workload.version)
        if instance is None:
            return None
        if function.workload.single_use:
            self._upkeep.soon()  # one of its `min_instances` is used up
        return self.pool.lease(instance, invocation, arrived)

    def enqueue(self, function: Function, invocation: str, arrived: float, settle: Settle) -> Waiter:
        """Take a place in the function's queue; `settle` is called with what comes of it, maybe before this returns.

        Raises `QueueFull` and `Gone`.
        """
        limits, now = function.limits, self._clock.now()
        if self.functions.get(function.name) is not function:
            raise Gone(f"{function.name} is no longer deployed")
        if function.waiting >= limits.queue_size:
            raise QueueFull(function.name, limits.queue_size, max(1.0, function.exec_seconds or 1.0))
        waiter = Waiter(invocation, arrived, now + limits.queue_timeout, settle)
        function.queue.append(waiter)
        function.waiting += 1
        self._hungry[function.name] = function
        if function.expiry is None:
            function.expiry = self._clock.call_later(limits.queue_timeout, self._expire_due, function)
        if function.waiting == 1:
            self._serve(function)  # a slot may have become free since the caller looked
        if function.waiting > function.enough_for:
            self._growth.run(arrived_for=function)
        return waiter

    def refuse(self, function: Function, waiter: Waiter, fault: Exception) -> None:
        """Take a waiter out of the queue, unless it has its slot already; it is told the fault."""
        self._refuse(function, waiter, fault)
        self._growth.run()

    def _refuse(self, function: Function, waiter: Waiter, fault: Exception) -> None:
        if not waiter.left:
            self._leave(function, waiter)
            waiter.settle(None, fault)

    def leave(self, function: Function, waiter: Waiter) -> None:
        """The waiter gives up its place, unless it has left the queue already; it is told nothing."""
        if not waiter.left:
            self._leave(function, waiter)
            self._growth.run()  # who waited behind it for memory is next

    def release(self, lease: Lease, fatal: Reason | None = None, used: bool = True) -> None:
        """End a lease and serve the next waiter. `fatal`: the instance must serve nobody any more. `used`: False
        when nothing was called, so that nothing was measured."""
        if lease.ended:
            return
        hungry = self._hungry
        if hungry and self._growth.reclaimer.owed:
            self._growth.reclaimer.collect(lease.instance)
        self.pool.release(lease, fatal, used)
        function = self.functions.get(lease.workload.function)
        if function is None:
            return
        if used:
            function.calls += 1
            lease.instance.clock = self._growth.evictor.clock
            if function.workload.version == lease.workload.version:
                took = lease.seconds if lease.exec_seconds is None else min(lease.exec_seconds, lease.seconds)
                function.exec_seconds = smooth_low(function.exec_seconds, took)
        if not hungry:
            return
        if function.waiting:
            self._serve(function, freed=lease.instance)
        if hungry and (fatal is not None or not function.waiting or self._growth.memory_was_short):
            self._growth.run()  # an instance less for these, or one that may be evicted for others

    def _expire_due(self, function: Function) -> None:
        """Refuse who has waited for `queue_timeout`. The queue is in order of deadlines: one timer is enough."""
        function.expiry = None
        now = self._clock.now()
        while (waiter := function.first_waiter()) is not None:
            if waiter.deadline > now:
                function.expiry = self._clock.call_later(waiter.deadline - now, self._expire_due, function)
                break
            self._refuse(function, waiter, NoCapacity(self._why_no_capacity(function)))
        self._growth.run()

    def _why_no_capacity(self, function: Function) -> str:
        why = "every instance is busy"
        if self._memory_is_short(function):
            why = "the gateway's memory budget is in use"
        elif self.pool.ledger.count(function.name) == 0:
            why = "no instance could be started"
        elif not any(i.state in LIVE for i in self.pool.ledger.of(function.name)):
            why = "its instances have not become ready yet"
        waited = function.limits.queue_timeout
        return f"no instance of {function.name} within {waited:g} s (queue_timeout): {why}"

    def _memory_is_short(self, function: Function) -> bool:
        ledger = self.pool.ledger
        return (
            ledger.memory_free < function.workload.container.memory
            and ledger.count(function.name) < function.workload.max_instances
        )

    def _leave(self, function: Function, waiter: Waiter) -> None:
        """A waiter is in the queue no more (which skips it when its turn comes)."""
        waiter.left = True
        function.waiting -= 1
        if not function.waiting:
            function.queue.clear()
            if function.expiry is not None:
                function.expiry.cancel()
                function.expiry = None
            self._hungry.pop(function.name, None)
            self._upkeep.soon()

    # -- what is deployed -----------------------------------------------------------------------------------

    def deploy(self, workload: Workload, limits: Limits) -> Function:
        """Serve a function version from now on. Instances of its older versions drain; waiters get the new one."""
        function = self.functions.get(workload.function)
        if function is None:
            function = self.functions[workload.function] = Function(workload, limits)
        else:
            same = function.workload.version == workload.version
            function.workload, function.limits = workload, limits
            function.starts_work()
            if not same:
                function.exec_seconds = None
                self._retire(function.name, keep=workload.version)
            self.pool.renew(workload)
            self._shorten_waits(function)
        self._run()
        return function

    def _shorten_waits(self, function: Function) -> None:
        """Nobody waits longer than the `queue_timeout` of now: so the queue stays in order of deadlines."""
        latest = self._clock.now() + function.limits.queue_timeout
        for waiter in function.queue:
            waiter.deadline = min(waiter.deadline, latest)
        if function.expiry is not None:
            function.expiry.cancel()
        self._expire_due(function)

    def withdraw(self, name: str) -> None:
        """Take a function out of service: what waits is refused, what runs finishes."""
        function = self.functions.pop(name, None)
        if function is None:
            return
        for waiter in list(function.queue):
            self._refuse(function, waiter, Gone(f"{name} is no longer deployed"))
        self._retire(name, keep=None)
        self._run()

    def close(self) -> None:
        """Start nothing any more, and refuse what still waits."""
        self.draining = True
        for function in list(self._hungry.values()):
            for waiter in list(function.queue):
                self._refuse(function, waiter, NoCapacity("the gateway is shutting down"))

    def _retire(self, name: str, keep: str | None) -> None:
        for instance in list(self.pool.ledger.of(name)):
            if instance.workload is not None and instance.workload.version != keep:
                self.pool.drain(instance, Reason.REPLACED)

    def set_prewarm(self, wanted: dict[str, Prewarm]) -> None:
        """Keep these prewarm pools (by image) and no others."""
        self._upkeep.set_prewarm(wanted)

    @property
    def prewarm(self) -> dict[str, Prewarm]:
        """The prewarm pools that are kept, by image."""
        return self._upkeep.prewarm

    def is_provisioned(self, instance: Instance) -> bool:
        """Whether an instance is one of its function's `min_instances`."""
        return self._upkeep.is_provisioned(instance)

    def settled(self) -> bool:
        """Whether every function has its `min_instances`, or has failed to get them."""
        return self._upkeep.settled()

    # -- what the pool reports ------------------------------------------------------------------------------

    def instance_ready(self, instance: Instance) -> None:
        """An instance has become IDLE or PREWARMED."""
        workload = instance.workload
        if workload is None:
            self._upkeep.prewarmed()
        else:
            function = self.functions.get(workload.function)
            if function is None or function.workload.version != workload.version:
                self.pool.remove(instance, Reason.REPLACED)
            else:
                self._growth.note_start(function, instance)
        self._run()
        if instance.state is State.PREWARMED:
            self._upkeep.remove_surplus()

    def start_failed(self, instance: Instance, error: PoolError) -> None:
        """An instance did not become ready. Who waits with nobody left to serve them is told why."""
        if instance.workload is None:
            self._upkeep.prewarming_failed(error)
            self._run()
            return
        function = self.functions.get(instance.workload.function)
        if function is None or function.workload.version != instance.workload.version:
            self._run()
            return
        if not engine_was_down(error):  # else `engine_back` has it tried again
            self._back_off(function, error)
        if not any(i.state in LIVE or i.state in PENDING for i in function.instances(self.pool.ledger)):
            fault = error if isinstance(error, FunctionBroken) else self._growth.blocked(function)
            fault = fault or NoCapacity(str(error))
            for waiter in list(function.queue):
                self._refuse(function, waiter, fault)
        self._run()

    def _back_off(self, function: Function, error: PoolError) -> None:
        """A start has failed: the next is tried later, the later the more have failed in a row."""
        function.failures += 1
        function.last_fault = str(error)
        function.blocked = None if isinstance(error, FunctionBroken) else function.last_fault
        pause = pause_after(function.failures, error)
        function.not_before = self._clock.now() + pause
        self._clock.call_later(pause, self._upkeep.soon)

    def engine_back(self) -> None:
        """The engine answers again: start what waited for it."""
        self._run()

    def capacity_freed(self) -> None:
        """An instance is gone: memory and a place are free."""
        self._run()

    def slots_changed(self, instance: Instance) -> None:
        """A connection of an instance came or went."""
        if instance.workload is not None and (function := self.functions.get(instance.workload.function)):
            self._serve(function)

    # -- the pass -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for function in list(self._hungry.values()):
            self._serve(function)
        self._growth.run()
        self._upkeep.soon()

    def _serve(self, function: Function, freed: Instance | None = None) -> None:
        """Lease free slots to waiters, first come, first served. `freed`: the instance that has a slot again, one;
        while somebody waited no other had any."""
        while function.waiting and (waiter := function.first_waiter()) is not None:
            instances = self.pool.ledger.of(function.name) if freed is None else (freed,)
            instance = pick(instances, function.workload.version)
            if instance is None:
                return
            self._leave(function, waiter)
            waiter.settle(self.pool.lease(instance, waiter.invocation, waiter.arrived), None)
            if freed is not None:
                return

    def _needs_starts(self) -> bool:
        """Whether calls need the starts that there can be, if any: what is only kept ready then comes later."""
        if self.draining or self._engine_down() is not None:
            return True
        return any(self._growth.helps(function) for function in self._hungry.values())

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self.functions)} functions, {len(self._hungry)} hungry, {self.pool!r}>"


class Queued:
    """A place in a function's queue, for a task that waits in it. Raises `QueueFull` and `Gone`."""

    def __init__(self, dispatcher: Dispatcher, function: Function, invocation: str, arrived: float) -> None:
        self._dispatcher = dispatcher
        self._function = function
        self._lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiter = dispatcher.enqueue(function, invocation, arrived, self._settle)

    def _settle(self, lease: Lease | None, fault: Exception | None) -> None:
        if self._lease.done():  # cancelled, and its task has not run since
            if lease is not None:
                asyncio.get_running_loop().call_soon(partial(self._dispatcher.release, lease, used=False))
        elif lease is not None:
            self._lease.set_result(lease)
        elif fault is not None:
            self._lease.set_exception(fault)

    async def collect(self) -> Lease:
        """The slot, whichever comes first: one freed or one started.

        Raises `NoCapacity` (not in time, or the platform cannot start one), `FunctionBroken` (its instances do not
        start) and `Gone`. A caller that is cancelled leaves no trace.
        """
        try:
            return await self._lease
        except asyncio.CancelledError:
            self._dispatcher.leave(self._function, self._waiter)
            if not self._lease.cancelled() and self._lease.exception() is None:
                self._dispatcher.release(
                    self._lease.result(), used=False
                )  # it won just before its caller gave up
            raise

    def refuse(self, fault: Exception) -> None:
        """Give up the place, unless the slot is there already; `collect` raises the fault."""
        self._dispatcher.refuse(self._function, self._waiter, fault)
