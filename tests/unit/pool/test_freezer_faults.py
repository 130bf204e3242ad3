"""What becomes of an instance whose freezing or thawing over the engine fails, or is overtaken. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from pool.engine.base import EngineError
from pool.freezer import THAW_TIMEOUT_SECONDS
from pool.instance import Instance
from pool.states import Reason, State
from pool.transport.message import Call
from scheduler.dispatch.function import Revision
from tests.support.virtual_pool import COLD, World

CALL = Call(b"POST", b"/", [])
PAUSE = 0.016
"""Seconds that the engine in memory takes to pause or unpause."""
FAULT = EngineError("a fault of the engine")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.check()
    await made.close()


async def idle(world: World, **keys: object) -> tuple[Revision, Instance]:
    """A function that is frozen as soon as anybody looks, and its instance."""
    function = world.deploy(freeze_after=0.0, **keys)
    instance = world.pool.start(function.workload)
    await world.clock.advance(COLD)
    assert instance.state is State.IDLE
    return function, instance


async def test_what_still_thaws_is_not_frozen_yet(world: World) -> None:
    """Its call has ended before it could begin."""
    function, instance = await idle(world)
    await world.pass_time(1.0)
    lease = world.arrive(function).lease
    assert lease is not None
    world.dispatcher.release(lease, used=False)
    assert instance.state is State.IDLE
    world.reaper.reap()
    assert instance.state is State.IDLE
    assert world.engine.calls["pause"] == 1
    await world.clock.advance(PAUSE)
    world.reaper.reap()
    assert instance.state is State.FROZEN


async def test_one_that_the_engine_does_not_thaw_in_time_is_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    function, instance = await idle(world)
    world.reaper.reap()
    await world.clock.advance(PAUSE)
    monkeypatch.setattr(world.engine, "unpause", lambda _: asyncio.Event().wait())
    lease = world.arrive(function).lease
    assert lease is not None
    await world.clock.advance(THAW_TIMEOUT_SECONDS - 0.1)
    assert instance.state is State.BUSY
    await world.clock.advance(0.2)
    assert world.pool.ledger.removals == {"dead": 1}
    world.dispatcher.release(lease)


async def test_one_that_may_be_frozen_or_not_is_removed(world: World) -> None:
    """Neither freezing nor undoing it was answered."""
    _, instance = await idle(world)
    world.engine.fail_next("pause", FAULT, carried_out=True)
    world.engine.fail_next("unpause", FAULT)
    await world.pass_time(1.0)
    assert instance.state is State.GONE
    assert world.pool.ledger.removals == {"dead": 1}


@pytest.mark.parametrize("carried_out", [False, True])
async def test_a_call_that_came_before_freezing_failed_is_served(world: World, carried_out: bool) -> None:
    function, instance = await idle(world)
    world.engine.fail_next("pause", FAULT, carried_out)
    world.reaper.reap()
    lease = world.arrive(function).lease
    assert lease is not None and lease.connection is None
    connection = await world.clock.run(lease.connect(CALL))
    assert connection is lease.connection
    assert instance.state is State.BUSY
    world.dispatcher.release(lease)


async def test_nothing_is_said_of_one_that_is_being_removed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    _, instance = await idle(world)
    world.engine.fail_next("pause", FAULT, carried_out=True)
    world.reaper.reap()
    await world.clock.advance(PAUSE / 2)
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert instance.state is State.GONE
    assert caplog.messages == []


async def test_while_the_engine_is_away_nothing_is_frozen_and_afterwards_it_is(world: World) -> None:
    _, instance = await idle(world)
    world.engine.stop()
    with pytest.raises(EngineError):
        await world.guard.ping()
    await world.pass_time(5.0)
    assert instance.state is State.IDLE
    assert world.engine.calls["pause"] == 0, "it is known to be away"
    world.engine.resume()
    await world.pass_time(2.0)
    assert instance.state is State.FROZEN


async def test_a_fault_that_nobody_thought_of_leaves_it_running(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(instance: Instance) -> None:
        raise RuntimeError("nobody thought of this")

    _, instance = await idle(world)
    monkeypatch.setattr(world.launcher, "pause", fails)
    await world.pass_time(2.0)
    assert instance.state is State.IDLE
    [record] = caplog.records
    assert record.exc_info is not None, "with its traceback"


async def test_one_whose_thawing_fails_as_nobody_thought_of_is_dead(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(instance: Instance) -> None:
        raise RuntimeError("nobody thought of this")

    function, instance = await idle(world)
    await world.pass_time(1.0)
    monkeypatch.setattr(world.launcher, "unpause", fails)
    lease = world.arrive(function).lease
    assert lease is not None
    await world.clock.advance(PAUSE)
    assert instance.state is State.STOPPING
    assert caplog.records[0].exc_info is not None
    world.dispatcher.release(lease, Reason.DEAD)
    await world.clock.advance(1.0)
    assert world.pool.ledger.removals == {"dead": 1}


async def test_one_that_is_removed_while_it_thaws_is_not_buried_twice(world: World) -> None:
    function, instance = await idle(world)
    await world.pass_time(1.0)
    lease = world.arrive(function).lease
    assert lease is not None
    world.engine.fail_next("unpause", FAULT)
    connecting = asyncio.ensure_future(lease.connect(CALL))
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert isinstance(connecting.exception(), Exception)
    world.dispatcher.release(lease, Reason.DEAD)
    assert world.pool.ledger.removals == {"requested": 1}
