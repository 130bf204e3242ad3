"""What the dispatcher decides, step by step, on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from pool.engine.base import EngineError
from pool.errors import FunctionBroken
from pool.instance import Instance
from pool.lease import Lease
from pool.pool import SLOW_START_SECONDS
from pool.states import Reason, State
from scheduler.dispatch.errors import Gone, NoCapacity, QueueFull
from scheduler.dispatch.function import FIRST_START_GUESS, Limits, Revision
from scheduler.dispatch.upkeep import UPKEEP_DELAY_SECONDS
from tests.support.virtual_pool import (
    COLD,
    CREATE,
    IMAGE,
    MIB,
    REMOVE,
    SPECIALISE,
    START,
    FakeLink,
    World,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.check()
    await made.close()


async def warm(world: World, function: Revision, count: int = 1) -> list[Instance]:
    """So many instances of a function, idle, each served once, in the order of their last use."""
    callers = [world.arrive(function) for _ in range(count)]
    await world.clock.advance(COLD * (count + 1))
    leases = [caller.lease for caller in callers]
    for lease in leases:
        assert lease is not None, f"{function!r} got no instance: {world.pool!r}"
        await world.clock.advance(0.001)
        world.dispatcher.release(lease)
    return [lease.instance for lease in leases if lease is not None]


async def test_a_sequential_client_has_one_instance(world: World) -> None:
    function = world.deploy()
    kinds = [(await world.clock.run(world.call(function, 1.0))).kind for _ in range(10)]
    assert kinds == ["cold"] + 9 * ["warm"]
    assert world.clock.now() == pytest.approx(COLD + 10.0)
    assert world.engine.calls["create"] == 1


@pytest.mark.parametrize("seconds", [0.0002, 0.05, 1.0])
async def test_a_burst_of_200_is_served_by_at_most_max_instances(world: World, seconds: float) -> None:
    function = world.deploy(max_instances=8, generic=True)
    world.prewarm(2)
    await world.clock.advance(1.0)
    peak = 0

    def look() -> None:
        nonlocal peak
        peak = max(peak, world.containers_of("f"))

    world.engine.on_create = look
    limits = Limits(queue_timeout=1000.0)
    world.dispatcher.deploy(function.workload, limits, 8)
    leases = await world.clock.run(asyncio.gather(*(world.call(function, seconds) for _ in range(200))))
    assert len({lease.invocation for lease in leases}) == 200
    look()
    assert peak <= 8
    assert len({lease.instance.id for lease in leases}) <= 8
    if seconds == 1.0:
        assert peak == 8
    assert not function.waiting


async def test_a_freed_instance_serves_first_and_the_started_one_is_kept(world: World) -> None:
    function = world.deploy()
    [instance] = await warm(world, function)
    function.exec_seconds = 10.0
    first = world.arrive(function)
    second = world.arrive(function)
    await world.clock.advance(0.01)
    assert world.pool.ledger.states("f") == {"busy": 1, "starting": 1}
    assert first.lease is not None
    world.dispatcher.release(first.lease)
    await world.clock.settle()
    assert second.lease is not None
    assert second.lease.instance is instance
    await world.clock.advance(COLD)
    assert world.pool.ledger.states("f") == {"busy": 1, "idle": 1}
    assert not world.pool.ledger.removals


async def test_a_started_instance_serves_first_when_none_is_freed(world: World) -> None:
    function = world.deploy()
    await warm(world, function)
    function.exec_seconds = 10.0
    world.arrive(function)
    second = world.arrive(function)
    began = world.clock.now()
    await world.clock.advance(1.0)
    assert second.lease is not None
    assert second.lease.kind == "cold"
    assert second.ended_at == pytest.approx(began + COLD)


async def test_prewarmed_comes_before_cold(world: World) -> None:
    function = world.deploy(generic=True)
    world.prewarm(1)
    await world.clock.advance(1.0)
    [generic] = world.pool.ledger.prewarmed(IMAGE)
    began = world.clock.now()
    caller = world.arrive(function)
    await world.clock.advance(SPECIALISE)
    assert caller.lease is not None
    assert caller.lease.instance is generic
    assert caller.lease.kind == "prewarmed"
    assert caller.ended_at == pytest.approx(began + SPECIALISE)
    world.dispatcher.release(caller.lease)
    again = world.arrive(function)
    assert again.lease is not None
    assert again.lease.kind == "warm"


async def test_a_prewarmed_instance_of_another_image_is_no_use(world: World) -> None:
    function = world.deploy(generic=True)
    world.prewarm(1, image="other:test")
    await world.clock.advance(1.0)
    caller = world.arrive(function)
    await world.clock.advance(COLD)
    assert caller.lease is not None
    assert caller.lease.kind == "cold"


async def test_who_finds_a_refill_under_way_takes_it(world: World) -> None:
    function = world.deploy(generic=True)
    world.prewarm(1)
    await world.clock.advance(UPKEEP_DELAY_SECONDS + 0.1)
    assert world.pool.ledger.states(None) == {"starting": 1}
    caller = world.arrive(function)
    await world.clock.advance(CREATE + START - 0.1 + SPECIALISE)
    assert caller.lease is not None
    assert caller.lease.kind == "prewarmed"
    assert world.engine.calls["create"] == 1


async def test_an_instance_that_was_ready_before_the_call_is_not_cold(world: World) -> None:
    function = world.deploy(min_instances=1)
    await world.clock.advance(1.0)
    caller = world.arrive(function)
    assert caller.lease is not None
    assert caller.lease.kind == "prewarmed"


async def test_most_recently_used_first(world: World) -> None:
    function = world.deploy()
    instances = await warm(world, function, 3)
    assert len({instance.id for instance in instances}) == 3
    for _ in range(3):
        caller = world.arrive(function)
        assert caller.lease is not None
        assert caller.lease.instance is instances[-1]
        await world.clock.advance(0.1)
        world.dispatcher.release(caller.lease)
    first, second = world.arrive(function), world.arrive(function)
    assert first.lease is not None
    assert second.lease is not None
    assert [first.lease.instance, second.lease.instance] == [instances[2], instances[1]]


async def test_the_fullest_first(world: World) -> None:
    function = world.deploy(concurrency=3, max_instances=2)
    callers = [world.arrive(function) for _ in range(6)]
    await world.clock.advance(1.0)
    used = Counter(caller.lease.instance.id for caller in callers if caller.lease)
    assert sorted(used.values()) == [3, 3]
    one, other = used
    keep = {one: 2, other: 1}
    for caller in callers:
        assert caller.lease is not None
        if keep[caller.lease.instance.id]:
            keep[caller.lease.instance.id] -= 1
        else:
            world.dispatcher.release(caller.lease)
    packed = world.arrive(function)
    assert packed.lease is not None
    assert packed.lease.instance.id == one


async def test_one_start_serves_as_many_waiters_as_it_has_slots(world: World) -> None:
    function = world.deploy(concurrency=4)
    callers = [world.arrive(function) for _ in range(4)]
    await world.clock.advance(COLD)
    assert all(caller.lease for caller in callers)
    assert world.engine.calls["create"] == 1


async def clients(world: World, function: Revision, seconds: float, until: float) -> None:
    """16 clients that call one function again and again."""

    async def client() -> None:
        while world.clock.now() < until:
            await world.call(function, seconds)

    await world.clock.run(asyncio.gather(*(client() for _ in range(16))))


async def test_16_clients_of_short_calls_get_no_more_than_the_first_two_instances(world: World) -> None:
    await clients(world, world.deploy(max_instances=64), 0.0002, until=1.0)
    assert 1 <= world.engine.calls["create"] <= 2


async def test_16_clients_of_long_calls_get_16_instances(world: World) -> None:
    await clients(world, world.deploy(max_instances=64), 1.0, until=8.0)
    assert world.engine.calls["create"] == 16


async def test_unmeasured_at_most_as_many_starts_as_cores_at_once(world: World) -> None:
    function = world.deploy(max_instances=64)
    for _ in range(10):
        world.arrive(function)
    await world.clock.advance(0.001)
    assert world.pool.ledger.states("f") == {"starting": 2}
    await world.clock.advance(COLD)
    assert world.pool.ledger.states("f") == {"busy": 2}, "started more before there is a first result"
    await world.clock.advance(FIRST_START_GUESS - COLD)
    assert world.pool.ledger.states("f") == {"busy": 2, "starting": 2}, (
        "the first waiter has waited long enough"
    )


async def test_a_wrong_estimate_is_noticed(world: World) -> None:
    function = world.deploy()
    await warm(world, function)
    assert function.exec_seconds == pytest.approx(0.001, abs=0.2)
    function.exec_seconds = 0.0002
    holder = world.arrive(function)  # and it runs for ever
    waiter = world.arrive(function)
    assert holder.lease is not None
    await world.clock.advance(function.start_seconds)
    assert waiter.lease is None
    await world.clock.advance(function.start_seconds + 2 * COLD)
    assert waiter.lease is not None
    assert world.engine.calls["create"] == 2


async def test_the_least_recently_used_goes_for_memory_then_prewarmed_ones(world: World) -> None:
    world.pool.ledger.memory_budget = 5 * 128 * MIB
    world.prewarm(2)
    await world.clock.advance(1.0)
    old = await warm(world, world.deploy("old"))
    newer = await warm(world, world.deploy("newer"))
    await world.clock.advance(1.0)
    big = world.arrive(world.deploy("big", memory=2 * 128))
    await world.clock.settle()
    assert [i.reason for i in old] == ["evicted"]
    assert newer[0].state is State.IDLE
    await world.clock.advance(REMOVE + COLD)
    assert big.lease is not None
    huge = world.arrive(world.deploy("huge", memory=3 * 128))
    await world.clock.settle()
    assert newer[0].reason == "evicted"
    assert world.pool.ledger.states(None) == {"stopping": 2}
    await world.clock.advance(REMOVE + COLD)
    assert huge.lease is not None
    assert world.pool.ledger.removals == {"evicted": 4}


async def test_provisioned_instances_are_spared(world: World) -> None:
    world.pool.ledger.memory_budget = 3 * 128 * MIB
    kept = world.deploy("kept", min_instances=1)
    instances = await warm(world, kept, 2)
    assert world.pool.ledger.states("kept") == {"idle": 2}
    caller = world.arrive(world.deploy("other", memory=3 * 128, generic=True))
    await world.clock.advance(5.0)
    assert world.pool.ledger.states("kept") == {"idle": 2}, "evicted although it was of no use"
    assert caller.waits
    assert not any(instance.reason for instance in instances)
    fitting = world.arrive(world.deploy("fitting", memory=2 * 128))
    await world.clock.advance(6.0)
    assert isinstance(caller.error, NoCapacity)
    await world.clock.advance(1.0)
    assert fitting.lease is not None
    assert world.pool.ledger.states("kept") == {"idle": 1}


async def test_nothing_is_evicted_that_would_not_be_enough(world: World) -> None:
    world.pool.ledger.memory_budget = 2 * 128 * MIB
    a = world.deploy("a")
    await warm(world, a, 2)
    holder = world.arrive(a)
    assert holder.lease is not None
    caller = world.arrive(world.deploy("big", memory=2 * 128, max_instances=1))
    await world.clock.advance(1.0)
    assert world.pool.ledger.states("a") == {"busy": 1, "idle": 1}
    world.dispatcher.release(holder.lease)
    await world.clock.advance(REMOVE + COLD)
    assert caller.lease is not None


async def test_memory_waits_then_503(world: World) -> None:
    world.pool.ledger.memory_budget = 128 * MIB
    busy = world.arrive(world.deploy("busy"))
    await world.clock.advance(1.0)
    assert busy.lease is not None
    came = world.clock.now()
    caller = world.arrive(world.deploy("late", limits=Limits(queue_timeout=2.5)))
    await world.clock.advance(10.0)
    assert isinstance(caller.error, NoCapacity)
    assert "memory budget" in str(caller.error)
    assert caller.ended_at == came + 2.5
    assert world.engine.calls["create"] == 1


async def test_after_a_shortage_of_memory_the_next_call_starts_an_instance_at_once(world: World) -> None:
    world.pool.ledger.memory_budget = 128 * MIB
    busy = world.arrive(world.deploy("busy", keep_alive=0.1))
    await world.clock.advance(1.0)
    function = world.deploy("late", limits=Limits(queue_timeout=1.0))
    for _ in range(3):
        world.arrive(function)
    await world.clock.advance(2.0)
    assert busy.lease is not None
    world.dispatcher.release(busy.lease)
    await world.pass_time(1.0)
    assert not world.pool.ledger.instances
    caller = world.arrive(function)
    await world.clock.advance(COLD)
    assert caller.lease is not None


async def test_one_that_waits_for_memory_is_not_passed_by_those_behind_it(world: World) -> None:
    world.pool.ledger.memory_budget = 2 * 128 * MIB
    a = world.arrive(world.deploy("a"))
    b = world.arrive(world.deploy("b"))
    await world.clock.advance(1.0)
    big = world.arrive(world.deploy("big", memory=256))
    await world.clock.advance(0.1)
    small = world.arrive(world.deploy("small"))
    assert a.lease is not None
    world.dispatcher.release(a.lease)
    await world.clock.advance(1.0)
    assert big.waits
    assert small.waits
    assert b.lease is not None
    world.dispatcher.release(b.lease)
    await world.clock.advance(1.0)
    assert big.lease is not None
    world.dispatcher.release(big.lease)
    await world.clock.advance(1.0)
    assert small.lease is not None


async def test_the_queue_is_bounded(world: World) -> None:
    function = world.deploy(max_instances=1, limits=Limits(queue_size=2))
    callers = [world.arrive(function) for _ in range(4)]
    await world.clock.settle()
    assert [type(caller.error) for caller in callers] == [type(None), type(None), QueueFull, QueueFull]
    await world.clock.advance(1.0)
    assert callers[0].lease is not None
    assert not callers[3].waits


async def test_a_waiter_that_goes_away_frees_its_place_at_once(world: World) -> None:
    function = world.deploy(limits=Limits(queue_size=1))
    gone = world.arrive(function)
    await world.clock.settle()
    assert gone.task is not None
    gone.task.cancel()
    await world.clock.settle()
    assert function.waiting == 0
    assert not function.queue
    next_one = world.arrive(function)
    await world.clock.advance(1.0)
    assert next_one.lease is not None
    assert world.engine.calls["create"] == 1, "the start that nobody waited for any more was not kept"


async def test_who_goes_away_just_as_it_wins_gives_the_slot_to_the_next(world: World) -> None:
    function = world.deploy(max_instances=1)
    [instance] = await warm(world, function)
    function.exec_seconds = 1.0
    holder, winner, third = (world.arrive(function) for _ in range(3))
    await world.clock.settle()
    assert holder.lease is not None
    world.dispatcher.release(holder.lease)
    measured = function.exec_seconds
    assert winner.task is not None
    winner.task.cancel()
    await world.clock.settle()
    assert isinstance(winner.error, asyncio.CancelledError)
    assert third.lease is not None
    assert third.lease.instance is instance
    assert instance.served == 2, "a call that was never made is counted"
    assert function.exec_seconds == measured, "a call that was never made is measured"


async def test_a_single_use_instance_that_nobody_used_is_kept_for_the_next(world: World) -> None:
    function = world.deploy(reuse=False, max_instances=1)
    winner = world.arrive(function)
    await world.clock.settle()
    ready = world.dispatcher.instance_ready

    def cancel_as_it_wins(instance: Instance) -> None:
        ready(instance)
        assert winner.task is not None
        winner.task.cancel()

    world.dispatcher.instance_ready = cancel_as_it_wins  # type: ignore[method-assign]
    await world.clock.advance(COLD)
    assert isinstance(winner.error, asyncio.CancelledError)
    assert world.pool.ledger.states("f") == {"idle": 1}
    caller = world.arrive(function)
    assert caller.lease is not None
    assert caller.lease.instance.served == 0


async def test_each_waiter_is_told_at_its_deadline(world: World) -> None:
    function = world.deploy(max_instances=1, limits=Limits(queue_timeout=2.0))
    holder = world.arrive(function)
    await world.clock.advance(1.0)
    assert holder.lease is not None
    began = world.clock.now()
    callers = []
    for _ in range(5):
        callers.append(world.arrive(function))
        await world.clock.advance(0.5)
    await world.clock.advance(5.0)
    assert [caller.ended_at for caller in callers] == [began + 2.0 + 0.5 * n for n in range(5)]
    assert all("every instance is busy" in str(caller.error) for caller in callers)


async def test_a_shorter_queue_timeout_holds_for_those_who_come_after_others(world: World) -> None:
    function = world.deploy(max_instances=1, limits=Limits(queue_timeout=10.0))
    holder = world.arrive(function)
    await world.clock.advance(1.0)
    assert holder.lease is not None
    patient = world.arrive(function)
    await world.clock.advance(0.5)
    began = world.clock.now()
    world.dispatcher.deploy(function.workload, Limits(queue_timeout=2.0), 1)
    hasty = world.arrive(function)
    await world.clock.advance(10.0)
    assert hasty.ended_at == began + 2.0
    assert patient.ended_at == began + 2.0


async def test_a_function_that_does_not_start_is_said_so_at_once(world: World) -> None:
    function = world.deploy()
    world.launcher.broken.add("f")
    callers = [world.arrive(function) for _ in range(3)]
    await world.clock.advance(1.0)
    assert all(isinstance(caller.error, FunctionBroken) for caller in callers)
    assert [caller.ended_at for caller in callers] == 3 * [pytest.approx(COLD)]
    assert world.engine.calls["create"] == 2
    assert function.last_fault == "No module named 'nowhere'"


async def test_a_fault_of_the_engine_is_a_503(world: World) -> None:
    function = world.deploy()
    world.engine.fail_next("create", EngineError("no space left on device"))
    caller = world.arrive(function)
    await world.clock.settle()
    assert isinstance(caller.error, NoCapacity)
    assert "no space left" in str(caller.error)


async def test_a_failed_start_fails_nobody_whom_others_will_serve(world: World) -> None:
    function = world.deploy(max_instances=2)
    await warm(world, function)
    function.exec_seconds = 10.0
    holder = world.arrive(function)
    world.engine.fail_next("start", EngineError("a fault of the engine"))
    waiter = world.arrive(function)
    await world.clock.advance(0.05)
    assert waiter.waits
    assert holder.lease is not None
    world.dispatcher.release(holder.lease)
    await world.clock.settle()
    assert waiter.lease is not None


async def test_two_starts_of_which_one_fails(world: World) -> None:
    function = world.deploy()
    world.engine.fail_next("start", EngineError("a fault of the engine"))
    callers = [world.arrive(function) for _ in range(2)]
    await world.clock.advance(2.0)
    first, second = callers
    assert first.lease is not None
    assert second.lease is not None


async def test_reuse_false_gives_each_call_an_instance_of_its_own(world: World) -> None:
    function = world.deploy(reuse=False, max_instances=4)
    leases = await world.clock.run(asyncio.gather(*(world.call(function, 0.1) for _ in range(12))))
    assert len({lease.instance.id for lease in leases}) == 12
    await world.clock.advance(1.0)
    assert world.pool.ledger.removals == {"single-use": 12}
    assert not world.pool.ledger.instances


async def test_reuse_false_with_min_instances_has_that_many_unused_ones(world: World) -> None:
    function = world.deploy(reuse=False, min_instances=2, max_instances=4)
    await world.clock.advance(1.0)
    assert world.pool.ledger.states("f") == {"idle": 2}
    callers = [world.arrive(function) for _ in range(2)]
    assert [caller.lease.kind for caller in callers if caller.lease] == ["prewarmed", "prewarmed"]
    await world.clock.advance(1.0)
    assert world.pool.ledger.states("f") == {"busy": 2, "idle": 2}
    for caller in callers:
        assert caller.lease is not None
        world.dispatcher.release(caller.lease)
    await world.clock.advance(1.0)
    assert world.pool.ledger.states("f") == {"idle": 2}


async def test_reuse_false_takes_prewarmed_ones(world: World) -> None:
    function = world.deploy(reuse=False, generic=True)
    world.prewarm(2)
    await world.clock.advance(1.0)
    kinds = [(await world.clock.run(world.call(function, 0.01))).kind for _ in range(2)]
    assert kinds == ["prewarmed", "prewarmed"]


async def test_refilling_yields_to_calls_and_goes_one_at_a_time(world: World) -> None:
    world.prewarm(3)
    await world.clock.advance(UPKEEP_DELAY_SECONDS)
    most = 0
    for _ in range(60):
        most = max(most, world.pool.ledger.states(None).get("starting", 0))
        await world.clock.advance(0.02)
    assert most == 1
    assert world.pool.ledger.states(None) == {"prewarmed": 3}
    function = world.deploy(generic=True, max_instances=8)
    for _ in range(5):
        world.arrive(function)
    for _ in range(50):
        if function.waiting:
            assert "starting" not in world.pool.ledger.states(None), "refilled while somebody waits"
        await world.clock.advance(0.02)
    assert function.waiting == 0
    await world.clock.advance(2.0)
    assert world.pool.ledger.states(None) == {"prewarmed": 3}


@pytest.mark.parametrize("generic", [True, False])
async def test_an_import_without_end_holds_no_start_of_others_up(world: World, generic: bool) -> None:
    """Its callers wait as long as they said; others start a second later at the most, and the pool is refilled."""
    world.prewarm(1)
    await world.clock.advance(1.0)
    world.launcher.endless.add("endless")
    endless = world.deploy("endless", generic=generic, limits=Limits(queue_timeout=10.0))
    stuck = [world.arrive(endless) for _ in range(6)]
    await world.clock.advance(SLOW_START_SECONDS + COLD + 0.1)
    assert sum(world.pool.ledger.states("endless").values()) == world.cores
    other = world.deploy("other")
    callers = [world.arrive(other) for _ in range(2)]
    await world.clock.advance(COLD + 0.1)
    assert all(caller.lease for caller in callers)
    await world.clock.advance(1.0)
    assert world.pool.ledger.states(None) == {"prewarmed": 1}
    await world.clock.advance(10.0)
    assert all("still being imported" in str(caller.error) for caller in stuck)
    assert sum(world.pool.ledger.states("endless").values()) == world.cores


async def test_a_queue_before_max_instances_does_not_keep_the_prewarm_pool_empty(world: World) -> None:
    function = world.deploy(generic=True, max_instances=1, limits=Limits(queue_timeout=100.0))
    world.prewarm(1)
    await world.clock.advance(1.0)
    [first, second] = [world.arrive(function) for _ in range(2)]
    await world.clock.advance(2.0)
    assert first.lease is not None and second.lease is None
    assert world.pool.ledger.states(None) == {"prewarmed": 1}


async def test_nothing_is_evicted_for_a_prewarmed_instance(world: World) -> None:
    world.pool.ledger.memory_budget = 2 * 128 * MIB
    await warm(world, world.deploy())
    world.prewarm(2)
    await world.clock.advance(5.0)
    assert world.pool.ledger.states("f") == {"idle": 1}
    assert world.pool.ledger.states(None) == {"prewarmed": 1}


async def test_fewer_prewarmed_ones_are_wanted_while_one_is_starting(world: World) -> None:
    world.prewarm(2)
    await world.clock.advance(UPKEEP_DELAY_SECONDS + COLD + UPKEEP_DELAY_SECONDS + 0.05)
    assert world.pool.ledger.states(None) == {"prewarmed": 1, "starting": 1}
    world.prewarm(1)
    await world.clock.advance(1.0)
    assert world.pool.ledger.states(None) == {"prewarmed": 1}
    assert world.pool.ledger.removals == {"surplus": 1}
    world.prewarm(0)
    await world.clock.advance(1.0)
    assert not world.pool.ledger.instances


async def test_a_prewarmed_one_that_does_not_start_is_tried_again_later_and_later(world: World) -> None:
    for _ in range(3):
        world.engine.fail_next("create", EngineError("a fault of the engine"))
    world.prewarm(1)
    for moment, calls in ((0.2, 1), (0.4, 2), (0.65, 2), (0.95, 3), (1.45, 3), (2.0, 4)):
        await world.clock.advance(moment - world.clock.now())
        assert world.engine.calls["create"] == calls
    await world.clock.advance(1.0)
    assert world.pool.ledger.states(None) == {"prewarmed": 1}


async def test_min_instances_come_up_one_by_one_and_come_back(world: World) -> None:
    world.deploy(min_instances=2)
    assert not world.dispatcher.settled()
    await world.clock.advance(1.0)
    assert world.dispatcher.settled()
    assert world.pool.ledger.states("f") == {"idle": 2}
    world.kill_instance(next(iter(world.pool.ledger.of("f"))))
    await world.pass_time(2.0)
    assert world.pool.ledger.removals == {"dead": 1}
    assert world.pool.ledger.states("f") == {"idle": 2}


async def test_min_instances_that_do_not_start_settle_as_failed(world: World) -> None:
    world.launcher.broken.add("f")
    world.deploy(min_instances=1)
    await world.clock.advance(1.0)
    assert world.dispatcher.settled()
    world.launcher.broken.clear()
    await world.clock.advance(5.0)
    assert world.pool.ledger.states("f") == {"idle": 1}


async def test_a_new_version_drains_the_old_one(world: World) -> None:
    function = world.deploy(version="1", max_instances=2)
    running, idle = (world.arrive(function) for _ in range(2))
    await world.clock.advance(1.0)
    assert running.lease is not None
    assert idle.lease is not None
    world.dispatcher.release(idle.lease)
    world.deploy(version="2", max_instances=2)
    assert running.lease.instance.state is State.DRAINING
    assert idle.lease.instance.state is State.STOPPING
    caller = world.arrive(function)
    await world.clock.advance(REMOVE + COLD)
    assert caller.lease is not None
    assert caller.lease.workload.version == "2"
    world.dispatcher.release(running.lease)
    await world.clock.advance(REMOVE)
    assert world.pool.ledger.removals == {"replaced": 2}
    assert world.pool.ledger.states("f") == {"busy": 1}


async def test_a_start_of_an_old_version_is_given_up(world: World) -> None:
    function = world.deploy(version="1")
    caller = world.arrive(function)
    await world.clock.advance(0.05)
    world.deploy(version="2")
    await world.clock.advance(1.0)
    assert caller.lease is not None
    assert caller.lease.workload.version == "2"
    assert world.pool.ledger.removals == {"replaced": 1}


async def test_the_same_version_again_keeps_its_instances_and_its_measurements(world: World) -> None:
    function = world.deploy(version="1")
    await warm(world, function)
    function.exec_seconds = None
    world.deploy(version="1")
    assert world.pool.ledger.states("f") == {"idle": 1}
    await world.clock.run(world.call(function, 0.5))
    assert function.exec_seconds == pytest.approx(0.5)


async def test_what_waits_for_a_withdrawn_function_is_told(world: World) -> None:
    function = world.deploy(max_instances=1)
    running, waiting = (world.arrive(function) for _ in range(2))
    await world.clock.advance(1.0)
    world.dispatcher.withdraw("f")
    await world.clock.settle()
    assert isinstance(waiting.error, Gone)
    assert running.lease is not None
    assert running.lease.instance.state is State.DRAINING
    world.dispatcher.release(running.lease)
    await world.clock.advance(1.0)
    assert not world.pool.ledger.instances


async def test_a_call_that_found_the_function_just_before_it_was_withdrawn(world: World) -> None:
    function = world.deploy()
    world.dispatcher.withdraw("f")
    caller = world.arrive(function)
    await world.clock.advance(5.0)
    assert isinstance(caller.error, Gone)
    assert world.engine.calls["create"] == 0


async def test_a_worn_out_instance_is_recycled(world: World) -> None:
    function = world.deploy(max_invocations=3)
    leases = [await world.clock.run(world.call(function, 0.1)) for _ in range(7)]
    assert [lease.kind for lease in leases].count("cold") == 3
    assert world.pool.ledger.removals["max-invocations"] == 2


async def test_after_a_timeout_nobody_gets_the_instance(world: World) -> None:
    function = world.deploy(max_instances=1)
    late, waiter = (world.arrive(function) for _ in range(2))
    await world.clock.advance(1.0)
    assert late.lease is not None
    world.dispatcher.release(late.lease, Reason.TIMEOUT)
    await world.clock.advance(REMOVE + COLD)
    assert waiter.lease is not None
    assert waiter.lease.instance is not late.lease.instance
    assert world.pool.ledger.removals == {"timeout": 1}


async def test_a_slot_that_comes_back_serves_who_waits(world: World) -> None:
    function = world.deploy(max_instances=1)
    [instance] = await warm(world, function)
    link = instance.link
    assert isinstance(link, FakeLink)
    link.lose()
    caller = world.arrive(function)
    await world.clock.advance(0.1)
    assert caller.waits
    link.dial_again(1)
    await world.clock.settle()
    assert caller.lease is not None
    assert caller.lease.instance is instance


async def test_no_start_while_draining(world: World) -> None:
    world.dispatcher.draining = True
    world.deploy(min_instances=1)
    world.prewarm(1)
    await world.clock.advance(5.0)
    assert world.engine.calls["create"] == 0


def test_repr_shows_the_counts() -> None:
    async def look() -> str:
        world = World()
        function = world.deploy()
        world.arrive(function)
        await world.clock.settle()
        text = repr(world.dispatcher)
        await world.clock.advance(1.0)
        await world.close()
        return text

    assert asyncio.run(look()) == (
        "<Dispatcher 1 functions, 1 hungry, <Pool <Ledger 1 starting; 128 of 10000 MiB declared>>>"
    )


async def test_starts_that_fail_while_others_serve_are_not_tried_again_and_again(world: World) -> None:
    function = world.deploy(max_instances=4)
    await warm(world, function)
    function.exec_seconds = 10.0
    holder, waiter = world.arrive(function), world.arrive(function)
    world.launcher.broken.add("f")
    await world.clock.advance(3.5)
    assert holder.lease is not None
    assert waiter.waits
    # The first one was good; those that fail come after 0, 1 and 2 seconds more, and the time that they take.
    assert 3 <= world.engine.calls["create"] <= 4
    world.launcher.broken.clear()
    await world.clock.advance(5.0)
    assert waiter.lease is not None


async def test_a_call_to_a_function_whose_starts_fail_tries_at_once(world: World) -> None:
    function = world.deploy()
    world.launcher.broken.add("f")
    for _ in range(5):
        with pytest.raises(FunctionBroken):
            await world.clock.run(world.call(function, 0.1))
    world.launcher.broken.clear()
    caller = world.arrive(function)
    await world.clock.advance(COLD)
    assert caller.lease is not None


async def test_who_waits_for_memory_behind_one_that_gives_up_is_next(world: World) -> None:
    world.pool.ledger.memory_budget = 2 * 128 * MIB
    busy = world.arrive(world.deploy("busy"))
    await world.clock.advance(1.0)
    assert busy.lease is not None
    big = world.arrive(world.deploy("big", memory=256))
    await world.clock.advance(0.1)
    small = world.arrive(world.deploy("small"))
    await world.clock.advance(1.0)
    assert small.waits
    assert big.task is not None
    big.task.cancel()
    await world.clock.advance(COLD)
    assert small.lease is not None


async def test_who_waits_for_memory_behind_one_that_is_served_is_next(world: World) -> None:
    world.pool.ledger.memory_budget = 3 * 128 * MIB
    big = world.deploy("big", memory=256)
    holder = world.arrive(big)
    await world.clock.advance(1.0)
    big.exec_seconds = 10.0
    first = world.arrive(big)
    await world.clock.advance(0.1)
    small = world.arrive(world.deploy("small"))
    await world.clock.advance(0.1)
    second = world.arrive(big)
    await world.clock.advance(0.1)
    assert small.waits
    assert holder.lease is not None
    world.dispatcher.release(holder.lease)
    await world.clock.advance(COLD)
    assert first.lease is not None
    assert second.waits
    assert small.lease is not None


async def test_closing_refuses_who_waits_and_leaves_nothing(world: World) -> None:
    function = world.deploy(max_instances=2)
    running, waiting, other = (world.arrive(function) for _ in range(3))
    await world.clock.advance(1.0)
    assert running.lease is not None
    assert waiting.lease is not None
    world.dispatcher.close()
    await world.clock.settle()
    assert isinstance(other.error, NoCapacity)
    closing = asyncio.ensure_future(world.pool.close())
    await world.clock.settle()
    world.dispatcher.release(running.lease, Reason.DEAD)
    await world.clock.advance(1.0)
    world.dispatcher.release(waiting.lease)  # long after its instance is gone
    await closing
    await world.clock.advance(60.0)
    assert world.engine.alive() == 0
    assert not world.pool.ledger.instances


async def test_who_queues_beside_a_free_slot_gets_it(world: World) -> None:
    function = world.deploy(max_instances=1)
    [instance] = await warm(world, function)
    assert instance.state is State.IDLE
    given: list[Lease | None] = []
    waiter = world.dispatcher.enqueue(
        function, "retried", world.clock.now(), lambda lease, fault: given.append(lease)
    )
    [lease] = given
    assert lease is not None, "a retried call waits although an instance is idle"
    assert waiter.left
    assert function.waiting == 0
    world.dispatcher.release(lease)
