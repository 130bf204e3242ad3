"""What a caller is told that gets no slot, word for word, and what is left of it then."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pool.errors import FunctionBroken
from pool.host.uids import UidRange
from scheduler.dispatch.decisions import FUNCTION_BACKOFF
from scheduler.dispatch.errors import Gone, NoCapacity, NotReady, QueueFull
from scheduler.dispatch.function import Limits
from scheduler.dispatch.queued import Queued
from tests.support.virtual_pool import COLD, TRACEBACK, UIDS, World

SHORT = Limits(queue_timeout=0.5)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(budget=256 * 2**20)
    yield made
    made.check()
    await made.close()


async def why_not(world: World, name: str, **keys: object) -> str:
    """What a call of a function is told at the end of its `queue_timeout`."""
    caller = world.arrive(world.deploy(name, limits=SHORT, **keys))
    await world.clock.advance(0.6)
    assert isinstance(caller.error, NoCapacity), caller
    return str(caller.error)


async def test_every_instance_is_busy(world: World) -> None:
    function = world.deploy("f", max_instances=1, limits=SHORT)
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    assert holder.lease is not None
    said = await why_not(world, "f", max_instances=1)
    assert said == "no instance of f within 0.5 s (queue_timeout): every instance is busy"
    world.dispatcher.release(holder.lease)


@pytest.mark.parametrize(("memory", "why"), [(129, "the gateway's memory budget is in use"), (128, None)])
async def test_the_memory_budget_is_in_use(world: World, memory: int, why: str | None) -> None:
    """128 MiB are taken, and 128 are left: just enough for one of 128."""
    holder = world.arrive(world.deploy("holds"))
    await world.clock.advance(COLD)
    assert holder.lease is not None
    if why is not None:
        said = await why_not(world, "f", memory=memory)
        assert said == f"no instance of f within 0.5 s (queue_timeout): {why}"
    else:
        caller = world.arrive(world.deploy("f", memory=memory))
        await world.clock.advance(COLD)
        assert caller.lease is not None
        world.dispatcher.release(caller.lease)
    world.dispatcher.release(holder.lease)


async def test_memory_is_not_blamed_where_no_more_instances_are_allowed(world: World) -> None:
    """All memory is taken, but max_instances would have held the call up anyway."""
    function = world.deploy("f", memory=256, max_instances=1, limits=SHORT)
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    assert holder.lease is not None
    assert "every instance is busy" in await why_not(world, "f", memory=256, max_instances=1)
    world.dispatcher.release(holder.lease)


async def test_a_start_that_takes_long_is_the_function_s_own_and_goes_on(world: World) -> None:
    world.launcher.endless.add("f")
    caller = world.arrive(world.deploy("f", limits=SHORT))
    await world.clock.advance(0.4)
    [instance] = world.pool.ledger.of("f")
    world.pool.output(instance, b"loading 3 of 9\n")
    await world.clock.advance(0.2)
    assert isinstance(caller.error, NotReady)
    assert str(caller.error) == (
        "no instance of f was ready within 0.5 s (queue_timeout): its handler is still being imported after 0.5 s. "
        "The start goes on; call again, or raise queue_timeout. It has printed: loading 3 of 9"
    )
    assert world.pool.ledger.states("f") == {"starting": 1}, "it goes on"


async def test_a_call_that_waits_for_a_start_that_fails_gets_its_output(world: World) -> None:
    world.launcher.broken.add("f")
    function = world.deploy("f")
    caller = world.arrive(function)
    await world.clock.advance(COLD)
    assert isinstance(caller.error, FunctionBroken)
    assert world.pool.printed.logs.read(caller.invocation) == TRACEBACK
    assert function.printed == caller.error.printed == TRACEBACK.decode()
    world.launcher.broken.clear()
    again = world.arrive(function)
    await world.clock.advance(COLD)
    assert again.lease is not None
    assert function.printed == "", "as its fault"
    world.dispatcher.release(again.lease)


async def test_a_waiter_that_is_refused_leaves_its_place(world: World) -> None:
    function = world.deploy("f", max_instances=1, limits=Limits(queue_size=1))
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    assert holder.lease is not None
    now = world.clock.now()
    place = Queued(world.dispatcher, function, "i", now)
    with pytest.raises(QueueFull):
        Queued(world.dispatcher, function, "j", now)
    fault = RuntimeError("its client has gone")
    place.refuse(fault)
    with pytest.raises(RuntimeError) as caught:
        await place.collect()
    assert caught.value is fault
    assert function.waiting == 0
    assert function.expiry is None, "a timer for nobody"
    place.refuse(RuntimeError("again"))
    assert function.waiting == 0
    following = Queued(world.dispatcher, function, "k", now)
    world.dispatcher.release(holder.lease)
    lease = await following.collect()
    following.refuse(RuntimeError("too late: it has its slot"))
    assert function.waiting == 0
    assert lease.invocation == "k"
    world.dispatcher.release(lease)


async def test_who_waits_for_memory_behind_one_that_is_refused_is_next(world: World) -> None:
    holder = world.arrive(world.deploy("holds", memory=128))
    await world.clock.advance(COLD)
    assert holder.lease is not None
    big, small = world.deploy("big", memory=256), world.deploy("small", memory=128)
    place = Queued(world.dispatcher, big, "i", world.clock.now())
    behind = world.arrive(small)
    await world.clock.advance(COLD)
    assert behind.lease is None
    place.refuse(RuntimeError("its client has gone"))
    with pytest.raises(RuntimeError):
        await place.collect()
    await world.clock.advance(COLD)
    assert behind.lease is not None
    for lease in (behind.lease, holder.lease):
        world.dispatcher.release(lease)


async def test_what_waits_for_a_withdrawn_function_is_told_its_name(world: World) -> None:
    caller = world.arrive(world.deploy("f"))
    await world.clock.settle()
    assert world.dispatcher.functions["f"].waiting == 1
    world.dispatcher.withdraw("f")
    world.dispatcher.withdraw("f")
    await world.clock.settle()
    assert isinstance(caller.error, Gone)
    assert str(caller.error) == "f is no longer deployed"


async def test_each_failed_start_in_a_row_makes_the_pause_longer(world: World) -> None:
    function = world.deploy("f", min_instances=1)
    world.launcher.broken.add("f")
    for failures in (1, 2, 3):
        while function.failures < failures:
            await world.clock.advance(0.01)
        assert function.not_before - world.clock.now() == pytest.approx(
            FUNCTION_BACKOFF.pause(failures), abs=0.02
        )
        assert function.last_fault == "No module named 'nowhere'"
    world.launcher.broken.clear()
    await world.clock.advance(FUNCTION_BACKOFF.pause(3) + 1.0)
    assert world.pool.ledger.states("f") == {"idle": 1}
    assert function.failures == 0


async def test_a_slot_that_comes_just_after_its_caller_gave_up_goes_to_the_next(world: World) -> None:
    """The caller's task has not run since: it is still in the queue."""
    function = world.deploy("f", max_instances=1)
    holder = world.arrive(function)
    await world.clock.advance(COLD)
    gone, following = world.arrive(function), world.arrive(function)
    await world.clock.settle()
    assert holder.lease is not None and gone.task is not None
    gone.task.cancel()
    world.dispatcher.release(holder.lease)
    await world.clock.settle()
    assert gone.lease is None and gone.ended_at is not None
    assert following.lease is not None
    assert following.lease.instance is holder.lease.instance
    world.dispatcher.release(following.lease)
    assert function.function.calls == 2, "nobody has called with the slot in between"


async def test_every_uid_is_in_use(world: World) -> None:
    """As any fault of the platform: said with what to do, and tried again; then somebody has left."""
    world.pool.ledger.uids.use(UidRange(UIDS.first, UIDS.first), UIDS.first)
    holder = world.arrive(world.deploy("holds", reuse=False))
    await world.clock.advance(COLD)
    assert holder.lease is not None
    function = world.deploy("f", limits=SHORT)
    refused = world.arrive(function)
    await world.clock.advance(0.6)
    assert isinstance(refused.error, NoCapacity), refused
    assert "containers use every uid of the setting HEARTH_UIDS" in str(refused.error)
    assert world.engine.alive() == 1
    world.dispatcher.release(holder.lease)
    await world.clock.advance(5.0)
    served = world.arrive(function)
    await world.clock.advance(COLD)
    assert served.lease is not None
    world.dispatcher.release(served.lease)
