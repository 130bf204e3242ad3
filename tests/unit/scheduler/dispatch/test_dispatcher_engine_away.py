"""While the engine does not answer: what is there is used, and who needs more is told at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pool.engine.base import EngineDown, EngineUnreachable
from pool.states import State
from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.errors import EngineAway, NoCapacity
from scheduler.dispatch.upkeep import UPKEEP_DELAY_SECONDS
from tests.support.virtual_pool import COLD, CREATE, MIB, SPECIALISE, World

DOWN = EngineDown("the engine does not answer", 2.0)


class Away:
    """Whether the engine is away, as the breaker would say."""

    fault: EngineDown | None = None

    def __call__(self) -> EngineDown | None:
        return self.fault


@pytest.fixture
def away() -> Away:
    return Away()


@pytest.fixture
async def world(away: Away) -> AsyncIterator[World]:
    made = World(budget=512 * MIB)
    made.dispatcher = Dispatcher(made.pool, made.clock, made.cores, engine_down=away)
    yield made
    away.fault = None
    made.check()
    await made.close()


async def test_prewarmed_instances_are_given_and_the_others_are_refused_at_once(
    world: World, away: Away
) -> None:
    function = world.deploy(generic=True)
    world.prewarm(2)
    await world.clock.advance(1.0)
    prewarmed = world.pool.ledger.prewarmed(function.workload.container.image)
    assert len(prewarmed) == 2
    away.fault = DOWN
    callers = [world.arrive(function) for _ in range(4)]
    await world.clock.advance(SPECIALISE)
    leases = [caller.lease for caller in callers if caller.lease is not None]
    assert [lease.instance for lease in leases] == prewarmed[: len(leases)]
    assert leases
    for lease in leases:
        world.dispatcher.release(lease)
    await world.clock.advance(10.0)
    assert all(caller.ended_at is not None for caller in callers)
    assert world.engine.calls["create"] == 2, "nothing was asked of the engine"


async def test_a_call_that_needs_a_container_is_told_at_once_and_served_when_the_engine_is_back(
    world: World, away: Away
) -> None:
    away.fault = DOWN
    function = world.deploy()
    caller = world.arrive(function)
    await world.clock.settle()
    assert isinstance(caller.error, EngineAway)
    assert str(caller.error) == f"no instance of f can be started: {DOWN}"
    assert caller.error.retry_after == 2.0
    assert world.engine.calls["create"] == 0
    away.fault = None
    world.dispatcher.engine_back()
    again = world.arrive(function)
    await world.clock.advance(COLD)
    assert again.lease is not None
    world.dispatcher.release(again.lease)


async def test_a_prewarmed_instance_is_no_use_if_memory_is_short_for_it(world: World, away: Away) -> None:
    """Nothing can be removed to make room. 384 MiB are free beside the prewarmed one of 128."""
    world.prewarm(1)
    fits, too_big = (
        world.deploy("fits", memory=512, generic=True),
        world.deploy("big", memory=513, generic=True),
    )
    await world.clock.advance(1.0)
    away.fault = DOWN
    refused, served = world.arrive(too_big), world.arrive(fits)
    await world.clock.advance(SPECIALISE)
    assert isinstance(refused.error, EngineAway)
    assert served.lease is not None
    assert world.pool.ledger.memory_declared == 512 * MIB
    world.dispatcher.release(served.lease)


async def test_whoever_has_an_instance_waits_for_it(world: World, away: Away) -> None:
    function = world.deploy(max_instances=4)
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    assert holder.lease is not None
    away.fault = DOWN
    waiter = world.arrive(function)
    await world.clock.advance(1.0)
    assert waiter.error is None
    world.dispatcher.release(holder.lease)
    await world.clock.settle()
    assert waiter.lease is not None
    world.dispatcher.release(waiter.lease)


async def test_single_use_instances_in_use_are_nothing_to_wait_for(world: World, away: Away) -> None:
    function = world.deploy(reuse=False, max_instances=4)
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    assert holder.lease is not None
    away.fault = DOWN
    waiter = world.arrive(function)
    await world.clock.settle()
    assert isinstance(waiter.error, EngineAway)
    away.fault = None
    world.dispatcher.release(holder.lease)


async def test_that_one_was_refused_keeps_nobody_from_being_served_later(world: World, away: Away) -> None:
    """Its function had no room for another instance, so nothing was to be started for it."""
    function = world.deploy(reuse=False, max_instances=1)
    holder = world.arrive(function)
    await world.clock.advance(60.0)
    assert holder.lease is not None
    away.fault = DOWN
    refused = world.arrive(function)
    await world.clock.settle()
    assert isinstance(refused.error, EngineAway)
    away.fault = None
    world.dispatcher.release(holder.lease)
    await world.clock.advance(1.0)
    assert not world.pool.ledger.instances
    later = world.arrive(function)
    await world.clock.advance(COLD)
    assert later.lease is not None
    world.dispatcher.release(later.lease)


async def test_after_a_fault_of_the_engine_the_next_is_told_it_until_it_is_tried_again(world: World) -> None:
    function = world.deploy()
    function.failures = 1
    function.blocked = "no space left on device"
    function.not_before = world.clock.now() + 1.0
    caller = world.arrive(function)
    await world.clock.settle()
    assert isinstance(caller.error, NoCapacity)
    assert "no space left on device" in str(caller.error)
    assert caller.error.retry_after == pytest.approx(1.0)
    await world.clock.advance(1.0)
    again = world.arrive(function)
    await world.clock.advance(COLD)
    assert again.lease is not None
    world.dispatcher.release(again.lease)


@pytest.mark.parametrize("what", ["a prewarmed one", "one of min_instances"])
async def test_who_is_started_ahead_when_the_engine_goes_away_is_tried_again_when_it_is_back(
    caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """No start has failed: nobody knows whether one would have."""
    world = World()
    if what == "a prewarmed one":
        world.prewarm(1)
    else:
        world.deploy("kept", min_instances=1)
    await world.clock.advance(UPKEEP_DELAY_SECONDS + CREATE / 2)
    assert world.pool.ledger.starting
    world.engine.stop()
    with pytest.raises(EngineUnreachable):
        await world.guard.ping()
    await world.clock.advance(60.0)
    assert world.pool.ledger.starting == 0
    assert "did not start" not in caplog.text
    world.engine.resume()
    await world.clock.advance(10.0)  # also for the removal of what was being started
    [instance] = world.pool.ledger.instances.values()
    assert instance.state in (State.PREWARMED, State.IDLE)
    world.check()
    await world.close()


async def test_a_prewarmed_instance_that_needs_more_memory_than_there_is_waits_for_it() -> None:
    world = World(budget=512 * MIB)
    world.prewarm(1)
    holder = world.arrive(world.deploy("large", memory=300))
    await world.clock.advance(1.0)
    assert holder.lease is not None
    waiter = world.arrive(world.deploy("f", memory=256, generic=True))
    await world.clock.advance(1.0)
    assert waiter.waits, "128 MiB more are not there"
    world.dispatcher.release(holder.lease)
    await world.clock.advance(1.0)
    assert waiter.lease is not None and waiter.lease.instance.born_generic
    assert world.pool.ledger.removals == {"evicted": 1}
    world.dispatcher.release(waiter.lease)
    world.check()
    await world.close()
