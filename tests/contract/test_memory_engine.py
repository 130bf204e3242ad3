"""What only the engine in memory can do: virtual time, faults on demand, and counting what is alive."""

from __future__ import annotations

import asyncio

import pytest

from pool.clock import VirtualClock
from pool.engine.base import ContainerSpec, EngineError, EngineUnreachable, NotFound
from pool.engine.memory import Latency, MemoryEngine

CREATE, START, REMOVE = 1.0, 4.0, 2.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def engine(clock: VirtualClock) -> MemoryEngine:
    made = MemoryEngine(clock, cpus=2, latency=Latency(CREATE, START, REMOVE))
    made.add_image("image")
    return made


def spec(name: str, **labels: str) -> ContainerSpec:
    return ContainerSpec(name=name, image="image", labels=labels)


async def test_the_slow_verbs_take_their_time(clock, engine):
    container = await clock.run(engine.create(spec("a")))
    assert clock.now() == CREATE
    await clock.run(engine.start(container))
    assert clock.now() == CREATE + START
    await clock.run(engine.remove(container))
    assert clock.now() == CREATE + START + REMOVE
    assert engine.calls == {"create": 1, "start": 1, "remove": 1}


async def test_starts_beyond_the_cores_queue(clock, engine):
    containers = [await clock.run(engine.create(spec(str(number)))) for number in range(5)]
    began = clock.now()
    ended: list[float] = []

    async def start(container: str) -> None:
        await engine.start(container)
        ended.append(clock.now() - began)

    await clock.run(asyncio.gather(*map(start, containers)))
    assert ended == [START, START, 2 * START, 2 * START, 3 * START]


async def test_alive_counts_from_the_call_of_create_until_removed(clock, engine):
    creating = asyncio.create_task(engine.create(spec("a", function="f")))
    await clock.settle()
    assert engine.alive("function", "f") == engine.alive() == 1
    container = await clock.run(creating)
    removing = asyncio.create_task(engine.remove(container))
    await clock.advance(REMOVE - 0.1)
    assert engine.alive("function", "f") == 1
    await clock.run(removing)
    assert (engine.alive("function", "f"), engine.peak("function", "f"), engine.peak()) == (0, 1, 1)


async def test_a_create_that_failed_is_not_alive(clock, engine):
    engine.fail_next("create", EngineError("no"))
    with pytest.raises(EngineError, match="no"):
        await engine.create(spec("a"))
    with pytest.raises(NotFound):
        await clock.run(engine.create(ContainerSpec(name="b", image="missing")))
    assert engine.alive() == 0 and await engine.containers({}) == []


async def test_a_fault_strikes_once_before_or_after_the_deed(clock, engine):
    engine.fail_next("create", EngineError("lost answer"), carried_out=True)
    with pytest.raises(EngineError, match="lost answer"):
        await clock.run(engine.create(spec("a")))
    (left,) = await engine.containers({})
    assert left.name == "a" and engine.alive() == 1
    engine.fail_next("remove", EngineError("busy"))
    with pytest.raises(EngineError, match="busy"):
        await engine.remove(left.id)
    assert engine.alive() == 1
    await clock.run(engine.remove(left.id))
    assert engine.alive() == 0


async def test_what_was_cancelled_happens_all_the_same(clock, engine):
    creating = asyncio.create_task(engine.create(spec("a")))
    await clock.settle()
    creating.cancel()
    await clock.settle()
    assert await engine.containers({}) == []
    await clock.advance(CREATE)
    (left,) = await engine.containers({})
    removing = asyncio.create_task(engine.remove(left.id))
    await clock.settle()
    removing.cancel()
    await clock.advance(REMOVE)
    assert await engine.containers({}) == [] and engine.alive() == 0


async def test_a_kill_is_told_and_waited_for(clock, engine):
    events = engine.events({})
    container = await clock.run(engine.create(spec("a")))
    await clock.run(engine.start(container))
    waiting = asyncio.create_task(engine.wait(container))
    await clock.settle()
    engine.kill(container, oom=True)
    assert await waiting == 137
    state = await engine.inspect(container)
    assert (state.running, state.exit_code, state.oom_killed) == (False, 137, True)
    assert [(await anext(events)).action for _ in range(4)] == ["create", "start", "oom", "die"]
    await events.aclose()


async def test_a_stopped_engine_is_unreachable_and_its_containers_live_on(clock, engine):
    container = await clock.run(engine.create(spec("a")))
    await clock.run(engine.start(container))
    events = engine.events({})
    listening = asyncio.create_task(anext(events))
    waiting = asyncio.create_task(engine.wait(container))
    removing = asyncio.create_task(engine.remove(container))
    await clock.settle()
    engine.stop()
    await clock.advance(REMOVE)
    for task in (listening, waiting, removing):
        with pytest.raises(EngineUnreachable):
            await task
    with pytest.raises(EngineUnreachable):
        await engine.ping()
    with pytest.raises(EngineUnreachable):
        await anext(engine.events({}))
    engine.resume()
    assert (await engine.inspect(container)).running
    await engine.close()
