"""Memory that is given up for others, in the dispatcher and on virtual time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest

from pool.states import Reason
from scheduler.dispatch.errors import NoCapacity
from scheduler.dispatch.fair_share import (
    CLAIM_AFTER_SECONDS,
    STAY_SECONDS,
    TURN_AFTER_SECONDS,
    TURN_SECONDS,
)
from scheduler.dispatch.function import Limits
from scheduler.dispatch.reclaimer import MAX_WAITING_FUNCTIONS
from tests.support.flood import Flood, Floods
from tests.support.virtual_pool import COLD, MIB, REMOVE, World

SLOT = 128 * MIB
MOMENT = 0.005


@pytest.fixture
async def floods() -> AsyncIterator[Floods]:
    made = Floods(World(budget=8 * SLOT))
    yield made
    await made.stop()
    made.world.check()
    await made.world.close()


@pytest.fixture
def world(floods: Floods) -> World:
    return floods.world


async def full(floods: Floods, **keys: object) -> Flood:
    """A flood that has all of the budget."""
    flood = floods.of("flood", **keys)  # type: ignore[arg-type]
    await floods.world.clock.advance(20.0)
    assert flood.held == floods.world.pool.ledger.memory_budget
    return flood


def cold(floods: Floods, name: str = "cold", pause: float = 0.5) -> Flood:
    """A function that has no instance yet, and one client."""
    return floods.of(name, seconds=0.01, clients=1, pause=pause)


async def test_cold_functions_are_served_while_another_floods_the_budget(
    floods: Floods, world: World
) -> None:
    flood = await full(floods)
    others = [cold(floods, f"cold{n}") for n in range(4)]
    await world.clock.advance(20.0)
    assert [other.refused for other in others] == [[]] * 4
    bound = CLAIM_AFTER_SECONDS + 0.2 + REMOVE + 3 * COLD  # four starts on two cores
    assert max(max(other.waits) for other in others) < bound
    assert flood.held == 4 * SLOT, "the others want 128 MiB each"
    assert world.pool.ledger.removals == {"fair-share": 4}, "nobody is sent to and fro"


async def test_the_flood_is_back_when_the_others_have_gone(floods: Floods, world: World) -> None:
    flood = await full(floods)
    other = cold(floods)
    await world.clock.advance(5.0)
    assert (other.held, flood.held) == (1 * SLOT, 7 * SLOT)
    await other.stop()
    await world.clock.advance(STAY_SECONDS - 0.6)
    assert other.held == SLOT, "evicted although it was just used"
    await world.clock.advance(0.6 + CLAIM_AFTER_SECONDS + REMOVE + COLD)
    assert (other.held, flood.held) == (0, 8 * SLOT)


async def test_calls_are_not_cut_short_but_their_end_is_used(floods: Floods, world: World) -> None:
    flood = await full(floods, seconds=3.0)
    other = cold(floods)
    await world.clock.advance(10.0)
    assert other.waits[0] < CLAIM_AFTER_SECONDS + 3.0 + REMOVE + COLD + MOMENT
    assert world.pool.ledger.removals == {"fair-share": 1}
    assert not flood.refused


async def test_what_serves_many_calls_at_once_is_drained_though_it_is_never_idle(
    floods: Floods, world: World
) -> None:
    flood = await full(floods, seconds=0.7, clients=900, concurrency=50)
    other = cold(floods)
    await world.clock.advance(5.0)
    assert other.waits[0] < CLAIM_AFTER_SECONDS + 0.7 + REMOVE + COLD + MOMENT
    assert world.pool.ledger.removals == {"fair-share": 1}
    assert flood.held == 7 * SLOT


async def test_with_no_queue_too(floods: Floods, world: World) -> None:
    calls = itertools.cycle([0.5, 0.7, 0.9])
    flood = floods.of("flood", seconds=lambda: next(calls), clients=40, concurrency=20)
    await world.clock.advance(5.0)
    assert flood.function.waiting == 0
    assert world.pool.ledger.states("flood") == {"busy": 2}
    world.pool.ledger.memory_budget = 2 * SLOT
    caller = world.arrive(world.deploy("cold"))
    await world.clock.advance(CLAIM_AFTER_SECONDS + MOMENT)
    assert world.pool.ledger.states("flood") == {"busy": 1, "draining": 1}
    await world.clock.advance(0.9 + REMOVE + COLD)
    assert caller.lease is not None
    world.dispatcher.release(caller.lease)


async def test_a_flood_of_single_use_lets_others_in(floods: Floods, world: World) -> None:
    flood = await full(floods, seconds=3.0, reuse=False)
    other = cold(floods)
    await world.clock.advance(10.0)
    assert max(other.waits) < 3.0 + REMOVE + COLD + COLD
    assert not other.refused
    assert set(world.pool.ledger.removals) == {"single-use"}
    assert flood.held <= 7 * SLOT


async def test_what_is_starting_is_given_up_first(floods: Floods, world: World) -> None:
    world.pool.ledger.memory_budget = 2 * SLOT
    world.launcher.endless.add("flood")
    flood = floods.of("flood")
    await world.clock.advance(5.0)
    assert world.pool.ledger.states("flood") == {"starting": 2}
    other = cold(floods)
    await world.clock.advance(5.0)
    assert other.waits[0] < CLAIM_AFTER_SECONDS + REMOVE + COLD + MOMENT
    assert flood.held == SLOT


async def test_min_instances_are_not_given_up(floods: Floods, world: World) -> None:
    flood = await full(floods, min_instances=6)
    others = [cold(floods, f"cold{n}") for n in range(4)]
    await world.clock.advance(20.0)
    assert flood.held == 6 * SLOT
    assert world.pool.ledger.removals["fair-share"] == 2
    assert sum(len(other.waits) for other in others) > 10, "two places, and four who take turns"


async def test_two_floods_share_and_then_nothing_moves(floods: Floods, world: World) -> None:
    first = await full(floods)
    second = floods.of("second")
    await world.clock.advance(10.0)
    assert first.held == second.held == 4 * SLOT
    await world.clock.advance(30.0)
    assert world.pool.ledger.removals == {"fair-share": 4}


async def test_functions_that_do_not_all_fit_take_turns(floods: Floods, world: World) -> None:
    world.pool.ledger.memory_budget = 2 * SLOT
    three = [floods.of(f"f{n}", clients=20) for n in range(3)]
    await world.clock.advance(120.0)
    served = [len(flood.waits) for flood in three]
    assert not any(flood.refused for flood in three)
    assert min(served) > 0.7 * max(served), served
    assert world.pool.ledger.removals["fair-share"] <= 2 * 120 / TURN_SECONDS


async def test_one_that_needs_more_than_its_share_takes_turns_with_a_flood(
    floods: Floods, world: World
) -> None:
    flood = await full(floods)
    big = floods.of("big", memory=6 * 128, clients=3, max_instances=1)
    before = len(flood.waits)
    await world.clock.advance(60.0)
    assert not big.refused
    assert max(big.waits) < TURN_AFTER_SECONDS + 2 * TURN_SECONDS
    assert len(big.waits) > 60 and len(flood.waits) - before > 60 / 0.2


async def test_a_flood_that_wants_many_starts_delays_a_cold_function_by_one_of_them(
    floods: Floods, world: World
) -> None:
    world.pool.ledger.memory_budget = 64 * SLOT
    flood = floods.of("flood", seconds=100.0, clients=32, max_instances=32, reuse=False)
    await world.clock.advance(0.01)
    other = cold(floods)
    await world.clock.advance(2 * COLD)
    assert other.waits, "it waits for more than those that had begun"
    assert world.pool.ledger.count("flood") < 8
    for lease in [i for i in world.pool.ledger.of("flood") if i.in_use]:
        assert lease.in_use == 1
    assert not flood.refused


async def test_a_function_that_does_not_start_makes_others_give_up_ever_less(
    floods: Floods, world: World
) -> None:
    await full(floods)
    world.launcher.broken.add("broken")
    broken = world.deploy("broken")
    for _ in range(30):
        world.arrive(broken)
        await world.clock.advance(1.0)
    assert 1 <= world.pool.ledger.removals["fair-share"] <= 5, "it may try after 1, 2, 4, 8, 16 s"


async def test_who_gives_up_waiting_makes_nobody_give_anything_up(floods: Floods, world: World) -> None:
    await full(floods, seconds=3.0)
    caller = world.arrive(world.deploy("cold", limits=Limits(queue_timeout=0.4)))
    await world.clock.advance(0.4 + MOMENT)
    assert isinstance(caller.error, NoCapacity)
    await world.clock.advance(10.0)
    assert not world.pool.ledger.removals


async def test_nothing_is_given_up_while_the_engine_is_away(floods: Floods, world: World) -> None:
    flood = await full(floods)
    world.engine.stop()
    world.pool.remove(next(iter(world.pool.ledger.of("flood"))), Reason.REQUESTED)
    await world.clock.advance(1.0)
    assert world.guard.down() is not None
    for _ in range(5):
        world.arrive(world.deploy("cold", limits=Limits(queue_timeout=3.0)))
        await world.clock.advance(0.5)
    assert flood.held == 7 * SLOT
    world.engine.resume()
    await world.clock.advance(3.0)


async def test_a_look_is_bounded_however_many_functions_wait(floods: Floods, world: World) -> None:
    await full(floods)
    for n in range(10 * MAX_WAITING_FUNCTIONS):
        world.arrive(world.deploy(f"cold{n}", limits=Limits(queue_timeout=1.0)))
    await world.clock.advance(0.1)
    parties = world.dispatcher.memory_snapshot().parties
    assert len(parties) == MAX_WAITING_FUNCTIONS, "the flood, and those that have waited longest"
    await world.clock.advance(1.5)
