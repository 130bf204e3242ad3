"""Idle instances freeze, thaw on the way of their next call, and whatever happens to them is right. Virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.contracts.facts import Freezing
from pool.contracts.handler import HandlerContract
from pool.contracts.http import HTTP
from pool.engine.base import EngineError
from pool.errors import NotSent
from pool.freezer import COUNT_EVERY_SECONDS, may_freeze_processes
from pool.host.cgroup import Cgroup
from pool.instance import Instance
from pool.lease import Lease
from pool.reaper import MOST_AT_ONCE, TICK
from pool.states import Reason, State
from pool.transport.message import Call
from scheduler.dispatch.function import Revision
from tests.support.virtual_pool import MIB, FakeLink, World


class OneProcess(HandlerContract):
    """A handler that is counted like a server."""

    freezing = Freezing.ONE_PROCESS


ONE_PROCESS = OneProcess()
CALL = Call(b"POST", b"/", [])
PAUSE = 0.016
"""Seconds that the engine in memory takes to pause or unpause."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def served(world: World, function: Revision, count: int = 1) -> list[Instance]:
    """Instances that have just served a call each."""
    callers = [world.arrive(function) for _ in range(count)]
    await world.clock.advance(5.0)
    leases = [caller.lease for caller in callers if caller.lease is not None]
    assert len(leases) == count
    for lease in leases:
        world.dispatcher.release(lease)
    return [lease.instance for lease in leases]


def direct(instance: Instance, folder: Path) -> Path:
    """Give an instance a cgroup of plain files; its freezer's file."""
    place = folder / instance.id
    place.mkdir()
    file = place / "freezer.state"
    file.write_text("THAWED")
    (place / "memory.stat").write_text("cache 50000000\nrss 12000000\nshmem 3000000\nrss_huge 7\n")
    instance.cgroup = Cgroup(place, place, unified=False, freezer=file)
    return file


def lease_of(world: World, function: Revision) -> Lease:
    """A call that is leased at once."""
    lease = world.arrive(function).lease
    assert lease is not None
    return lease


async def paused(world: World, instance: Instance) -> bool:
    assert instance.container is not None
    return (await world.engine.inspect(instance.container)).paused


# -- by a write -----------------------------------------------------------------------------------------------


async def test_an_idle_instance_is_frozen_after_freeze_after_and_thawed_by_its_lease(
    world: World, tmp_path: Path
) -> None:
    function = world.deploy(freeze_after=2.0)
    [instance] = await served(world, function)
    file = direct(instance, tmp_path)
    await world.pass_time(2.0 - TICK)
    assert (instance.state, file.read_text()) == (State.IDLE, "THAWED")
    await world.pass_time(2 * TICK)
    assert (instance.state, file.read_text()) == (State.FROZEN, "FROZEN")
    assert world.pool.ledger.states("f") == {"frozen": 1}
    world.check()
    before = world.engine.calls.copy()
    lease = lease_of(world, function)
    assert (instance.state, file.read_text()) == (State.BUSY, "THAWED")
    assert lease.connection is not None, "the call waits for nothing"
    assert lease.kind == "warm"
    world.dispatcher.release(lease)
    await world.pass_time(3.0)
    assert (instance.state, file.read_text()) == (State.FROZEN, "FROZEN")
    assert world.engine.calls == before, "the engine was asked"


@pytest.mark.parametrize(
    ("processes", "frozen"),
    [
        (2, True),  # our init and the server
        (3, False),
        (None, False),
    ],
)
def test_a_server_with_workers_is_not_frozen(processes: int | None, frozen: bool) -> None:
    assert may_freeze_processes(HTTP, processes) is frozen


async def test_workers_are_counted_when_it_is_time_and_again_later(world: World, tmp_path: Path) -> None:
    function = world.deploy(freeze_after=2.0, contract=ONE_PROCESS)
    [instance] = await served(world, function)
    file = direct(instance, tmp_path)
    processes = file.with_name("cgroup.procs")
    processes.write_text("7\n8\n")
    await world.pass_time(COUNT_EVERY_SECONDS)
    assert (instance.state, file.read_text()) == (State.IDLE, "THAWED")
    processes.write_text("7\n")  # a helper of its start has ended
    await world.pass_time(COUNT_EVERY_SECONDS)
    assert (instance.state, file.read_text()) == (State.FROZEN, "FROZEN")
    lease = lease_of(world, function)
    processes.write_text("7\n8\n")
    world.dispatcher.release(lease)
    await world.pass_time(2 * COUNT_EVERY_SECONDS)
    assert instance.state is State.IDLE
    world.check()


