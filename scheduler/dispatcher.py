"""The dispatcher: one synchronous assignment pass over waiters and instances.

It runs on every arrival, release, start, death and cancellation, and never awaits. What it decides takes effect
in the pool's ledger at once (a picked instance is leased inside the pass); the pool's tasks do the slow part.
"""

from __future__ import annotations

import asyncio
import logging

from pool.clock import Clock
from pool.errors import FunctionBroken, PoolError
from pool.instance import Instance
from pool.lease import Lease
from pool.pool import Pool
from pool.states import LIVE, PENDING, Reason, State
from pool.workload import Workload
from scheduler.decisions import Demand, choose_victims, pick, smooth, smooth_low, wanted_starts
from scheduler.errors import Gone, NoCapacity, QueueFull
from scheduler.function import Function, Limits, Prewarm, Waiter

log = logging.getLogger("hearth.scheduler")

WORTH_WAITING = 0.02
"""Seconds: for a shorter wait no instance is started, however fast it would be there. Also the least time after
which a queue that is expected to move is looked at again."""
UPKEEP_DELAY = 0.05
"""Seconds without a need for a start before prewarmed and provisioned instances are started: calls come first."""
BACK_OFF = (1.0, 60.0)
"""Seconds until a start ahead is tried again after a failed one: first (doubled each time), and at most."""


