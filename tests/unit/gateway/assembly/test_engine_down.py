"""What becomes of calls and instances while the engine fails or does not answer, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pool.engine.base import EngineError
from pool.engine.guarded import PROBE_TIMEOUT, SUSPICIOUS
from pool.states import State
from scheduler.dispatch.errors import EngineAway, NoCapacity
from scheduler.dispatch.function import Limits, Revision
from tests.support.virtual_pool import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.check()
    await made.close()


async def warm(world: World, function: Revision) -> None:
    """Have an instance of the function that has served."""
    await world.clock.run(world.call(function, 0.01))


async def never(*_: object) -> None:
    """What an engine under SIGSTOP does."""
    await asyncio.get_running_loop().create_future()


async def test_a_fault_of_the_engine_is_not_asked_for_again_by_every_call(world: World) -> None:
    function = world.deploy()
    world.engine.always_fail("create", EngineError("no space left on device"))
    for _ in range(600):
        caller = world.arrive(function)
        await world.clock.advance(0.1)
        assert isinstance(caller.error, NoCapacity)
        assert "no space left" in str(caller.error)
        assert 0 < caller.error.retry_after <= 5.0
        assert caller.ended_at == caller.arrived, "not told at once"
    assert 12 < world.engine.calls["create"] < 12 + 60 / (0.75 * 5.0)
    world.engine.heal()
    await world.clock.advance(5.0)
    assert (await world.clock.run(world.call(function, 0.1))).kind == "cold"


async def test_a_functions_own_fault_is_tried_by_every_call_and_holds_no_other_back(world: World) -> None:
    bad, good = world.deploy("bad", image="gone"), world.deploy("good")
    for _ in range(10):
        caller = world.arrive(bad)
        await world.clock.advance(0.1)
        assert isinstance(caller.error, NoCapacity)
    assert (await world.clock.run(world.call(good, 0.1))).kind == "cold"


async def goes_down(world: World) -> None:
    world.engine.stop()
    with pytest.raises(EngineError):
        await world.guard.ping()
    assert world.guard.down() is not None


async def test_while_the_engine_is_down_warm_calls_are_served_and_others_refused_at_once(
    world: World,
) -> None:
    warm_one, other = world.deploy("warm", max_instances=2), world.deploy("other")
    await warm(world, warm_one)
    await goes_down(world)
    asked = world.engine.calls["create"]
    for _ in range(50):
        caller = world.arrive(other)
        await world.clock.settle()
        assert isinstance(caller.error, EngineAway)
        assert caller.error.retry_after >= 1
        assert (await world.clock.run(world.call(warm_one, 0.1))).kind == "warm"
    holder, waiter = world.arrive(warm_one), world.arrive(warm_one)
    await world.clock.advance(5.0)
    assert waiter.waits, "an instance will be free for it"
    assert holder.lease is not None
    world.dispatcher.release(holder.lease)
    await world.clock.settle()
    assert waiter.lease is not None
    assert world.engine.calls["create"] == asked
    assert len(world.pool.ledger.instances) == 1, "an instance that was never asked for has to be removed"
    world.engine.resume()
    await world.clock.advance(1.0)
    assert (await world.clock.run(world.call(other, 0.1))).kind == "cold"


async def test_who_waits_for_an_instance_that_dies_while_the_engine_is_down_is_told(world: World) -> None:
    function = world.deploy(max_instances=1)
    await warm(world, function)
    holder = world.arrive(function)
    await goes_down(world)
    waiter = world.arrive(function)
    assert holder.lease is not None
    world.kill_instance(holder.lease.instance)
    await world.pass_time(1.0)
    assert isinstance(waiter.error, EngineAway)


async def test_starts_that_hang_are_given_up_when_the_engine_is_found_to_be_down(world: World) -> None:
    function = world.deploy(limits=Limits(queue_timeout=100.0))
    for verb in ("create", "ping"):
        setattr(world.engine, verb, never)
    caller = world.arrive(function)
    await world.clock.advance(SUSPICIOUS + PROBE_TIMEOUT)
    assert isinstance(caller.error, EngineAway)
    assert caller.ended_at == caller.arrived + SUSPICIOUS + PROBE_TIMEOUT
    for verb in ("create", "ping"):
        delattr(world.engine, verb)
    await world.clock.advance(PROBE_TIMEOUT + 2.0)
    assert not world.pool.ledger.instances
    assert (await world.clock.run(world.call(function, 0.1))).kind == "cold"


async def test_what_is_kept_ready_comes_back_with_the_engine(world: World) -> None:
    function = world.deploy(min_instances=2)
    world.prewarm(1)
    await world.clock.advance(2.0)
    instances = list(world.pool.ledger.instances.values())
    assert len(instances) == 3
    await goes_down(world)
    for instance in instances:
        world.kill_instance(instance)
    await world.pass_time(120.0)
    assert {i.state for i in instances} == {State.STOPPING}
    world.engine.resume()
    await world.pass_time(3.0)
    assert world.pool.ledger.states("f") == {"idle": 2}
    assert world.pool.ledger.states(None) == {"prewarmed": 1}
    assert function.last_fault is None


async def test_a_prewarmed_instance_serves_while_the_engine_is_down(world: World) -> None:
    function = world.deploy(generic=True)
    world.prewarm(1)
    await world.clock.advance(1.0)
    await goes_down(world)
    assert (await world.clock.run(world.call(function, 0.1))).kind == "prewarmed"
