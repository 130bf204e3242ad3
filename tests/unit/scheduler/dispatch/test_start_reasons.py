"""The reason of a start, as a sentence: true of the snapshot that it is made from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from pool.lease import StartKind
from pool.ledger import LastStop
from pool.states import Reason
from scheduler.dispatch.decisions import Demand
from scheduler.dispatch.function import Revision
from scheduler.dispatch.start_reasons import FIRST, NEW, NOTHING_READY, Shortage, reason_to_start, seconds
from tests.support.virtual_pool import MIB, World

DEMAND = Demand(
    waiters=1,
    live_slots=0,
    pending=0,
    room=16,
    concurrency=1,
    single_use=False,
    exec_seconds=None,
    start_seconds=0.3,
    oldest_wait=0.0,
    cores=2,
)
NONE_LEFT = Shortage(demand=DEMAND, version="v1", trial=False, fresh_by_default=False, last=None, now=1000.0)


def stopped(reason: str, taker: str = "", version: str = "v1") -> Shortage:
    return replace(NONE_LEFT, last=LastStop(version, reason, 960.0, taker))


@pytest.mark.parametrize(
    ("shortage", "told"),
    [
        (NONE_LEFT, FIRST),
        (stopped(Reason.REPLACED, version="v0"), NEW),
        (
            stopped(Reason.IDLE),
            NOTHING_READY + "the last one was removed 40 s ago, unused for its keep_alive",
        ),
        (
            stopped(Reason.EVICTED, "resize"),
            NOTHING_READY + "the last one was evicted 40 s ago to make room for resize",
        ),
        (stopped(Reason.EVICTED), NOTHING_READY + "the last one was removed 40 s ago for its memory"),
        (stopped(Reason.SHUTDOWN), FIRST),
        (
            replace(NONE_LEFT, demand=replace(DEMAND, single_use=True)),
            "each call of this function gets a new instance, as it says `reuse: false`",
        ),
        (
            replace(NONE_LEFT, demand=replace(DEMAND, single_use=True), fresh_by_default=True),
            "each call of this function gets a new instance, as it does not say `reuse: true`",
        ),
        (
            replace(
                NONE_LEFT, demand=replace(DEMAND, live_slots=4, concurrency=2, waiters=8, exec_seconds=1)
            ),
            "all 2 instances were busy: waiting would have taken 2.0 s, and a start 0.3 s",
        ),
        (
            replace(NONE_LEFT, demand=replace(DEMAND, live_slots=1)),
            "its instance was busy, and nobody knew yet for how long",
        ),
        (
            replace(NONE_LEFT, demand=replace(DEMAND, pending=1, waiters=2)),
            "1 instance was being started already, for which too many calls waited",
        ),
        (replace(NONE_LEFT, trial=True), "the new revision was tried out before it came into service"),
    ],
)
def test_the_sentence(shortage: Shortage, told: str) -> None:
    reason = reason_to_start(shortage)
    assert reason.told(reason.other) == told


@pytest.mark.parametrize("why", list(Reason))
def test_every_removal_gives_a_whole_sentence(why: Reason) -> None:
    reason = reason_to_start(stopped(why, "other"))
    assert reason.text.startswith(NOTHING_READY)
    assert "{" not in reason.told("other")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02, "20 ms"), (1.52, "1.5 s"), (40, "40 s"), (119, "119 s"), (200, "3 min"), (7200, "2 h")],
)
def test_seconds_in_words(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(budget=300 * MIB)
    yield made
    made.check()
    await made.close()


async def why(world: World, revision: Revision, took: float = 0.01) -> str | None:
    """Make a call; return why its instance was started, or None for a warm one."""
    lease = await world.clock.run(world.call(revision, took))
    kind = lease.kind
    if not isinstance(kind, StartKind):
        assert kind == "warm"
        return None
    assert kind.reason is not None
    return kind.reason.told(kind.reason.other)


async def test_the_first_call_is_the_first_and_the_next_is_warm(world: World) -> None:
    f = world.deploy()
    assert await why(world, f) == FIRST
    assert await why(world, f) is None


async def test_an_instance_that_was_unused_for_too_long(world: World) -> None:
    f = world.deploy(keep_alive=60.0)
    await why(world, f)
    await world.pass_time(100.0)
    assert (
        await why(world, f) == f"{NOTHING_READY}the last one was removed 40 s ago, unused for its keep_alive"
    )


async def test_an_instance_that_was_evicted_for_another_function(world: World) -> None:
    f, resize = world.deploy(memory=200), world.deploy("resize", memory=200)
    await why(world, f)
    await world.pass_time(60.0)
    assert await why(world, resize) == FIRST
    await world.pass_time(40.0)
    told = await why(world, f)
    assert told == f"{NOTHING_READY}the last one was evicted 40 s ago to make room for resize"


async def test_an_instance_that_died(world: World) -> None:
    f = world.deploy()
    await why(world, f)
    (instance,) = world.pool.ledger.of("f")
    world.kill_instance(instance)
    await world.pass_time(10.0)
    told = await why(world, f)
    assert told is not None and told.startswith(f"{NOTHING_READY}the last one ended by itself or was killed ")


async def test_a_new_revision(world: World) -> None:
    await why(world, world.deploy())
    assert await why(world, world.deploy(version="2")) == NEW


async def test_an_instance_beside_busy_ones(world: World) -> None:
    f = world.deploy()
    await why(world, f, took=2.0)
    first, second = world.arrive(f), world.arrive(f)
    await world.clock.advance(1.0)
    assert first.lease is not None and first.lease.kind == "warm"
    assert second.lease is not None and isinstance(second.lease.kind, StartKind)
    assert second.lease.kind.reason is not None
    assert second.lease.kind.reason.text.startswith(
        "its instance was busy: waiting would have taken 2.0 s, and"
    )
    for caller in (first, second):
        assert caller.lease is not None
        world.dispatcher.release(caller.lease)


async def test_a_function_whose_instances_serve_one_call(world: World) -> None:
    f = world.deploy(reuse=False)
    for _ in range(2):
        assert (
            await why(world, f) == "each call of this function gets a new instance, as it says `reuse: false`"
        )


async def test_an_instance_that_was_started_ahead(world: World) -> None:
    f = world.deploy(min_instances=1)
    await world.pass_time(5.0)
    assert await why(world, f) == "it was started ahead of calls, as min_instances is 1"


async def test_a_prewarmed_instance_has_the_reason_of_the_call_that_took_it(world: World) -> None:
    f = world.deploy(generic=True, memory=128)
    world.prewarm(1)
    await world.pass_time(5.0)
    assert await why(world, f) == FIRST


async def test_nothing_is_kept_of_the_stops_of_a_jobs_own_function(world: World) -> None:
    f = world.deploy("job:1", private=True, keep_alive=1.0)
    await why(world, f)
    await world.pass_time(10.0)
    assert "job:1" not in world.pool.ledger.last_stops