async def test_where_nobody_can_count_it_is_left_running(world: World) -> None:
    [instance] = await served(world, world.deploy(freeze_after=2.0, contract=ONE_PROCESS))
    await world.pass_time(3.0)
    assert instance.state is State.IDLE and not world.engine.calls["pause"]


async def test_a_handler_is_frozen_with_all_its_processes(world: World, tmp_path: Path) -> None:
    [instance] = await served(world, world.deploy(freeze_after=2.0))
    file = direct(instance, tmp_path)
    file.with_name("cgroup.procs").write_text("7\n8\n9\n")
    await world.pass_time(3.0)
    assert (instance.state, file.read_text()) == (State.FROZEN, "FROZEN")
    world.check()


async def test_a_look_freezes_a_bounded_number(world: World, tmp_path: Path) -> None:
    function = world.deploy(freeze_after=1.0)
    function.exec_seconds = 10.0
    instances = await served(world, function, 12)
    for instance in instances:
        direct(instance, tmp_path)
    await world.clock.advance(1.5)
    world.reaper.reap()
    assert sum(i.state is State.FROZEN for i in instances) == MOST_AT_ONCE
    world.reaper.reap()
    assert all(i.state is State.FROZEN for i in instances)


async def test_memory_is_measured_again_just_before_freezing(world: World, tmp_path: Path) -> None:
    [instance] = await served(world, world.deploy(freeze_after=2.0))
    assert instance.measured is None
    place = direct(instance, tmp_path).parent
    world.reaper.reap()
    assert instance.measured == 15_000_000
    (place / "memory.stat").write_text("rss 16000000\nshmem 0\n")
    await world.pass_time(2.5)
    assert instance.state is State.FROZEN
    assert instance.measured == 16_000_000


async def test_an_idle_instance_that_never_freezes_is_measured_now_and_then(
    world: World, tmp_path: Path
) -> None:
    [instance] = await served(world, world.deploy())
    place = direct(instance, tmp_path).parent
    world.reaper.reap()
    assert instance.measured == 15_000_000
    (place / "memory.stat").write_text("rss 1\nshmem 0\n")
    await world.pass_time(9.0)
    assert instance.measured == 15_000_000
    await world.pass_time(2.0)
    assert instance.measured == 1
    (place / "memory.stat").unlink()
    await world.pass_time(11.0)
    assert instance.measured == 1


async def test_where_the_write_is_not_allowed_the_engine_freezes(world: World, tmp_path: Path) -> None:
    [instance] = await served(world, world.deploy(freeze_after=1.0))
    direct(instance, tmp_path).unlink()
    await world.pass_time(1.5)
    assert instance.state is State.FROZEN
    assert await paused(world, instance)


async def test_one_that_cannot_be_thawed_by_a_write_is_dead_and_the_call_gets_another(
    world: World, tmp_path: Path
) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    file = direct(instance, tmp_path)
    await world.pass_time(1.5)
    file.unlink()
    lease = lease_of(world, function)
    assert lease.connection is None
    with pytest.raises(NotSent):
        await lease.connect(CALL)
    world.dispatcher.release(lease, Reason.DEAD)
    again = world.arrive(function)
    await world.clock.advance(1.0)
    assert again.lease is not None
    assert again.lease.instance is not instance
    assert world.pool.ledger.removals == {"dead": 1}
    world.dispatcher.release(again.lease)


# -- over the engine ------------------------------------------------------------------------------------------


async def test_over_the_engine_the_call_waits_until_it_runs(world: World) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    await world.pass_time(1.5)
    assert instance.state is State.FROZEN
    assert await paused(world, instance)
    lease = lease_of(world, function)
    assert instance.state is State.BUSY
    assert lease.connection is None
    connecting = asyncio.ensure_future(lease.connect(CALL))
    await world.clock.advance(PAUSE / 2)
    assert not connecting.done()
    await world.clock.advance(PAUSE)
    assert connecting.result() is lease.connection
    assert not await paused(world, instance)
    world.check()
    world.dispatcher.release(lease)
    second = lease_of(world, function)
    assert second.connection is not None, "it runs: nothing to wait for"
    world.dispatcher.release(second)
    await world.pass_time(1.5)
    assert await paused(world, instance), "it freezes again"