class Dispatcher:
    """Gives slots to invocations, and decides what is started and evicted for it."""

    def __init__(self, pool: Pool, clock: Clock, cores: int) -> None:
        self.pool = pool
        self.functions: dict[str, Function] = {}
        self.prewarm: dict[str, Prewarm] = {}
        """By image."""
        self._clock = clock
        self._cores = cores
        self._hungry: dict[str, Function] = {}
        self._memory_was_short = False
        """Whether somebody waits for memory, and others behind it."""
        self._upkeep_due = False
        self._prewarm_failures = 0
        self._prewarm_not_before = 0.0
        self.draining = False
        pool.listener = self

    # -- calls ----------------------------------------------------------------------------------------------

    def try_lease(self, function: Function, invocation: str, arrived: float) -> Lease | None:
        """A slot that is free now, or None: then `wait`."""
        if function.waiting:
            return None
        instance = pick(self.pool.ledger.of(function.name), function.workload.version)
        if instance is None:
            return None
        if function.workload.single_use:
            self._upkeep_soon()  # one of its `min_instances` is used up
        return self.pool.lease(instance, invocation, arrived)

    async def wait(self, function: Function, invocation: str, arrived: float) -> Lease:
        """Wait in the function's queue for a slot, whichever comes first: one freed or one started.

        Raises `QueueFull`, `NoCapacity` (not in time, or the platform cannot start one), `FunctionBroken` (its
        instances do not start) and `Gone`. A caller that is cancelled leaves no trace.
        """
        waiter = self.enqueue(function, invocation, arrived)
        return await self.collect(function, waiter)

    def enqueue(self, function: Function, invocation: str, arrived: float) -> Waiter:
        """Take a place in the function's queue; then `collect`. Raises `QueueFull` and `Gone`."""
        limits, now = function.limits, self._clock.now()
        if self.functions.get(function.name) is not function:
            raise Gone(f"{function.name} is no longer deployed")
        if function.waiting >= limits.queue_size:
            raise QueueFull(function.name, limits.queue_size, max(1.0, function.exec_seconds or 1.0))
        lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = Waiter(invocation, arrived, now + limits.queue_timeout, lease)
        function.queue.append(waiter)
        function.waiting += 1
        self._hungry[function.name] = function
        if function.expiry is None:
            function.expiry = self._clock.call_later(limits.queue_timeout, self._expire_due, function)
        if function.waiting > function.enough_for:
            self._grow_all(arrived_for=function)
        return waiter

    async def collect(self, function: Function, waiter: Waiter) -> Lease:
        """The slot that a waiter gets. Raises as `wait` does."""
        try:
            return await waiter.lease
        except asyncio.CancelledError:
            if waiter.lease.cancelled():
                self._leave(function)
                self._grow_all()  # who waited behind it for memory is next
            elif waiter.lease.exception() is None:
                self.release(waiter.lease.result(), used=False)  # it won just before its caller gave up
            raise

    def refuse(self, function: Function, waiter: Waiter, fault: Exception) -> None:
        """Take a waiter out of the queue, unless it has its slot already; `collect` raises the fault."""
        self._refuse(function, waiter, fault)
        self._grow_all()

    def _refuse(self, function: Function, waiter: Waiter, fault: Exception) -> None:
        if not waiter.lease.done():
            waiter.lease.set_exception(fault)
            self._leave(function)

    def release(self, lease: Lease, fatal: Reason | None = None, used: bool = True) -> None:
        """End a lease and serve the next waiter. `fatal`: the instance must serve nobody any more. `used`: False
        when nothing was called, so that nothing was measured."""
        if lease.ended:
            return
        self.pool.release(lease, fatal, used)
        function = self.functions.get(lease.workload.function)
        if function is None:
            return
        if used and function.workload.version == lease.workload.version:
            function.exec_seconds = smooth_low(function.exec_seconds, lease.seconds)
        if function.waiting:
            self._serve(function)
        if self._hungry and (fatal is not None or not function.waiting or self._memory_was_short):
            self._grow_all()  # an instance less for these, or one that may be evicted for others

    def _expire_due(self, function: Function) -> None:
        """Refuse who has waited for `queue_timeout`. The queue is in order of deadlines: one timer is enough."""
        function.expiry = None
        now = self._clock.now()
        while (waiter := function.first_waiter()) is not None:
            if waiter.deadline > now:
                function.expiry = self._clock.call_later(waiter.deadline - now, self._expire_due, function)
                break
            self._refuse(function, waiter, NoCapacity(self._why_no_capacity(function)))
        self._grow_all()

    def _why_no_capacity(self, function: Function) -> str:
        why = "every instance is busy"
        if self._memory_is_short(function):
            why = "the gateway's memory budget is in use"
        elif self.pool.ledger.count(function.name) == 0:
            why = "no instance could be started"
        waited = function.limits.queue_timeout
        return f"no instance of {function.name} within {waited:g} s (queue_timeout): {why}"

    def _memory_is_short(self, function: Function) -> bool:
        ledger = self.pool.ledger
        return (
            ledger.memory_free < function.workload.container.memory
            and ledger.count(function.name) < function.workload.max_instances
        )

    def _leave(self, function: Function) -> None:
        """A waiter is in the queue no more (its future is done, so that the queue skips it)."""
        function.waiting -= 1
        if not function.waiting:
            function.queue.clear()
            if function.expiry is not None:
                function.expiry.cancel()
                function.expiry = None
            self._hungry.pop(function.name, None)
            self._upkeep_soon()

    # -- what is deployed -----------------------------------------------------------------------------------

    def deploy(self, workload: Workload, limits: Limits) -> Function:
        """Serve a function version from now on. Instances of its older versions drain; waiters get the new one."""
        function = self.functions.get(workload.function)
        if function is None:
            function = self.functions[workload.function] = Function(workload, limits)
        else:
            same = function.workload.version == workload.version
            function.workload, function.limits = workload, limits
            function.failures, function.not_before, function.last_fault = 0, 0.0, None
            if not same:
                function.exec_seconds = None
                self._retire(function.name, keep=workload.version)
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
        self.prewarm = wanted
        for instance in list(self.pool.ledger.instances.values()):
            if instance.workload is None:
                target = wanted.get(instance.image)
                if target is None or instance.memory != target.prototype.memory:
                    self.pool.remove(instance, Reason.SURPLUS)
        self._remove_surplus()
        self._upkeep_soon()

    def _remove_surplus(self) -> None:
        for image, target in self.prewarm.items():
            for instance in self.pool.ledger.prewarmed(image)[target.count :]:
                self.pool.remove(instance, Reason.SURPLUS)

    # -- what the pool reports ------------------------------------------------------------------------------

    def instance_ready(self, instance: Instance) -> None:
        """An instance has become IDLE or PREWARMED."""
        workload = instance.workload
        if workload is None:
            self._prewarm_failures = 0
        else:
            function = self.functions.get(workload.function)
            if function is None or function.workload.version != workload.version:
                self.pool.remove(instance, Reason.REPLACED)
            else:
                self._note_start(function, instance)
        self._run()
        if instance.state is State.PREWARMED:
            self._remove_surplus()

    def _note_start(self, function: Function, instance: Instance) -> None:
        function.failures, function.not_before, function.last_fault = 0, 0.0, None
        assert instance.ready_at is not None
        if instance.born_generic:
            took = instance.ready_at - instance.given_at
            function.specialise_seconds = smooth(function.specialise_seconds, took)
        else:
            took = instance.ready_at - instance.created_at
            function.start_seconds = smooth(function.start_seconds, took)

    def start_failed(self, instance: Instance, error: PoolError) -> None:
        """An instance did not become ready. Who waits with nobody left to serve them is told why."""
        now = self._clock.now()
        if instance.workload is None:
            self._prewarm_failures += 1
            self._prewarm_not_before = now + back_off(self._prewarm_failures)
            log.warning("a prewarmed instance did not start: %s", error)
            self._clock.call_later(back_off(self._prewarm_failures), self._upkeep_soon)
            self._run()
            return
        function = self.functions.get(instance.workload.function)
        if function is None or function.workload.version != instance.workload.version:
            self._run()
            return
        function.failures += 1
        function.not_before = now + back_off(function.failures)
        function.last_fault = str(error)
        self._clock.call_later(back_off(function.failures), self._upkeep_soon)
        if not any(i.state in LIVE or i.state in PENDING for i in self._current(function)):
            fault = error if isinstance(error, FunctionBroken) else NoCapacity(str(error))
            for waiter in list(function.queue):
                self._refuse(function, waiter, fault)
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
        self._grow_all()
        self._upkeep_soon()

    def _serve(self, function: Function) -> None:
        """Lease free slots to waiters, first come, first served."""
        while function.waiting and (waiter := function.first_waiter()) is not None:
            instance = pick(self.pool.ledger.of(function.name), function.workload.version)
            if instance is None:
                return
            lease = self.pool.lease(instance, waiter.invocation, waiter.arrived)
            waiter.lease.set_result(lease)
            self._leave(function)

    def _grow_all(self, arrived_for: Function | None = None) -> None:
        """Start what is needed, for who has waited longest first. A function that waits for memory holds back
        those behind it from taking it: nobody starves."""
        self._memory_was_short = False
        waiting = [arrived_for] if arrived_for is not None and len(self._hungry) == 1 else None
        for function in waiting or sorted(self._hungry.values(), key=oldest_arrival):
            if not self._grow(function):
                self._memory_was_short = True
                return

    def _grow(self, function: Function) -> bool:
        """Start or specialise instances for the waiters of one function; False if it lacks memory."""
        demand = self._demand(function)
        wanted = wanted_starts(demand)
        if self._clock.now() < function.not_before:  # starts fail: try no more than whether they still do
            wanted = min(wanted, 0 if demand.live_slots or demand.pending else 1)
        function.enough_for = 0 if wanted else function.waiting
        for _ in range(wanted):
            if not self._start_one(function):
                return False
        if function.waiting and function.look_again is None:
            delay = self._expected_start(function)
            function.look_again = self._clock.call_later(delay, self._look_again, function)
        return True

    def _look_again(self, function: Function) -> None:
        """A queue that was expected to move has had its time."""
        function.look_again = None
        function.enough_for = 0
        if function.waiting and function.name in self._hungry:
            self._grow_all()

    def _start_one(self, function: Function) -> bool:
        workload, ledger = function.workload, self.pool.ledger
        if workload.generic:
            for instance in ledger.prewarmed(workload.container.image)[:1]:
                if not self._make_room(workload.container.memory - instance.memory, spare=instance):
                    return False
                self.pool.specialise(instance, workload)
                self._upkeep_soon()
                return True
            if ledger.refilling(workload.container.image):
                return True  # one is on its way; the pass runs again when it is there
        if ledger.starting >= self._cores:
            return True  # more at once would only make each slower; the pass runs again when one is ready
        if not self._make_room(workload.container.memory):
            return False
        self.pool.start(workload)
        return True

    def _make_room(self, needed: int, spare: Instance | None = None) -> bool:
        """Whether `needed` bytes are free now. If not, enough is evicted so that they will be, where possible."""
        ledger = self.pool.ledger
        if needed <= ledger.memory_free:
            return True
        missing = needed - ledger.memory_free - ledger.memory_stopping
        if missing > 0:
            idle = self._evictable()
            generic = [i for i in ledger.instances.values() if i.state is State.PREWARMED and i is not spare]
            for victim in choose_victims(missing, idle, generic) or ():
                self.pool.remove(victim, Reason.EVICTED)
        return False

    def _evictable(self) -> list[Instance]:
        """Idle instances, as many of each function as it has beyond its `min_instances`."""
        instances = self.pool.ledger.instances.values()
        idle = sorted((i for i in instances if i.state is State.IDLE), key=lambda i: i.last_used)
        spare = {f.name: self._provisioned(f) - f.workload.min_instances for f in self.functions.values()}
        evictable = []
        for instance in idle:
            name = instance.function or ""
            if spare.get(name, 0) > 0:
                spare[name] -= 1
                evictable.append(instance)
        return evictable

    def is_provisioned(self, instance: Instance) -> bool:
        """Whether an instance is one of its function's `min_instances`."""
        function = self.functions.get(instance.function or "")
        if function is None or function.workload.min_instances == 0:
            return False
        return self._provisioned(function) <= function.workload.min_instances

    def _demand(self, function: Function) -> Demand:
        workload = function.workload
        live = pending = 0
        for instance in self._current(function):
            live += instance.state in LIVE and instance.link is not None and instance.link.alive
            pending += instance.state in PENDING
        first = function.first_waiter()
        return Demand(
            waiters=function.waiting,
            live_slots=live * workload.concurrency,
            pending=pending,
            room=workload.max_instances - self.pool.ledger.count(function.name),
            concurrency=workload.concurrency,
            single_use=workload.single_use,
            exec_seconds=function.exec_seconds,
            start_seconds=self._expected_start(function),
            oldest_wait=self._clock.now() - first.arrived if first else 0.0,
            cores=self._cores,
        )

    def _expected_start(self, function: Function) -> float:
        workload = function.workload
        ready = workload.generic and self.pool.ledger.prewarmed(workload.container.image)
        return max(WORTH_WAITING, function.specialise_seconds if ready else function.start_seconds)

    def _current(self, function: Function) -> list[Instance]:
        version = function.workload.version
        return [i for i in self.pool.ledger.of(function.name) if i.workload and i.workload.version == version]

    # -- upkeep: instances that are started ahead ------------------------------------------------------------

    def _upkeep_soon(self) -> None:
        if not self._upkeep_due and not self.draining:
            self._upkeep_due = True
            self._clock.call_later(UPKEEP_DELAY, self._upkeep)

    def _upkeep(self) -> None:
        """Start one provisioned or prewarmed instance, if nobody waits for a start. Nothing is evicted for it."""
        self._upkeep_due = False
        ledger = self.pool.ledger
        if self.draining or self._hungry or ledger.starting or ledger.pending:
            return  # the pass that ends this comes back here
        now = self._clock.now()
        for function in self.functions.values():
            workload = function.workload
            if self._provisioned(function) < workload.min_instances and now >= function.not_before:
                room = workload.max_instances - ledger.count(function.name)
                if room > 0 and ledger.memory_free >= workload.container.memory:
                    self.pool.start(workload)
                    return
        if now < self._prewarm_not_before:
            return
        for image, target in self.prewarm.items():
            if len(ledger.prewarmed(image)) < target.count and ledger.memory_free >= target.prototype.memory:
                self.pool.prewarm(target.prototype)
                return

    def _provisioned(self, function: Function) -> int:
        """Instances that count towards `min_instances`: for single use only those that nobody uses yet."""
        states = PENDING | ({State.IDLE} if function.workload.single_use else LIVE)
        return sum(1 for instance in self._current(function) if instance.state in states)

    def settled(self) -> bool:
        """Whether every function has its `min_instances`, or has failed to get them."""
        return all(
            sum(1 for i in self._current(f) if i.state in LIVE) >= f.workload.min_instances or f.last_fault
            for f in self.functions.values()
        )

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self.functions)} functions, {len(self._hungry)} hungry, {self.pool!r}>"


def oldest_arrival(function: Function) -> float:
    """When the first waiter of a function arrived."""
    first = function.first_waiter()
    return first.arrived if first else float("inf")


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    first, most = BACK_OFF
    return min(most, first * 2.0 ** (failures - 1))
