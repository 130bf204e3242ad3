"""The reaper removes what is dead, what has lived long enough, and nothing else. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from pool.engine.base import ContainerSpec, EngineDown, EngineError
from pool.engine.labels import GATEWAY_LABEL, INSTANCE_LABEL
from pool.instance import Instance
from pool.reaper import SILENCE, TICK
from pool.states import Reason, State
from scheduler.dispatch.function import Revision
from tests.support.virtual_pool import GATEWAY, IMAGE, REMOVE, FakeLink, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def idle(world: World, function: Revision, count: int = 1) -> list[Instance]:
    callers = [world.arrive(function) for _ in range(count)]
    await world.clock.advance(1.0)
    for caller in callers:
        assert caller.lease is not None
        world.dispatcher.release(caller.lease)
    return [caller.lease.instance for caller in callers if caller.lease]


async def test_idle_past_keep_alive(world: World) -> None:
    [instance] = await idle(world, world.deploy(keep_alive=5.0))
    await world.pass_time(4.5)
    assert instance.state is State.IDLE
    await world.pass_time(1.0)
    assert world.pool.ledger.removals == {"idle": 1}


async def test_a_used_instance_does_not_expire(world: World) -> None:
    function = world.deploy(keep_alive=2.0)
    [instance] = await idle(world, function)
    for _ in range(5):
        await world.pass_time(1.5)
        caller = world.arrive(function)
        assert caller.lease is not None
        await world.pass_time(3.0)
        world.dispatcher.release(caller.lease)
    assert instance.state is State.IDLE


async def test_min_instances_stay_and_those_beyond_go(world: World) -> None:
    function = world.deploy(keep_alive=1.0, min_instances=1)
    await idle(world, function, 3)
    await world.pass_time(20.0)
    assert world.pool.ledger.states("f") == {"idle": 1}
    assert world.pool.ledger.removals == {"idle": 2}


async def test_an_old_instance_is_recycled_after_its_calls(world: World) -> None:
    function = world.deploy(max_age=3.0)
    caller = world.arrive(function)
    await world.pass_time(4.0)
    assert caller.lease is not None
    assert caller.lease.instance.state is State.DRAINING
    world.dispatcher.release(caller.lease)
    await world.pass_time(1.0)
    assert world.pool.ledger.removals == {"max-age": 1}


async def test_prewarmed_ones_stay(world: World) -> None:
    world.prewarm(2)
    await world.pass_time(1000.0)
    assert world.pool.ledger.states(None) == {"prewarmed": 2}
    assert not world.pool.ledger.removals


@pytest.mark.parametrize("generic", [False, True])
async def test_silence_is_death_but_a_blink_is_not(world: World, generic: bool) -> None:
    if generic:
        world.prewarm(1)
        await world.clock.advance(1.0)
        [instance] = world.pool.ledger.prewarmed(IMAGE)
    else:
        [instance] = await idle(world, world.deploy())
    link = instance.link
    assert isinstance(link, FakeLink)
    for _ in range(4):  # each shorter than the silence that counts, together longer
        link.lose()
        world.reaper.reap()
        await world.clock.advance(SILENCE * 0.9)
        world.reaper.reap()
        link.dial_again(1)
        world.reaper.reap()
    assert not instance.reason
    link.lose()
    world.reaper.reap()
    await world.clock.advance(SILENCE + 0.001)
    world.reaper.reap()
    assert instance.reason == "dead"


async def test_who_was_cut_in_mid_call_may_be_silent_for_longer(world: World) -> None:
    [instance] = await idle(world, world.deploy())
    link = instance.link
    assert isinstance(link, FakeLink)
    instance.silent_until = world.clock.now() + 5.0
    link.lose()
    await world.pass_time(4.5)
    assert instance.state is State.IDLE
    await world.pass_time(0.5 + SILENCE + 2 * TICK)
    assert world.pool.ledger.removals == {"dead": 1}


async def listening(world: World) -> None:
    """Let the reaper run by itself."""
    world.reaper.start(world.supervisor)
    await world.clock.settle()


async def test_the_engines_events_tell_of_a_death_at_once(world: World) -> None:
    await listening(world)
    [instance] = await idle(world, world.deploy())
    assert instance.container is not None
    world.engine.kill(instance.container)
    await world.clock.settle()
    assert instance.reason == "dead"
    await world.reaper.close()


async def test_a_death_while_the_engine_was_away_is_found_when_it_is_back(world: World) -> None:
    await listening(world)
    [instance, other] = await idle(world, world.deploy(), 2)
    world.engine.stop()
    await world.clock.advance(1.0)
    assert instance.container is not None
    world.engine.kill(instance.container)
    await world.clock.advance(1.0)
    assert instance.state is State.IDLE
    world.engine.resume()
    await world.clock.advance(5.1)
    assert instance.reason == "dead"
    assert other.state is State.IDLE
    assert other.container is not None
    world.engine.kill(other.container)
    await world.clock.settle()
    assert other.reason == "dead"
    await world.reaper.close()


async def test_a_death_between_the_look_and_the_listening_is_found(world: World) -> None:
    [instance] = await idle(world, world.deploy())
    containers = world.engine.containers

    async def look_then_die(labels: dict[str, str]) -> object:
        found = await containers(labels)
        if instance.container is not None and not instance.reason:
            world.engine.kill(instance.container)
        return found

    world.engine.containers = look_then_die  # type: ignore[method-assign, assignment]
    await listening(world)
    await world.clock.advance(0.1)
    assert instance.reason == "dead"
    await world.reaper.close()


async def test_the_removal_of_an_instance_is_not_a_death(world: World) -> None:
    await listening(world)
    [instance] = await idle(world, world.deploy())
    world.pool.remove(instance, Reason.REQUESTED)
    await world.clock.advance(REMOVE)
    assert world.pool.ledger.removals == {"requested": 1}
    await world.reaper.close()


async def test_it_looks_by_itself(world: World) -> None:
    await idle(world, world.deploy(keep_alive=1.0))
    await listening(world)
    await world.clock.advance(1.0 + TICK + REMOVE)
    assert world.pool.ledger.removals == {"idle": 1}
    await world.reaper.close()


async def test_a_container_that_is_no_instances_is_removed(world: World) -> None:
    """An order to create it was carried out after whoever gave it was killed."""
    [instance] = await idle(world, world.deploy())
    labels = {GATEWAY_LABEL: "test", INSTANCE_LABEL: "late"}
    await world.clock.run(world.engine.create(ContainerSpec(name="hearth-late", image=IMAGE, labels=labels)))
    other = {GATEWAY_LABEL: "other", INSTANCE_LABEL: "theirs"}
    await world.clock.run(world.engine.create(ContainerSpec(name="theirs", image=IMAGE, labels=other)))
    world.reaper.start(world.supervisor)
    await world.clock.advance(1.0)
    await world.reaper.close()
    assert world.pool.ledger.removals == {Reason.ORPHANED: 1}
    assert instance.state is State.IDLE
    assert {c.name for c in await world.engine.containers({})} == {f"hearth-{instance.id}", "theirs"}
    await world.clock.run(world.engine.remove("theirs"))


async def test_what_becomes_ready_while_the_engine_lists_is_not_dead(world: World) -> None:
    listed = world.engine.containers

    async def slow_list(labels: dict[str, str]) -> list[object]:
        found = list(await listed(labels))  # before the instance is there
        await world.clock.sleep(1.0)
        return found

    world.engine.containers = slow_list  # type: ignore[method-assign, assignment]
    looking = asyncio.ensure_future(world.reaper.catch_up())
    await world.clock.settle()
    [instance] = await idle(world, world.deploy())
    await world.clock.advance(2.0)
    await looking
    assert instance.state is State.IDLE
    assert world.pool.ledger.removals == {}


STRAY = ContainerSpec(name="stray", image=IMAGE, labels={GATEWAY_LABEL: GATEWAY, INSTANCE_LABEL: "cafe"})


async def test_a_container_that_comes_after_its_instance_was_given_up_is_removed(world: World) -> None:
    await listening(world)
    [instance] = await idle(world, world.deploy())
    for fault in (EngineError("busy"), EngineDown("away", 1.0), RuntimeError("nobody thought of this")):
        world.engine.fail_next("remove", fault)  # type: ignore[arg-type]
    await world.clock.run(world.engine.create(STRAY))
    await world.clock.advance(5.0)
    assert world.engine.alive(INSTANCE_LABEL, "cafe") == 0
    assert world.pool.ledger.removals == {"orphaned": 1}
    assert instance.state is State.IDLE
    await world.reaper.close()


async def test_a_container_that_came_while_nobody_listened_is_removed(world: World) -> None:
    [instance] = await idle(world, world.deploy())
    await world.clock.run(world.engine.create(STRAY))
    await world.clock.run(
        world.engine.create(replace(STRAY, name="foreign", labels={GATEWAY_LABEL: "other"}))
    )
    await listening(world)
    await world.clock.advance(1.0)
    assert world.engine.alive(INSTANCE_LABEL, "cafe") == 0
    assert await world.engine.inspect("foreign")
    await world.clock.run(world.engine.remove("foreign"))
    assert instance.state is State.IDLE
    await world.reaper.close()


async def test_containers_of_a_build_and_of_somebody_who_tries_an_image_are_left_alone(world: World) -> None:
    """Both have the gateway's label from the image; removing one would fail the build."""
    await idle(world, world.deploy())
    labels = {name: value for name, value in STRAY.labels.items() if name != INSTANCE_LABEL}
    await world.clock.run(world.engine.create(replace(STRAY, name="before", labels=labels)))
    await listening(world)
    await world.clock.run(world.engine.create(replace(STRAY, name="after", labels=labels)))
    await world.clock.advance(1.0)
    for name in ("before", "after"):
        await world.clock.run(world.engine.remove((await world.engine.inspect(name)).id))
    assert world.pool.ledger.removals == {}
    await world.reaper.close()


async def test_nothing_expires_while_the_engine_is_down(world: World) -> None:
    [instance] = await idle(world, world.deploy(keep_alive=1.0))
    world.engine.stop()
    while world.guard.down() is None:
        with suppress(EngineError):
            await world.clock.run(world.guard.ping())
    await world.pass_time(5.0)
    assert instance.state is State.IDLE
    world.engine.resume()
    while world.guard.down() is not None:
        await world.clock.advance(TICK)
    assert instance.state is State.IDLE
    await world.pass_time(0.5)
    assert world.pool.ledger.removals == {"idle": 1}
