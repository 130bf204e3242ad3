"""A pool and a dispatcher on virtual time, over the engine in memory: what the tests of both are run on.

The launcher is the only fake: it makes real calls to a `MemoryEngine`, which counts its containers by itself and
so is a witness that is independent of the pool's own books.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pool.adoption.adoption import Adoption
from pool.adoption.records import Records
from pool.clock import VirtualClock
from pool.contracts.handler import HANDLER
from pool.contracts.starter import start_failed
from pool.data_folder import DataFolder
from pool.engine.base import ContainerSpec, Engine, EngineError, NotFound
from pool.engine.guarded import GuardedEngine
from pool.engine.labels import GATEWAY_LABEL, INSTANCE_LABEL
from pool.engine.memory import Latency, MemoryEngine
from pool.errors import FunctionBroken, NotSent, StartFailed
from pool.host.uids import OWN_USER, UID_LABEL, UidRange, with_uid
from pool.instance import Instance
from pool.lease import Lease
from pool.observe.logs import LogStore
from pool.observe.metrics import Metrics
from pool.pool import Pool
from pool.reaper import Reaper
from pool.states import PENDING, Reason
from pool.supervise import Supervisor
from pool.transport.message import Call
from pool.workload import Workload
from scheduler.dispatch.decisions import pick
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.eviction import KeepAlivePolicy
from scheduler.dispatch.function import DEFAULT_MAX_INSTANCES, Function, Limits, Prewarm, Revision
from scheduler.dispatch.queued import Queued
from scheduler.dispatch.spares.plan import NO_SPARES, Keeping, SpareSettings

MIB = 2**20
IMAGE = "python:test"
OTHER_IMAGE = "other:test"
CREATE, START, REMOVE, SPECIALISE = 0.012, 0.118, 0.071, 0.015
"""Seconds that the fake's work takes; the engine's as measured on Docker."""
COLD = CREATE + START + SPECIALISE
"""Seconds from nothing to an instance of a function, where a core is free."""
UIDS = UidRange(70_000, 70_063)
"""So few that they come again."""
GATEWAY = "test"
"""The gateway's identity."""


class FakeConnection:
    """A slot of a `FakeLink`."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class FakeLink:
    """What a handler's link is: so many slots, given out one by one, lost when the instance dies."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.free: list[FakeConnection] = [FakeConnection()]
        self.taken: list[FakeConnection] = []
        self.alive = True
        self.closed = False

    def open(self, slots: int) -> None:
        """The shim dials until it has so many connections."""
        while len(self.free) + len(self.taken) < slots:
            self.free.append(FakeConnection())
        self._on_change()

    def lose(self) -> None:
        """Every connection ends: the process is dead, or the gateway's side was cut."""
        self.alive = False
        for connection in (*self.free, *self.taken):
            connection.aborted = True
        self.free.clear()
        self._on_change()

    def dial_again(self, slots: int) -> None:
        """A shim that is alive comes back."""
        if not self.closed:
            self.alive = True
            self.open(slots)

    def free_slots(self, in_use: int) -> int:
        assert in_use == len(self.taken), "slots in use that the link knows nothing of"
        return len(self.free)

    def take(self) -> FakeConnection | None:
        if not self.free:
            return None
        self.taken.append(self.free.pop())
        return self.taken[-1]

    async def connect(self, call: Call) -> Any:
        raise NotSent("only the shim dials")

    def give(self, connection: FakeConnection) -> None:
        self.taken.remove(connection)
        if not connection.aborted:
            self.free.append(connection)

    def drain_log(self) -> None:
        pass

    async def close(self) -> None:
        self.closed, self.alive = True, False
        for connection in (*self.free, *self.taken):
            connection.aborted = True
        self.free.clear()


class WitnessEngine(MemoryEngine):
    """Tells its observer just after every create call began."""

    on_create: Callable[[], None] = staticmethod(lambda: None)

    def count(self, spec: ContainerSpec, change: int) -> None:
        super().count(spec, change)
        if change > 0:
            self.on_create()


TRACEBACK = b"Traceback (most recent call last):\nModuleNotFoundError: No module named 'nowhere'\n"
"""Output of an instance whose import fails."""


