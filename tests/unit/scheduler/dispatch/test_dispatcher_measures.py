"""What the dispatcher learns from the end of a call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pool.lease import Lease
from pool.states import Reason
from scheduler.dispatch.decisions import smooth_low
from scheduler.dispatch.function import Revision
from tests.support.virtual_pool import COLD, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.check()
    await made.close()


async def held(world: World, function: Revision, seconds: float, reported: float | None) -> Lease:
    """A lease that was held for so long, and of which the shim says so; not yet released."""
    caller = world.arrive(function)
    if caller.lease is None:
        await world.clock.advance(COLD)
    assert caller.lease is not None
    await world.clock.advance(caller.lease.since + seconds - world.clock.now())
    caller.lease.exec_seconds = reported
    return caller.lease


async def test_the_time_of_a_call_is_the_shims_but_no_more_than_it_was_held(world: World) -> None:
    """A shim that shares its process with user code can say anything; what it says can only be less."""
    function = world.deploy()
    average = None
    for number, (seconds, reported, took) in enumerate(
        [(1.0, None, 1.0), (2.0, 0.25, 0.25), (1.0, 50.0, 1.0), (0.5, 0.5, 0.5), (3.0, 0.0, 0.0)], 1
    ):
        world.dispatcher.release(await held(world, function, seconds, reported))
        average = smooth_low(average, took)
        assert function.exec_seconds == pytest.approx(average)
        assert function.function.calls == number


async def test_what_was_not_called_is_not_measured(world: World) -> None:
    function = world.deploy()
    world.dispatcher.release(await held(world, function, 1.0, None), used=False)
    assert (function.exec_seconds, function.function.calls) == (None, 0)


async def test_a_call_of_an_older_version_says_nothing_of_the_new_one(world: World) -> None:
    lease = await held(world, world.deploy(version="1"), 1.0, None)
    function = world.deploy(version="2")
    world.dispatcher.release(lease)
    assert (function.exec_seconds, function.function.calls) == (None, 1)


async def test_an_instance_that_is_lost_is_replaced_at_once_for_those_who_wait(world: World) -> None:
    """Not only when its removal is confirmed, which takes its time."""
    function = world.deploy(max_instances=2)
    function.exec_seconds = 0.001
    lease = await held(world, function, 0.001, None)
    waiters = [world.arrive(function) for _ in range(2)]
    await world.clock.settle()
    assert world.pool.ledger.states("f") == {"busy": 1}
    world.dispatcher.release(lease, Reason.TIMEOUT)
    assert world.pool.ledger.states("f") == {"stopping": 1, "starting": 1}
    await world.clock.advance(2 * COLD)
    first = waiters[0].lease
    assert first is not None
    world.dispatcher.release(first)
    await world.clock.settle()
    assert waiters[1].lease is not None
    world.dispatcher.release(waiters[1].lease)
