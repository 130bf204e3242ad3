"""Whatever happens in whatever order, the pool and the dispatcher keep their promises. On virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pool.engine.base import EngineError
from pool.errors import FunctionBroken
from pool.instance import Instance, StartedFor, StartReason
from pool.lease import Lease
from pool.states import LIVE, PENDING, Reason, State
from pool.workload import Workload
from scheduler.deploy.trials import Trial, TrialFault, Trials
from scheduler.dispatch.decisions import FUNCTION_BACKOFF
from scheduler.dispatch.errors import Gone, NoCapacity, QueueFull
from scheduler.dispatch.function import Limits
from scheduler.dispatch.spares.plan import SpareSettings
from tests.support.virtual_pool import IMAGE, MIB, Caller, FakeLink, World

NAMES = ("a", "b", "c")
LONGEST_KEEP_ALIVE = 30.0
BUDGET = 1024
SPARES = SpareSettings(share=0.5, seconds=20.0)

ROLL = st.integers(0, 2**20)
"""Chooses one of what there is."""
LIMITS = st.builds(
    Limits,
    queue_timeout=st.sampled_from([0.2, 2.0, 10.0]),
    queue_size=st.sampled_from([1, 3, 100]),
)


@st.composite
def workload_keys(draw: st.DrawFn) -> dict[str, Any]:
    """Keys that functions.yaml would accept together."""
    reuse = draw(st.sampled_from([True, True, True, False]))
    most = draw(st.integers(1, 4))
    return {
        "reuse": reuse,
        "max_instances": most,
        "min_instances": draw(st.integers(0, min(2, most))),
        "concurrency": draw(st.sampled_from([1, 1, 3])) if reuse else 1,
        "memory": draw(st.sampled_from([128, 200, 500])),
        "keep_alive": draw(st.sampled_from([1.0, LONGEST_KEEP_ALIVE])),
        "freeze_after": draw(st.sampled_from([None, 0.0, 0.4])),
        "max_invocations": draw(st.sampled_from([None, 1, 3])),
        "max_age": draw(st.sampled_from([5.0, 86400.0])),
        "generic": (generic := draw(st.booleans())),
        "own_image": not generic and draw(st.booleans()),
    }


class PoolMachine(RuleBasedStateMachine):
    """A node under everything that calls, people, functions and engines do to it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.SelectorEventLoop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(str(context)))
        self.callers: list[Caller] = []
        self.held: list[Lease] = []
        self.versions = 0
        self.eviction_clock = 0.0
        self.world = self.run(self.make)
        self.trials = Trials(self.world.dispatcher, self.world.clock)
        self.witness_leases()
        self.witness_spares()
        self.world.engine.on_create = self.witness_create

    # -- how -------------------------------------------------------------------------------------------------

    async def make(self) -> World:
        return World(budget=BUDGET * MIB, spares=SPARES)

    def run(self, work: Callable[[], Any]) -> Any:
        """Do something inside the loop, then let every task run until it waits."""

        async def settled() -> Any:
            result = work()
            if asyncio.iscoroutine(result):
                result = await result
            if hasattr(self, "world"):
                await self.world.clock.settle()
            return result

        return self.loop.run_until_complete(settled())

    def one_of(self, things: list[Any], roll: int) -> Any:
        return things[roll % len(things)]

    def witness_leases(self) -> None:
        """A lease is on a slot that is free, of an instance of the version that is deployed now."""
        lease = self.world.pool.lease

        def watched(instance: Instance, invocation: str, arrived: float) -> Lease:
            workload = instance.workload
            assert workload is not None
            assert instance.state in LIVE
            assert workload.version in self.world.dispatcher.functions[workload.function].revisions
            assert instance.in_use < workload.concurrency
            given = lease(instance, invocation, arrived)
            taken = [lease.connection or lease.held for lease in (given, *self.held)]
            assert taken[0] is not None and all(taken[0] is not other for other in taken[1:])
            return given

        self.world.pool.lease = watched  # type: ignore[method-assign]

    def witness_spares(self) -> None:
        """A spare is started within the share of memory, one at a time, and never while a call could use a start."""
        dispatcher, start = self.world.dispatcher, self.world.pool.start

        def watched(workload: Workload, why: StartReason | None = None) -> Instance:
            if why is not None and why.purpose is StartedFor.SPARE:
                assert workload.single_use or workload.own_image
                ledger = self.world.pool.ledger
                spares = [ledger.instances[id] for id in dispatcher.spares.ids()]
                held = sum(spare.memory for spare in spares) + workload.container.memory
                assert held <= SPARES.share * ledger.memory_budget
                assert workload.container.memory <= ledger.memory_free
                assert not any(spare.state in PENDING for spare in spares)
                assert not dispatcher.calls_need_starts()
            return start(workload, why)

        self.world.pool.start = watched  # type: ignore[method-assign]

    def witness_create(self) -> None:
        """No create call takes a function over its `max_instances`, by the engine's count; none is made in vain."""
        if self.world.guard.down() is not None:
            self.faults.append("the engine was asked for a container although it is known to be down")
        for name, function in self.world.dispatcher.functions.items():
            newest = self.world.launcher.launched[-1]
            if newest.function == name:
                count = self.world.containers_of(name)
                if count > function.max_instances:
                    self.faults.append(f"{count} containers of {name}: {function}")

    @property
    def functions(self) -> list[Any]:
        return list(self.world.dispatcher.functions.values())

    def queued(self, function: Any) -> int:
        """Return how many calls wait, without the place of a trial."""
        return sum(revision.waiting for revision in function.revisions.values() if not revision.trial)

    @property
    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.waits]

    def collect(self) -> None:
        """Take what callers have won, and hold every outcome against what was promised."""
        for caller in [c for c in self.callers if not c.waits]:
            self.callers.remove(caller)
            assert caller.ended_at is not None
            assert caller.ended_at <= caller.deadline + 1e-9
            if caller.lease is not None:
                assert not caller.lease.ended
                assert caller.lease.invocation == caller.invocation
                self.held.append(caller.lease)
            else:
                assert isinstance(
                    caller.error, NoCapacity | QueueFull | FunctionBroken | Gone | asyncio.CancelledError
                ), repr(caller.error)

    # -- what people do --------------------------------------------------------------------------------------

    @initialize(keys=workload_keys(), limits=LIMITS)
    def begin(self, keys: dict[str, Any], limits: Limits) -> None:
        self.deploy("a", keys, limits)

    @rule(name=st.sampled_from(NAMES), keys=workload_keys(), limits=LIMITS)
    def deploy(self, name: str, keys: dict[str, Any], limits: Limits) -> None:
        self.versions += 1
        self.trials.drop(name)
        self.run(lambda: self.world.deploy(name, str(self.versions), limits, **keys))

    @precondition(lambda self: self.functions)
    @rule(roll=ROLL, keys=workload_keys(), limits=LIMITS, works=st.booleans())
    def try_out(self, roll: int, keys: dict[str, Any], limits: Limits, works: bool) -> None:
        """A save: the new version serves once an instance of it is ready; until then, or else, the one before."""
        name = self.one_of(self.functions, roll).name
        self.versions += 1
        version, keys = str(self.versions), dict(keys)
        most = keys.pop("max_instances")
        workload = self.world.workload(name, version, **keys)
        if not works:
            self.world.launcher.broken.add(f"{name}@{version}")

        def ended(fault: TrialFault | None) -> None:
            assert works or fault is not None
            if fault is None:
                self.world.dispatcher.deploy(workload, limits, most)

        self.run(lambda: self.trials.begin(Trial(workload, limits, ended)))

    @rule(name=st.sampled_from(NAMES))
    def withdraw(self, name: str) -> None:
        self.trials.drop(name)
        self.run(lambda: self.world.dispatcher.withdraw(name))
        assert not any(caller.function.name == name for caller in self.waiting)

    @rule(count=st.integers(0, 3), memory=st.sampled_from([64, 128]))
    def prewarm(self, count: int, memory: int) -> None:
        self.run(lambda: self.world.prewarm(count, memory))

    @precondition(lambda self: self.world.pool.ledger.instances)
    @rule(roll=ROLL, gently=st.booleans())
    def take_away(self, roll: int, gently: bool) -> None:
        instance = self.one_of(list(self.world.pool.ledger.instances.values()), roll)
        act = self.world.pool.drain if gently else self.world.pool.remove
        self.run(lambda: act(instance, Reason.REQUESTED))

    # -- what calls do ---------------------------------------------------------------------------------------

    @precondition(lambda self: self.functions)
    @rule(roll=ROLL, count=st.sampled_from([1, 1, 2, 6]))
    def arrive(self, roll: int, count: int) -> None:
        function = self.one_of(self.functions, roll)

        def come() -> None:
            self.callers += [self.world.arrive(function) for _ in range(count)]

        before = self.queued(function)
        self.run(come)
        queue_size = self.world.dispatcher.revision_for(function.name).limits.queue_size
        assert self.queued(function) <= max(before, queue_size)

    @precondition(lambda self: self.waiting)
    @rule(roll=ROLL)
    def give_up(self, roll: int) -> None:
        caller = self.one_of(self.waiting, roll)
        before = caller.function.waiting
        self.run(caller.task.cancel)
        assert isinstance(caller.error, asyncio.CancelledError)
        assert caller.function.waiting < before

    @precondition(lambda self: self.held)
    @rule(roll=ROLL, fatal=st.sampled_from([None, None, None, Reason.TIMEOUT, Reason.BROKEN]))
    def release(self, roll: int, fatal: Reason | None) -> None:
        lease = self.one_of(self.held, roll)
        self.held.remove(lease)
        self.run(lambda: self.world.dispatcher.release(lease, fatal))
        assert lease.ended
        in_use = lease.instance.in_use
        self.run(lambda: self.world.dispatcher.release(lease, fatal))
        assert lease.instance.in_use == in_use, "a lease ended twice"

    def contended(self) -> list[tuple[Lease, Caller]]:
        """Leases that somebody waits for, each with who is first."""
        firsts = {caller.function.name: caller for caller in reversed(self.waiting)}
        return [(lease, firsts[name]) for lease in self.held if (name := lease.workload.function) in firsts]

    @precondition(lambda self: self.contended())
    @rule(roll=ROLL, just_before=st.booleans())
    def give_up_just_as_it_wins(self, roll: int, just_before: bool) -> None:
        lease, caller = self.one_of(self.contended(), roll)
        self.held.remove(lease)

        def both() -> None:
            if just_before:
                caller.task.cancel()
            self.world.dispatcher.release(lease)
            caller.task.cancel()

        self.run(both)
        assert isinstance(caller.error, asyncio.CancelledError)

    @rule(seconds=st.sampled_from([0.001, 0.014, 0.1, 0.15, 0.5, 3.0, 40.0]), reaped=st.booleans())
    def wait(self, seconds: float, reaped: bool) -> None:
        self.run(lambda: (self.world.pass_time if reaped else self.world.clock.advance)(seconds))
        if reaped:
            self.reap()

    @rule()
    def reap(self) -> None:
        def look() -> None:
            self.world.reaper.reap()
            self.nobody_outlives_its_reason()  # at once: the engine may come back, or go, in the next moment

        self.run(look)

    def nobody_outlives_its_reason(self) -> None:
        """What the reaper has just left in service is of the version that is deployed, not too old, and not idle for
        too long, unless its function keeps so many ready. (Whose connections are lost has a moment to come back, and
        nothing expires while the engine is known to be down.)"""
        now, lapsed = self.world.clock.now(), Counter[str]()
        may_expire = self.world.guard.down() is None
        for instance in self.world.pool.ledger.instances.values():
            if instance.state not in LIVE or instance.link is None or not instance.link.alive:
                continue
            workload = instance.workload
            assert workload is not None
            function = self.world.dispatcher.functions[workload.function]
            assert workload.version in function.revisions, "of a version that is no longer deployed"
            if not may_expire:
                continue
            assert now - instance.created_at < workload.max_age, "older than its max_age"
            if instance.state is not State.BUSY and now - instance.last_used >= workload.keep_alive:
                lapsed[workload.function] += 1
        for name, count in lapsed.items():
            revision = self.world.dispatcher.revision_for(name)
            kept = max(revision.workload.min_instances, self.world.dispatcher.spares.keeps(revision))
            assert count <= kept, "idle for too long"

    # -- what breaks -----------------------------------------------------------------------------------------

    @rule(verb=st.sampled_from(["create", "start", "remove", "pause", "unpause"]), carried_out=st.booleans())
    def engine_fails(self, verb: str, carried_out: bool) -> None:
        self.world.engine.fail_next(verb, EngineError("a fault of the engine"), carried_out)

    @rule()
    def engine_goes_away(self) -> None:
        self.run(self.world.engine.stop)

    @rule()
    def engine_comes_back(self) -> None:
        self.world.engine.resume()

    @rule(name=st.sampled_from(NAMES))
    def code_breaks(self, name: str) -> None:
        self.world.launcher.broken ^= {name}

    def linked(self) -> list[Instance]:
        ready = (*LIVE, State.PREWARMED, State.DRAINING)
        return [i for i in self.world.pool.ledger.instances.values() if i.state in ready]

    @precondition(lambda self: self.linked())
    @rule(roll=ROLL)
    def die(self, roll: int) -> None:
        instance = self.one_of(self.linked(), roll)
        self.run(lambda: self.world.kill_instance(instance))

    def silent(self) -> list[Instance]:
        return [i for i in self.linked() if i.link is not None and not i.link.alive]

    @precondition(lambda self: self.silent())
    @rule(roll=ROLL)
    def connections_come_back(self, roll: int) -> None:
        link = self.one_of(self.silent(), roll).link
        assert isinstance(link, FakeLink)
        self.run(lambda: link.dial_again(1))

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        self.collect()
        assert not self.faults, self.faults
        self.world.check()
        clock = self.world.dispatcher.eviction_clock
        assert clock >= self.eviction_clock, "the eviction clock fell"
        self.eviction_clock = clock
        per_instance: dict[str, int] = {}
        for lease in self.held:
            per_instance[lease.instance.id] = per_instance.get(lease.instance.id, 0) + 1
        for instance in self.world.pool.ledger.instances.values():
            assert instance.in_use == per_instance.get(instance.id, 0), "a slot without an owner"
        for function in self.functions:
            mine = [c for c in self.waiting if c.function is function]
            assert self.queued(function) == len(mine)

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def release_all(self) -> None:
        while self.held:
            lease = self.held.pop()
            self.run(lambda lease=lease: self.world.dispatcher.release(lease))

    def everything_ends(self) -> None:
        """When nobody calls any more, only what is to be kept ready is left; then nothing."""
        self.run(self.trials.close)
        world = self.world
        world.engine.heal()
        world.engine.resume()
        self.run(lambda: world.clock.advance(2.0))
        assert world.guard.down() is None, "the engine is back, and that was not seen"
        world.launcher.broken.clear()
        self.collect()
        self.release_all()
        self.run(lambda: world.pass_time(11.0))
        self.collect()
        assert not self.callers, "waiters without an outcome"
        self.release_all()
        self.run(lambda: world.clock.advance(FUNCTION_BACKOFF.longest))
        for _ in range(4):  # expiry, and then what it has made room for
            self.run(lambda: world.pass_time(0.5))
            self.run(lambda: world.clock.advance(LONGEST_KEEP_ALIVE))
        self.run(lambda: world.pass_time(0.5))
        self.run(lambda: world.clock.advance(4.0))
        self.everything_holds()
        ledger = world.pool.ledger
        for function in self.functions:
            workload = world.dispatcher.revision_for(function.name).workload
            left = [i for i in ledger.of(function.name) if i.state is not State.STOPPING]
            assert len(left) <= workload.min_instances, f"{left} outlive their keep_alive"
            assert ledger.memory_free < workload.container.memory or len(left) == workload.min_instances
        target = world.dispatcher.prewarm.get(IMAGE)
        wanted = target.count if target else 0
        prewarmed = len(ledger.prewarmed(IMAGE))
        assert prewarmed <= wanted, "more prewarmed ones than are wanted"
        if target is not None and ledger.memory_free >= target.prototype.memory:
            assert prewarmed == wanted
        for function in self.functions:
            self.run(lambda name=function.name: world.dispatcher.withdraw(name))
        self.run(lambda: world.prewarm(0))
        self.run(lambda: world.clock.advance(1.0))
        assert not ledger.instances
        assert world.engine.alive() == 0
        assert sum(ledger.removals.values()) == len(world.launcher.launched)
        assert not self.faults, self.faults
        self.run(world.close)