class VirtualLauncher:
    """Launches on the engine in memory. What is in `broken` (`name` or `name@version`) cannot be imported."""

    def __init__(self, engine: Engine, clock: VirtualClock) -> None:
        self._engine = engine
        self._clock = clock
        self.pool: Pool | None = None
        self.broken: set[str] = set()
        self.endless: set[str] = set()
        """Functions, or versions of them, whose import does not come to its end."""
        self.die_at_import = 0
        """Instances that end while they import their handler, from now on."""
        self.owners: dict[str, str | None] = {}
        """Instance id to the function that its container was ever meant for."""
        self.launched: list[Instance] = []
        self.destroy_fault: Exception | None = None
        """Raised by the next `destroy`."""
        self.gateway_id = GATEWAY
        self.unreachable: set[str] = set()
        """Instances that cannot be adopted."""
        self.adopt_seconds = SPECIALISE

    async def launch(self, instance: Instance, prototype: ContainerSpec) -> None:
        self.owners[instance.id] = instance.function
        self.launched.append(instance)
        labels = {GATEWAY_LABEL: self.gateway_id, INSTANCE_LABEL: instance.id}
        spec = with_uid(replace(prototype, name=f"hearth-{instance.id}", labels=labels), instance.uid)
        creating = asyncio.ensure_future(self._engine.create(spec))
        try:
            try:
                instance.container = await asyncio.shield(creating)
            except asyncio.CancelledError:
                instance.container = await creating
                raise
            await self._engine.start(instance.container)
            if self.pool is not None:
                self.pool.running(instance)
        except EngineError as error:
            raise start_failed("the engine could not start the instance", error) from error
        pool = self.pool
        assert pool is not None
        instance.link = FakeLink(lambda: pool.slots_changed(instance))

    async def adopt(self, instance: Instance) -> None:
        assert self.owners[instance.id] == instance.function, "adopted for another than its code is of"
        state = await self._engine.inspect(instance.container or "")
        await self._clock.sleep(self.adopt_seconds)
        if not state.running or instance.id in self.unreachable:
            raise StartFailed("it does not answer")
        pool = self.pool
        assert pool is not None
        instance.link = link = FakeLink(lambda: pool.slots_changed(instance))
        link.open(instance.workload.concurrency if instance.workload else 1)

    async def leave(self, instance: Instance) -> None:
        assert instance.link is not None
        await instance.link.close()

    async def pause(self, instance: Instance) -> None:
        assert instance.container is not None
        await self._engine.pause(instance.container)

    async def unpause(self, instance: Instance) -> None:
        assert instance.container is not None
        await self._engine.unpause(instance.container)

    async def specialise(self, instance: Instance, workload: Workload) -> None:
        self.owners[instance.id] = workload.function
        if self.die_at_import:
            self.die_at_import -= 1
            raise FunctionBroken("the instance ended while it imported the handler")
        instance.awaits = "its handler is still being imported"
        names = {workload.function, f"{workload.function}@{workload.version}"}
        await self._clock.sleep(3600 if names & self.endless else SPECIALISE)
        if names & self.broken:
            assert self.pool is not None
            self.pool.output(instance, TRACEBACK)
            raise FunctionBroken("No module named 'nowhere'", "ModuleNotFoundError", imported=False)
        link = instance.link
        assert isinstance(link, FakeLink)
        link.open(workload.concurrency)

    async def destroy(self, instance: Instance) -> None:
        if instance.link is not None:
            await instance.link.close()
        if self.destroy_fault is not None:
            fault, self.destroy_fault = self.destroy_fault, None
            raise fault
        await self._engine.remove(instance.container or f"hearth-{instance.id}")


@dataclass(eq=False)
class Caller:
    """One invocation: waits for a lease, holds it until it is told to release it."""

    revision: Revision
    """That it was admitted to; a later one may serve it."""
    invocation: str
    arrived: float
    deadline: float
    task: asyncio.Task[Lease] | None = None
    lease: Lease | None = None
    error: BaseException | None = None
    ended_at: float | None = None

    @property
    def function(self) -> Function:
        """The function that is called."""
        return self.revision.function

    @property
    def waits(self) -> bool:
        """Whether it has had no outcome yet."""
        return self.ended_at is None