async def test_a_call_that_comes_while_the_engine_freezes_waits_for_both(world: World) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    await world.clock.advance(1.0)
    world.reaper.reap()
    await world.clock.advance(PAUSE / 2)
    assert instance.state is State.FROZEN
    lease = lease_of(world, function)
    connecting = asyncio.ensure_future(lease.connect(CALL))
    await world.clock.advance(PAUSE)
    assert not connecting.done()
    await world.clock.advance(PAUSE)
    assert connecting.done()
    assert not await paused(world, instance)
    world.dispatcher.release(lease)


async def test_all_slots_of_a_thawing_instance_wait(world: World) -> None:
    function = world.deploy(freeze_after=1.0, concurrency=3, max_instances=1)
    [instance] = await served(world, function)
    await world.pass_time(1.5)
    leases = [lease_of(world, function) for _ in range(3)]
    assert all(lease.connection is None for lease in leases)
    world.check()
    connections = [asyncio.ensure_future(lease.connect(CALL)) for lease in leases]
    await world.clock.advance(2 * PAUSE)
    assert len({id(c.result()) for c in connections}) == 3
    assert world.engine.calls["unpause"] == 1
    for lease in leases:
        world.dispatcher.release(lease)
    world.check()
    assert instance.state is State.IDLE


async def test_a_caller_that_leaves_while_it_thaws_leaves_no_trace(world: World) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    await world.pass_time(1.5)
    lease = lease_of(world, function)
    connecting = asyncio.ensure_future(lease.connect(CALL))
    await world.clock.advance(PAUSE / 2)
    connecting.cancel()
    await world.clock.settle()
    world.dispatcher.release(lease, used=False)
    world.check()
    assert instance.state is State.IDLE
    second = lease_of(world, function)
    connecting = asyncio.ensure_future(second.connect(CALL))
    await world.clock.advance(PAUSE)
    assert connecting.done()
    assert not await paused(world, instance)
    world.dispatcher.release(second)


@pytest.mark.parametrize("carried_out", [False, True])
async def test_a_failure_to_freeze_is_logged_once_and_tried_no_more(
    world: World, caplog: pytest.LogCaptureFixture, carried_out: bool
) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    world.engine.fail_next("pause", EngineError("a fault of the engine"), carried_out)
    with caplog.at_level(logging.WARNING, "hearth.freezer"):
        await world.pass_time(20.0)
    assert [r.message for r in caplog.records].count(caplog.records[0].message) == len(caplog.records) == 1
    assert "a fault of the engine" in caplog.text
    assert instance.state is State.IDLE
    assert not await paused(world, instance), "a lost answer left it stopped"
    assert world.engine.calls["pause"] == 1
    lease = lease_of(world, function)
    assert lease.connection is not None
    world.dispatcher.release(lease)