PoolMachine.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking 40 steps takes minutes: by hand
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.timeout(900)  # a machine that is busy, or measures coverage, takes its time
class TestPool(PoolMachine.TestCase):  # type: ignore[misc, valid-type]
    """Run by pytest as one test."""


def test_what_grows_too_old_while_the_engine_is_away_goes_when_it_is_back():
    """The machine found these steps by chance, and its rule about ages knew nothing of engines that are away."""
    machine = PoolMachine()
    keys = {"reuse": False, "max_instances": 3, "min_instances": 2, "freeze_after": 0.0, "max_age": 5.0}
    machine.begin(keys, Limits(queue_timeout=10.0, queue_size=3))
    machine.wait(1.0, reaped=True)
    ledger = machine.world.pool.ledger
    first = {instance.id for instance in ledger.of("a")}
    assert ledger.states("a") == {"frozen": 2}
    machine.engine_goes_away()
    machine.deploy("b", {"min_instances": 1}, Limits())  # what asks the engine, and learns that it is away
    machine.wait(40.0, reaped=True)
    machine.everything_holds()
    assert machine.world.guard.down() is not None
    assert {instance.id for instance in ledger.of("a")} == first, "what is taken away could not be replaced"
    machine.engine_comes_back()
    machine.wait(3.0, reaped=True)
    machine.everything_holds()
    assert ledger.removals[Reason.MAX_AGE] == 2
    assert not first & set(ledger.instances)
    assert ledger.count("a") == 2
    machine.teardown()