@dataclass
class World:
    """Everything on one virtual clock. Make it inside a running loop."""

    budget: int = 10_000 * MIB
    cores: int = 2
    policy: KeepAlivePolicy = KeepAlivePolicy.GDSF
    spares: SpareSettings = NO_SPARES.spares
    clock: VirtualClock = field(default_factory=VirtualClock)
    folder: DataFolder | None = None
    """Where records are written; None: nowhere, and `restart` adopts nothing."""

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.engine = WitnessEngine(
            self.clock, self.cores, latency=Latency(CREATE, START, REMOVE), metrics=self.metrics
        )
        for image in (IMAGE, OTHER_IMAGE):
            self.engine.add_image(image)
        self.supervisor = Supervisor(self.clock, self.metrics)
        self.guard = GuardedEngine(self.engine, self.clock, self.metrics, self.supervisor)
        self.launcher = VirtualLauncher(self.guard, self.clock)
        self.logs = LogStore()
        self._ids = itertools.count(1)
        self._max_instances: dict[str, int] = {}
        self._next_uid = UIDS.first
        self._put_together()

    def _put_together(self) -> None:
        """What one gateway process is."""
        if self.folder is not None:
            self.launcher.gateway_id = self.folder.id
        self.records = Records(self.folder.records, self.clock) if self.folder is not None else None
        self.pool = Pool(self.launcher, self.clock, self.metrics, self.logs, self.budget, self.records)
        self.launcher.pool = self.pool
        # Not a random one: of so few, it could meet that of an order that was under way at a kill.
        self.pool.ledger.uids.use(UIDS, self._next_uid)
        keeping = Keeping(self.policy, self.spares)
        self.dispatcher = Dispatcher(self.pool, self.clock, self.cores, keeping, self.guard.down)
        self.guard.on_recovery[:] = [self.dispatcher.engine_back]
        gateway, provisioned = self.launcher.gateway_id, self.dispatcher.is_provisioned
        self.reaper = Reaper(self.pool, self.guard, self.clock, gateway, provisioned, self.guard.down)

    def kill(self) -> None:
        """The gateway process ends here and now; what the engine was asked for, it may still do."""
        self._next_uid = self.pool.ledger.uids.next
        for task in self.pool.tasks():
            task.cancel()
        self.dispatcher.close()  # what is left of it starts nothing

    async def restart(self, workloads: Iterable[Workload], prewarm: Mapping[str, Prewarm]) -> Adoption:
        """Start another process on the same data folder, which declares these."""
        assert self.folder is not None
        assert self.records is not None
        self._put_together()
        adoption = Adoption(self.engine, self.pool, self.records, self.folder, self.clock)
        await adoption.look()
        declared = {workload.function: workload for workload in workloads}
        adoption.expect(declared)
        for workload in declared.values():
            adoption.claim(workload)
            self.dispatcher.deploy(
                workload, Limits(), self._max_instances.get(workload.function, DEFAULT_MAX_INSTANCES)
            )
        adoption.claim_generic({image: target.prototype for image, target in prewarm.items()})
        self.dispatcher.set_prewarm(dict(prewarm))
        return adoption

    # -- what is deployed ------------------------------------------------------------------------------------

    def deploy(
        self, name: str = "f", version: str = "1", limits: Limits | None = None, **keys: Any
    ) -> Revision:
        """Deploy a handler that never freezes; `memory` in MiB, `max_instances`, and the keys of `Workload`."""
        max_instances = self._max_instances[name] = keys.pop("max_instances", DEFAULT_MAX_INSTANCES)
        workload = self.workload(name, version, **keys)
        return self.dispatcher.deploy(workload, limits or Limits(), max_instances)

    def workload(self, name: str = "f", version: str = "1", **keys: Any) -> Workload:
        """Return a version of a handler that never freezes: `memory` in MiB, other keys as of `Workload`."""
        keys.setdefault("freeze_after", None)
        keys.setdefault("contract", HANDLER)
        image = keys.pop("image", IMAGE)
        memory = keys.pop("memory", 128) * MIB
        container = ContainerSpec(name="", image=image, user=OWN_USER, memory=memory)
        return Workload(function=name, version=version, container=container, **keys)

    def prewarm(self, count: int, memory: int = 128, image: str = IMAGE) -> None:
        """Keep so many generic instances."""
        prototype = ContainerSpec(name="", image=image, user=OWN_USER, memory=memory * MIB)
        self.dispatcher.set_prewarm({image: Prewarm(prototype, count)} if count else {})

    # -- calls -----------------------------------------------------------------------------------------------

    def arrive(self, called: Function | Revision) -> Caller:
        """An invocation comes, for the revision that the function's name leads to now."""
        now = self.clock.now()
        revision = self.dispatcher.revision_for(called.name)
        if revision is None:  # it is gone, and whoever was about to call it finds that out in the queue
            assert isinstance(called, Revision)
            revision = called
        caller = Caller(revision, f"i{next(self._ids)}", now, now + revision.limits.queue_timeout)
        caller.lease = self.dispatcher.try_lease(revision, caller.invocation, now)
        if caller.lease is not None:
            caller.ended_at = now
            return caller
        caller.task = asyncio.ensure_future(self._wait(caller))
        caller.task.add_done_callback(lambda task: self._note(caller, task))
        return caller

    async def _wait(self, caller: Caller) -> Lease:
        queued = Queued(self.dispatcher, caller.revision, caller.invocation, caller.arrived)
        return await queued.collect()

    def _note(self, caller: Caller, task: asyncio.Task[Lease]) -> None:
        assert caller.ended_at is None, "two outcomes for one invocation"
        caller.ended_at = self.clock.now()
        if task.cancelled():
            caller.error = asyncio.CancelledError()
        elif (error := task.exception()) is not None:
            caller.error = error
        else:
            caller.lease = task.result()

    async def call(self, function: Function | Revision, seconds: float) -> Lease:
        """A whole invocation that executes for so many seconds; its ended lease. Raises what waiting raises."""
        caller = self.arrive(function)
        lease = caller.lease or await self.result_of(caller)
        await self.clock.sleep(seconds)
        self.dispatcher.release(lease)
        return lease

    async def result_of(self, caller: Caller) -> Lease:
        """Wait for the slot of a caller that has queued; raises what waiting raises."""
        assert caller.task is not None
        return await caller.task

    def kill_instance(self, instance: Instance) -> None:
        """The instance's process dies: its container ends and its connections are lost."""
        if instance.container is not None:
            self.engine.kill(instance.container)
        if isinstance(instance.link, FakeLink):
            instance.link.lose()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with the reaper looking every quarter of a second."""
        left = seconds
        while left > 0:
            step = min(left, 0.25)
            await self.clock.advance(step)
            self.reaper.reap()
            left -= step
        await self.clock.settle()

    async def close(self) -> None:
        """Remove everything, and check that the engine has nothing left."""
        self.dispatcher.close()
        self.engine.heal()
        self.engine.resume()
        await self.clock.run(self.pool.close())
        await self.clock.advance(100.0)
        assert self.engine.alive() == 0
        assert not self.pool.ledger.instances
        await self.guard.close()
        await self.clock.settle()

    # -- what must always hold -------------------------------------------------------------------------------

    def containers_of(self, function: str) -> int:
        """The engine's own count: containers from the create call until removal is confirmed."""
        return sum(
            self.engine.alive(INSTANCE_LABEL, instance)
            for instance, owner in self.launcher.owners.items()
            if owner == function
        )

    def check(self) -> None:
        """Every invariant of the books, the queues and the slots. Call it when all tasks have settled."""
        self._check_books()
        self._check_uids()
        self._check_queues()
        self._check_slots()

    def _check_books(self) -> None:
        ledger = self.pool.ledger
        everyone = list(ledger.instances.values())
        stopping = [i for i in everyone if i.state == "stopping"]
        starting = [i for i in everyone if i.state == "starting"]
        assert ledger.memory_declared == sum(i.memory for i in everyone) <= ledger.memory_budget
        assert ledger.memory_stopping == sum(i.memory for i in stopping)
        assert all(i.workload is not None for i in everyone if i.slow)
        assert ledger.starting == sum(not i.slow for i in starting) <= self.cores
        pending = [i for i in everyone if i.state in PENDING and i.workload is not None]
        assert ledger.pending == sum(not i.slow for i in pending)
        names = {i.function for i in everyone} | set(self.dispatcher.functions) | {None}
        for name in names:
            mine = [i for i in everyone if i.function == name]
            assert ledger.states(name) == dict(Counter(str(i.state) for i in mine))
            if name is not None:
                assert sorted(i.id for i in ledger.of(name)) == sorted(i.id for i in mine)
                assert ledger.count(name) == len(mine)
        for image in (IMAGE, OTHER_IMAGE):
            generic = [i for i in everyone if i.image == image and i.state == "prewarmed"]
            assert sorted(i.id for i in ledger.prewarmed(image)) == sorted(i.id for i in generic)
            assert ledger.refilling(image) == sum(i.image == image and i.workload is None for i in starting)
        assert all(i.reason for i in stopping)
        assert set(ledger.removals) <= {str(reason) for reason in Reason}
        assert self.engine.alive() <= len(everyone), "containers that the pool does not know of"

    def _check_uids(self) -> None:
        """By the engine's own count no two containers ever had the same uid, and each is in the books."""
        ledger = self.pool.ledger
        taken = [i.uid for i in ledger.instances.values() if i.uid is not None]
        assert sorted(ledger.uids.held) == sorted(taken)
        for uid in range(UIDS.first, UIDS.last + 1):
            assert self.engine.peak(UID_LABEL, str(uid)) <= 1, f"two containers had uid {uid}"
            if self.engine.alive(UID_LABEL, str(uid)):
                assert uid in taken, f"uid {uid} counts as free while a container has it"

    def _check_queues(self) -> None:
        functions = self.dispatcher.functions
        assert set(self.dispatcher.routes) == set(functions)
        for revision in (r for function in functions.values() for r in function.revisions.values()):
            undone = [waiter for waiter in revision.queue if not waiter.left]
            assert revision.waiting == len(undone)
            assert all(waiter.revision is revision for waiter in undone)
            assert (revision in self.dispatcher.hungry) == bool(undone)
            if undone:
                free = pick(self.pool.ledger.of(revision.name), revision.version)
                assert free is None, f"a waiter waits although {free!r} has a free slot"
                assert self._moves(revision), (
                    f"nothing is under way for {revision!r} and nobody will look again"
                )
        for revision in self.dispatcher.hungry:
            assert functions[revision.name].revisions[revision.version] is revision

    def _moves(self, revision: Revision) -> bool:
        """Whether those who wait have reason to: something is being started or removed, or will be."""
        ledger = self.pool.ledger
        return bool(
            revision.look_again
            or ledger.starting
            or ledger.pending
            or ledger.memory_stopping
            or revision.room(ledger) <= 0
            or any(self._lacks_memory(other) for other in self.dispatcher.hungry)
        )

    def _lacks_memory(self, revision: Revision) -> bool:
        return self.pool.ledger.memory_free < revision.workload.container.memory

    def _check_slots(self) -> None:
        for instance in self.pool.ledger.instances.values():
            workload = instance.workload
            assert instance.in_use >= 0
            if instance.state in ("idle", "frozen", "prewarmed", "starting", "specialising"):
                assert instance.in_use == 0
            if instance.state in ("busy", "draining"):
                assert workload is not None
                assert 1 <= instance.in_use <= workload.concurrency
            if workload is not None and workload.single_use:
                assert instance.served + instance.in_use <= 1
            if isinstance(instance.link, FakeLink):
                assert instance.in_use == len(instance.link.taken)
            self._check_freezer(instance)

    def _check_freezer(self, instance: Instance) -> None:
        """The engine has paused what is frozen, and nothing else that can be called."""
        try:
            container = self.engine.find(instance.container or "")
        except NotFound:
            return
        if not container.running:
            return
        paused = not container.unpaused.is_set()
        if instance.state == "frozen" and instance.pausing is not None and instance.pausing.done():
            assert paused
        if instance.state in ("idle", "busy", "draining") and instance.thawing is None and instance.freezable:
            assert not paused, f"{instance!r} cannot answer"
