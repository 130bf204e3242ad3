"""The pool carries out what it is told, whatever the engine does meanwhile. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pool.engine.base import ContainerSpec, EngineError
from pool.instance import Instance
from pool.lease import Lease
from pool.pool import SLOW_START_SECONDS
from pool.states import Reason, State
from tests.support.virtual_pool import COLD, CREATE, IMAGE, MIB, REMOVE, SPECIALISE, START, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def leased(world: World, **keys: object) -> Lease:
    """A lease on a new instance of a function."""
    caller = world.arrive(world.deploy(**keys))
    await world.clock.advance(COLD)
    assert caller.lease is not None
    return caller.lease


async def test_a_place_is_reserved_before_the_engine_is_asked(world: World) -> None:
    function = world.deploy()
    instance = world.pool.start(function.workload)
    assert world.engine.calls["create"] == 0
    assert world.pool.ledger.count("f") == 1
    assert world.pool.ledger.memory_declared == instance.memory
    await world.clock.advance(CREATE + START)
    assert instance.state is State.STARTING
    await world.clock.advance(SPECIALISE)
    assert instance.state is State.IDLE
    assert instance.ready_at == world.clock.now()


async def test_a_place_is_free_only_when_the_removal_is_confirmed(world: World) -> None:
    lease = await leased(world)
    for _ in range(3):
        world.engine.fail_next("remove", EngineError("device or resource busy"))
    world.dispatcher.release(lease, Reason.TIMEOUT)
    await world.clock.advance(0.75 * (0.2 + 0.4 + 0.8))  # pauses are up to a quarter shorter, by chance
    assert lease.instance.state is State.STOPPING
    assert world.pool.ledger.count("f") == 1
    assert world.engine.alive() == 1
    await world.clock.advance(0.25 * (0.2 + 0.4 + 0.8) + REMOVE)
    assert lease.instance.state is State.GONE
    assert world.pool.ledger.count("f") == 0
    assert world.metrics.registry.get_sample_value("hearth_removals_total", {"reason": "timeout"}) == 1


async def test_a_removal_goes_on_after_any_fault(world: World) -> None:
    lease = await leased(world)
    world.launcher.destroy_fault = RuntimeError("nobody thought of this")
    world.dispatcher.release(lease, Reason.BROKEN)
    await world.clock.advance(1.0)
    assert lease.instance.state is State.GONE


async def test_a_start_that_is_not_wanted_any_more_leaves_no_container(world: World) -> None:
    function = world.deploy()
    for moment in (0.0, CREATE / 2, CREATE + START / 2, CREATE + START + SPECIALISE / 2):
        instance = world.pool.start(function.workload)
        await world.clock.advance(moment)
        world.pool.remove(instance, Reason.REQUESTED)
        assert instance.state is State.STOPPING
        await world.clock.advance(1.0)
        assert instance.state is State.GONE
        assert world.engine.alive() == 0


async def test_a_container_whose_creation_was_answered_too_late_is_removed(world: World) -> None:
    world.engine.fail_next("create", EngineError("timed out"), carried_out=True)
    instance = world.pool.start(world.deploy().workload)
    await world.clock.advance(CREATE)
    assert world.engine.alive() == 1
    assert instance.container is None
    await world.clock.advance(1.0)
    assert world.engine.alive() == 0
    assert world.pool.ledger.removals == {"start-failed": 1}


async def test_an_unforeseen_fault_of_a_start_is_a_failed_start(world: World) -> None:
    function = world.deploy()
    world.engine.fail_next("start", ValueError("nobody thought of this"))  # type: ignore[arg-type]
    caller = world.arrive(function)
    await world.clock.advance(1.0)
    assert caller.error is not None
    assert "ValueError: nobody thought of this" in str(caller.error)
    assert not world.pool.ledger.instances


async def test_a_lease_ends_once(world: World) -> None:
    lease = await leased(world)
    world.pool.release(lease)
    world.pool.release(lease, Reason.TIMEOUT)
    assert lease.instance.in_use == 0
    assert lease.instance.state is State.IDLE


@pytest.mark.parametrize("fatal", [None, Reason.DEAD])
async def test_a_lease_may_end_long_after_its_instance_is_gone(world: World, fatal: Reason | None) -> None:
    lease = await leased(world)
    world.pool.remove(lease.instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert lease.instance.state is State.GONE
    world.dispatcher.release(lease, fatal)
    assert lease.instance.state is State.GONE
    assert lease.instance.in_use == 0
    assert not world.pool.remembers(lease.instance)
    assert world.pool.ledger.removals == {"requested": 1}


async def test_draining_lets_calls_finish(world: World) -> None:
    function = world.deploy(concurrency=2)
    callers = [world.arrive(function) for _ in range(2)]
    await world.clock.advance(COLD)
    first, second = (caller.lease for caller in callers)
    assert first is not None
    assert second is not None
    assert first.instance is second.instance
    world.pool.drain(first.instance, Reason.MAX_AGE)
    world.pool.drain(first.instance, Reason.REQUESTED)
    world.pool.release(first)
    await world.clock.advance(1.0)
    assert first.instance.state is State.DRAINING
    world.pool.release(second)
    assert first.instance.state is State.STOPPING
    await world.clock.advance(REMOVE)
    assert world.pool.ledger.removals == {"max-age": 1}


async def test_a_fatal_end_drains_what_others_still_use(world: World) -> None:
    function = world.deploy(concurrency=2)
    callers = [world.arrive(function) for _ in range(2)]
    await world.clock.advance(COLD)
    first, second = (caller.lease for caller in callers)
    assert first is not None
    assert second is not None
    world.pool.release(first, Reason.TIMEOUT)
    assert first.instance.state is State.DRAINING
    assert first.instance.free_slots() == 0
    world.pool.release(second)
    await world.clock.advance(REMOVE)
    assert world.pool.ledger.removals == {"timeout": 1}


async def test_output_belongs_to_the_only_call_that_runs(world: World) -> None:
    function = world.deploy(concurrency=2)
    first = world.arrive(function)
    await world.clock.advance(COLD)
    assert first.lease is not None
    instance = first.lease.instance
    world.pool.output(instance, b"one ")
    second = world.arrive(function)
    assert second.lease is not None
    world.pool.output(instance, b"both ")
    world.pool.release(second.lease)
    world.pool.output(instance, b"still unclear ")
    world.pool.release(first.lease)
    world.pool.output(instance, b"nobody")
    assert world.logs.read(first.invocation) == b"one "
    assert world.logs.read(second.invocation) is None
    assert world.pool.printed.of_instance(instance) == b"both still unclear nobody"
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert world.pool.printed.of_instance(instance) == b""


async def test_a_slot_that_changes_before_the_instance_is_ready_is_no_news(world: World) -> None:
    told: list[Instance] = []
    world.dispatcher.slots_changed = told.append  # type: ignore[method-assign]
    world.prewarm(1)
    await world.clock.advance(1.0)
    [generic] = world.pool.ledger.prewarmed(IMAGE)
    world.pool.slots_changed(generic)
    assert told == []


async def test_closing_waits_until_everything_is_gone(world: World) -> None:
    lease = await leased(world)
    world.pool.start(lease.workload)
    world.dispatcher.close()
    closing = asyncio.ensure_future(world.pool.close())
    await world.clock.advance(REMOVE / 2)
    assert not closing.done()
    await world.clock.advance(1.0)
    assert closing.done()
    assert world.pool.ledger.removals == {"shutdown": 2}
    assert repr(world.pool) == "<Pool <Ledger empty; 0 of 10000 MiB declared>>"


async def test_a_pool_to_which_nobody_listens_does_its_work_all_the_same(world: World) -> None:
    """As before its dispatcher is there, and for whoever uses it alone."""
    workload = world.deploy().workload
    pool, launcher = world.pool, world.launcher
    pool.listener = None
    ready = pool.start(workload)
    await world.clock.advance(COLD)
    assert ready.state is State.IDLE
    world.kill_instance(ready)
    pool.remove(ready, Reason.DEAD)
    launcher.broken.add("f")
    failed = pool.start(workload)
    await world.clock.advance(2 * COLD)
    assert failed.reason == Reason.START_FAILED
    launcher.broken.clear()
    launcher.endless.add("f")
    slow = pool.start(workload)
    await world.clock.advance(COLD + SLOW_START_SECONDS)
    assert slow.slow
    pool.remove(slow, Reason.REQUESTED)
    left = Instance("left", IMAGE, 128 * MIB, None, world.clock.now(), State.FOUND)
    left.container = await world.clock.run(world.engine.create(ContainerSpec(name="left", image=IMAGE)))
    launcher.owners["left"] = None
    launcher.unreachable.add("left")
    pool.find(left)
    pool.adopt(left, None)
    await world.clock.advance(1.0)
    assert left.reason == Reason.ORPHANED
    assert {i.state for i in (ready, failed, slow, left)} == {State.GONE}
    assert world.engine.alive() == 0


async def test_a_record_that_nobody_keeps_lets_nothing_be_left_warm(world: World) -> None:
    lease = await leased(world)
    world.dispatcher.release(lease)
    assert await world.clock.run(world.pool.close(keep_warm=True)) == 0
    assert lease.instance.state is State.GONE
