"""Spares on virtual time: who gets one, how long it stays, and for whom it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pool.instance import Instance, StartedFor
from pool.ledger import Ledger
from pool.states import LIVE, Reason, State
from scheduler.dispatch.function import Revision
from scheduler.dispatch.spares.keeper import SHORT_MEMORY_SECONDS
from scheduler.dispatch.spares.plan import MOST_SPARES, SETTLED_SECONDS, SpareSettings
from tests.support.virtual_pool import COLD, CREATE, MIB, REMOVE, SPECIALISE, START, World

HOUR = 3600.0
SETTINGS = SpareSettings(share=0.5, seconds=HOUR)
SETTLED = 2 * COLD
"""Seconds in which a spare is there, if nothing else is to be started."""

MakeWorld = Callable[..., World]


@pytest.fixture
async def make() -> AsyncIterator[MakeWorld]:
    """Make worlds in which half of the memory may be taken by spares."""
    made: list[World] = []

    def world(**keys: Any) -> World:
        made.append(World(**({"spares": SETTINGS} | keys)))
        return made[-1]

    yield world
    for one in made:
        one.check()
        await one.close()


@pytest.fixture
def world(make: MakeWorld) -> World:
    return make()


def instances(world: World, name: str = "f") -> list[Instance]:
    return [i for i in world.pool.ledger.of(name) if i.state in LIVE]


def started_for(world: World, purpose: StartedFor) -> float:
    value = world.metrics.registry.get_sample_value("hearth_instance_starts_total", {"purpose": str(purpose)})
    return value or 0.0


async def call(world: World, function: Revision, seconds: float = 0.01) -> str:
    """Call a function once, and return the kind of its start."""
    return (await world.clock.run(world.call(function, seconds))).kind


# -- functions of an image of their own -------------------------------------------------------------------


async def test_a_new_function_with_packages_is_ready_before_its_first_call(world: World) -> None:
    function = world.deploy(own_image=True)
    await world.pass_time(SETTLED)
    [spare] = instances(world)
    assert await call(world, function) == "prewarmed"
    assert spare.start_reason is not None
    assert spare.start_reason.text == (
        "it was started ahead of calls: its function came into service lately, and its imports take long"
    )
    assert started_for(world, StartedFor.SPARE) == 1
    await world.pass_time(10.0)
    assert instances(world) == [spare], "it serves on, and needs no other beside it"


async def test_only_what_a_prewarmed_instance_cannot_become_is_kept_ready(world: World) -> None:
    world.deploy("plain")
    world.deploy("fresh", reuse=False)
    world.deploy("of-a-job", own_image=True, private=True)
    await world.pass_time(10.0)
    assert not world.launcher.launched


async def test_a_share_of_0_keeps_none(make: MakeWorld) -> None:
    world = make(spares=SpareSettings(share=0.0))
    function = world.deploy(own_image=True)
    fresh = world.deploy("fresh", reuse=False)
    await world.pass_time(1.0)
    assert [await call(world, function), await call(world, fresh)] == ["cold", "cold"]
    await world.pass_time(1.0)
    assert len(world.launcher.launched) == 2


async def test_it_stays_after_keep_alive_until_it_was_not_called_for_long(world: World) -> None:
    function = world.deploy(own_image=True, keep_alive=30.0)
    await world.pass_time(SETTLED)
    assert await call(world, function) == "prewarmed"
    [kept] = instances(world)
    await world.pass_time(60.0)
    assert instances(world) == [kept]
    await world.clock.advance(HOUR - 100.0)
    world.reaper.reap()
    assert instances(world) == [kept]
    await world.clock.advance(60.0)
    world.reaper.reap()
    await world.clock.advance(1.0)
    assert not instances(world)
    assert world.pool.ledger.removals == {Reason.IDLE: 1}
    await world.pass_time(5.0)
    assert len(world.launcher.launched) == 1, "nobody is expected any more"
    assert await call(world, function) == "cold"


async def test_one_of_several_stays(world: World) -> None:
    function = world.deploy(own_image=True, keep_alive=30.0)
    callers = [world.arrive(function) for _ in range(3)]
    await world.clock.advance(2.0)
    for caller in callers:
        assert caller.lease is not None
        await world.clock.advance(0.1)
        world.dispatcher.release(caller.lease)
    assert len(instances(world)) > 1
    await world.pass_time(60.0)
    assert len(instances(world)) == 1


async def test_one_that_dies_is_replaced(world: World) -> None:
    world.deploy(own_image=True)
    await world.pass_time(SETTLED)
    [first] = instances(world)
    world.kill_instance(first)
    await world.pass_time(2.0)
    [second] = instances(world)
    assert second is not first


async def test_a_new_revision_is_kept_ready_in_place_of_the_old_one(world: World) -> None:
    world.deploy(own_image=True)
    await world.pass_time(SETTLED)
    world.deploy(version="2", own_image=True)
    await world.pass_time(1.0)
    assert [i.workload.version for i in instances(world) if i.workload] == ["2"]
    world.dispatcher.withdraw("f")
    await world.pass_time(1.0)
    assert not world.pool.ledger.instances


async def test_code_that_cannot_be_imported_is_tried_again_by_a_call_only(world: World) -> None:
    world.launcher.broken.add("f")
    function = world.deploy(own_image=True)
    await world.pass_time(200.0)
    assert len(world.launcher.launched) == 1
    assert function.last_fault is not None
    world.launcher.broken.clear()
    assert await call(world, function) == "cold"


# -- single-use ------------------------------------------------------------------------------------------


async def test_a_single_use_function_that_was_called_has_an_instance_for_the_next_call(world: World) -> None:
    function = world.deploy(reuse=False)
    kinds = []
    for _ in range(4):
        kinds.append(await call(world, function))
        await world.pass_time(1.0)
        assert 1 <= len(instances(world)) <= 2
    assert kinds == ["cold", "prewarmed", "prewarmed", "prewarmed"]
    spare = instances(world)[-1]
    assert spare.start_reason is not None
    assert spare.start_reason.text.startswith(
        "it was started ahead of calls: each call gets a new instance, and the last one came "
    )


async def test_a_spare_is_made_of_a_prewarmed_instance_where_there_is_a_pool(world: World) -> None:
    """A call that comes while it is made waits no longer than it would without."""
    function = world.deploy(reuse=False, generic=True)
    world.prewarm(1)
    await world.pass_time(1.0)
    for pause in [*(0.01 * n for n in range(40)), 1.0]:
        caller = world.arrive(function)
        await world.clock.advance(CREATE + START + 2 * SPECIALISE)
        assert caller.ended_at is not None
        assert caller.lease is not None
        assert caller.lease.kind == "prewarmed"
        world.dispatcher.release(caller.lease)
        await world.pass_time(pause)
    spares = instances(world)
    assert spares
    assert all(spare.born_generic and spare.started_for is StartedFor.SPARE for spare in spares)
    assert world.pool.ledger.states(None) == {State.PREWARMED: 1}


async def test_many_calls_have_several_ready_and_no_more_than_the_bound(world: World) -> None:
    function = world.deploy(reuse=False, max_instances=100)
    for _ in range(100):
        await call(world, function, 0.001)
        await world.clock.advance(0.5)
    await world.pass_time(2.0)
    assert 1 < len(instances(world)) <= MOST_SPARES
    callers = [world.arrive(function) for _ in range(3)]
    assert sum(caller.lease is not None for caller in callers) >= 2
    for _ in range(300):
        await world.clock.run(asyncio.gather(*(world.call(function, 0.001) for _ in range(30))))
        ready = len([i for i in world.pool.ledger.of("f") if not i.served and not i.in_use])
        assert ready <= MOST_SPARES + 30, "those that calls had asked for, and the spares"
        if world.clock.now() > 200.0:
            break
    for caller in callers:
        world.dispatcher.release(caller.lease or await world.clock.run(world.result_of(caller)))


async def test_max_instances_bounds_them_too(world: World) -> None:
    function = world.deploy(reuse=False, max_instances=1)
    caller = world.arrive(function)
    await world.clock.advance(1.0)
    assert caller.lease is not None
    await world.pass_time(2.0)
    assert world.containers_of("f") == 1
    world.dispatcher.release(caller.lease)
    await world.pass_time(2.0)
    assert await call(world, function) == "prewarmed"
    assert world.engine.peak() == 1


# -- memory ----------------------------------------------------------------------------------------------


async def test_they_take_their_share_of_the_memory_and_no_more(make: MakeWorld) -> None:
    world = make(budget=1024 * MIB)
    for number in range(10):
        world.deploy(f"f{number}", own_image=True)
    await world.pass_time(10.0)
    assert len(world.launcher.launched) == 4
    assert world.pool.ledger.memory_declared == 512 * MIB


async def test_a_called_function_takes_the_place_of_one_that_nobody_called(make: MakeWorld) -> None:
    world = make(budget=256 * MIB)
    never = world.deploy("never", own_image=True)
    await world.pass_time(SETTLED)
    called = world.deploy("called", own_image=True, max_age=60.0)
    for _ in range(5):
        await call(world, called)
    await world.pass_time(SETTLED_SECONDS)
    assert len(instances(world, "never")) == 1, "one that serves needs no part of the share"
    await world.pass_time(60.0)
    assert [len(instances(world, name)) for name in ("called", "never")] == [1, 0]
    assert world.pool.ledger.last_stops["never"].reason == Reason.EVICTED
    assert world.pool.ledger.last_stops["never"].taker == "called"
    assert never.last_fault is None


async def test_they_go_first_and_do_not_come_back_while_memory_is_short(make: MakeWorld) -> None:
    world = make(budget=384 * MIB)
    used, spare, other = world.deploy("used"), world.deploy("spare", own_image=True), world.deploy("other")
    await call(world, used)
    await world.pass_time(SETTLED)
    assert len(instances(world, "spare")) == 1
    for _ in range(20):
        world.deploy("spare-2", own_image=True)
    third, fourth = world.arrive(other), world.arrive(other)
    await world.clock.advance(REMOVE + 2 * COLD)
    assert third.lease is not None
    assert fourth.lease is not None
    assert len(instances(world, "used")) == 1, "it was called, if long ago"
    assert not instances(world, "spare")
    for caller in (third, fourth):
        world.dispatcher.release(caller.lease or pytest.fail("no lease"))
    world.dispatcher.withdraw("other")
    await world.pass_time(SHORT_MEMORY_SECONDS / 2)
    assert not instances(world, "spare")
    await world.pass_time(SHORT_MEMORY_SECONDS)
    assert len(instances(world, "spare")) + len(instances(world, "spare-2")) == 1, "half of the memory"
    assert spare.last_fault is None


async def test_one_that_is_being_started_goes_too(make: MakeWorld) -> None:
    world = make(budget=256 * MIB)
    world.launcher.endless.add("endless")
    world.deploy("endless", own_image=True)
    await world.pass_time(5.0)
    other = world.deploy("other", memory=256)
    assert world.pool.ledger.states("endless") == {State.STARTING: 1}
    began = world.clock.now()
    caller = world.arrive(other)
    await world.clock.advance(5.0)
    assert caller.lease is not None
    assert caller.ended_at == pytest.approx(began + REMOVE + COLD, abs=0.01)
    world.dispatcher.release(caller.lease)


async def test_prewarm_and_min_instances_come_before_them(make: MakeWorld) -> None:
    world = make(budget=512 * MIB)
    for number in range(2):
        world.deploy(f"f{number}", own_image=True)
    await world.pass_time(2.0)
    assert world.pool.ledger.memory_free == 256 * MIB
    world.prewarm(2)
    await world.pass_time(2.0)
    assert world.pool.ledger.states(None) == {State.PREWARMED: 2}
    world.deploy("kept", min_instances=2)
    await world.pass_time(2.0)
    assert len(instances(world, "kept")) == 2
    assert not instances(world, "f0") + instances(world, "f1")


async def test_a_flood_takes_their_memory_without_a_wait_for_fairness(make: MakeWorld) -> None:
    """A spare counts for nobody: its function gives nothing up, and has no right to it."""
    world = make(budget=512 * MIB)
    for number in range(2):
        world.deploy(f"f{number}", own_image=True)
    await world.pass_time(2.0)
    flood = world.deploy("flood", max_instances=4)
    callers = [world.arrive(flood) for _ in range(4)]
    await world.clock.advance(2.0)
    assert all(caller.lease is not None for caller in callers)
    assert world.pool.ledger.removals == {Reason.EVICTED: 2}
    for caller in callers:
        world.dispatcher.release(caller.lease or pytest.fail("no lease"))


# -- never in the way ------------------------------------------------------------------------------------


async def test_a_call_does_not_wait_for_the_start_of_a_spare(make: MakeWorld) -> None:
    world = make(cores=1)
    world.launcher.endless.add("endless")
    world.deploy("endless", own_image=True)
    await world.clock.advance(0.1)
    [spare] = world.pool.ledger.of("endless")
    assert spare.state is State.STARTING
    other = world.deploy("other")
    caller = world.arrive(other)
    await world.clock.advance(0.001)
    assert len(list(world.pool.ledger.of("other"))) == 1, "its start does not wait for a place"
    await world.clock.advance(1.0)
    assert caller.lease is not None
    world.dispatcher.release(caller.lease)


async def test_a_call_takes_the_spare_that_is_being_started_for_its_function(world: World) -> None:
    function = world.deploy(own_image=True)
    await world.clock.advance(0.1)
    caller = world.arrive(function)
    await world.clock.advance(COLD)
    assert caller.lease is not None
    assert len(world.launcher.launched) == 1
    assert caller.lease.kind == "cold", "the call has waited for it"
    world.dispatcher.release(caller.lease)


async def test_none_is_started_while_a_call_waits_for_a_start(make: MakeWorld) -> None:
    world = make(cores=2)
    world.launcher.endless.add("slow")
    slow = world.deploy("slow", max_instances=1)
    world.deploy("spare", own_image=True)
    world.arrive(slow)
    busy = world.deploy("busy", max_instances=50)
    callers = [world.arrive(busy) for _ in range(20)]
    while any(caller.waits for caller in callers):
        assert not world.pool.ledger.count("spare")
        await world.clock.advance(0.02)
    for caller in callers:
        world.dispatcher.release(caller.lease or pytest.fail("no lease"))
    await world.pass_time(2.0)
    assert len(instances(world, "spare")) == 1


async def test_they_are_started_one_at_a_time(world: World) -> None:
    for number in range(5):
        world.deploy(f"f{number}", own_image=True)
    most = 0
    for _ in range(100):
        most = max(most, world.pool.ledger.starting)
        await world.clock.advance(0.02)
    assert most == 1
    assert len(world.launcher.launched) == 5


async def test_nothing_is_looked_at_again_while_nothing_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reaper asks for each instance, four times a second."""
    for number in range(20):
        world.deploy(f"f{number}", own_image=True, keep_alive=1.0)
    await world.pass_time(20.0)
    looked: list[str] = []
    of = Ledger.of
    monkeypatch.setattr(Ledger, "of", lambda self, name: looked.append(name) or of(self, name))
    for _ in range(4):
        world.reaper.reap()
        await world.clock.advance(0.05)
    assert len(instances(world, "f0")) == 1
    assert len(looked) < 20 * 12