async def test_one_that_the_engine_cannot_thaw_is_dead_and_the_call_gets_another(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    function = world.deploy(freeze_after=1.0)
    [instance] = await served(world, function)
    await world.pass_time(1.5)
    world.engine.fail_next("unpause", EngineError("a fault of the engine"))
    lease = lease_of(world, function)
    with pytest.raises(NotSent):
        await world.clock.run(lease.connect(CALL))
    world.dispatcher.release(lease, Reason.DEAD)
    await world.clock.advance(1.0)
    assert world.pool.ledger.removals == {"dead": 1}
    assert "Cannot thaw" in caplog.text
    assert instance.state is State.GONE


# -- what is not frozen ---------------------------------------------------------------------------------------


async def test_never(world: World) -> None:
    [instance] = await served(world, world.deploy(freeze_after=None))
    await world.pass_time(60.0)
    assert instance.state is State.IDLE
    assert world.engine.calls["pause"] == 0


async def test_prewarmed_and_busy_ones_run(world: World) -> None:
    function = world.deploy(freeze_after=0.0)
    world.prewarm(1)
    caller = world.arrive(function)
    await world.pass_time(10.0)
    assert {str(i.state) for i in world.pool.ledger.instances.values()} == {"busy", "prewarmed"}
    assert caller.lease is not None
    world.dispatcher.release(caller.lease)
    await world.pass_time(1.0)
    assert {str(i.state) for i in world.pool.ledger.instances.values()} == {"frozen", "prewarmed"}


async def test_one_of_several_slots_in_use_keeps_it_running(world: World) -> None:
    function = world.deploy(freeze_after=1.0, concurrency=2, max_instances=1)
    [instance] = await served(world, function)
    first, second = lease_of(world, function), lease_of(world, function)
    world.dispatcher.release(first)
    await world.pass_time(5.0)
    assert instance.state is State.BUSY
    world.dispatcher.release(second)
    await world.pass_time(1.5)
    assert instance.state is State.FROZEN


async def test_a_call_that_nobody_waits_for_any_more_keeps_it_running(world: World) -> None:
    """Its connection was closed in mid-call; the shim dials again when the call has ended."""
    function = world.deploy(freeze_after=1.0, concurrency=2, max_instances=1)
    [instance] = await served(world, function)
    lease = lease_of(world, function)
    link = instance.link
    assert isinstance(link, FakeLink)
    link.taken[0].aborted = True
    world.dispatcher.release(lease)
    await world.pass_time(5.0)
    assert instance.state is State.IDLE
    link.open(2)
    await world.pass_time(0.5)
    assert instance.state is State.FROZEN


# -- a frozen one like any other ------------------------------------------------------------------------------


async def test_provisioned_ones_freeze_and_stay(world: World) -> None:
    function = world.deploy(freeze_after=1.0, keep_alive=3.0, min_instances=1)
    await world.pass_time(20.0)
    assert world.pool.ledger.states("f") == {"frozen": 1}
    assert world.dispatcher.settled()
    lease = lease_of(world, function)
    assert lease.kind == "prewarmed"
    world.dispatcher.release(lease)


async def test_it_expires(world: World) -> None:
    await served(world, world.deploy(freeze_after=1.0, keep_alive=5.0))
    await world.pass_time(6.0)
    assert world.pool.ledger.removals == {"idle": 1}


async def test_it_is_evicted_when_memory_is_wanted(world: World) -> None:
    world.pool.ledger.memory_budget = 200 * MIB
    await served(world, world.deploy("a", freeze_after=1.0))
    await world.pass_time(2.0)
    assert world.pool.ledger.states("a") == {"frozen": 1}
    [other] = await served(world, world.deploy("b"))
    assert other.function == "b"
    assert world.pool.ledger.removals == {"evicted": 1}


@pytest.mark.parametrize("reason", [Reason.REPLACED, Reason.REQUESTED])
async def test_it_is_drained_at_once(world: World, reason: Reason) -> None:
    [instance] = await served(world, world.deploy(freeze_after=1.0))
    await world.pass_time(2.0)
    if reason is Reason.REPLACED:
        world.deploy(version="2")
    else:
        world.pool.drain(instance, reason)
    assert instance.state is State.STOPPING
    await world.clock.advance(1.0)
    assert world.pool.ledger.removals == {str(reason): 1}


async def test_it_is_removed_while_the_engine_freezes_it(world: World) -> None:
    [instance] = await served(world, world.deploy(freeze_after=1.0))
    await world.clock.advance(1.0)
    world.reaper.reap()
    assert instance.pausing is not None
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert instance.state is State.GONE
    assert instance.pausing.done()


async def test_its_silence_is_not_death_and_its_death_is_seen(world: World) -> None:
    [instance] = await served(world, world.deploy(freeze_after=1.0))
    await world.pass_time(60.0)
    assert instance.state is State.FROZEN
    world.kill_instance(instance)
    await world.pass_time(1.0)
    assert world.pool.ledger.removals == {"dead": 1}


async def test_the_most_recently_used_is_picked_frozen_or_not(world: World) -> None:
    function = world.deploy(freeze_after=2.0)
    function.exec_seconds = 10.0
    older, newer = await served(world, function, 2)
    await world.pass_time(3.0)
    assert (older.state, newer.state) == (State.FROZEN, State.FROZEN)
    first, second = lease_of(world, function), lease_of(world, function)
    world.dispatcher.release(first)
    await world.pass_time(0.5)
    world.dispatcher.release(second)
    await world.pass_time(1.75)
    assert (first.instance.state, second.instance.state) == (State.FROZEN, State.IDLE)
    third = lease_of(world, function)
    assert third.instance is second.instance
    world.dispatcher.release(third)
