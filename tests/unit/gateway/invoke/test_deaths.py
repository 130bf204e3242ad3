"""What is kept for a call whose instance ended in its middle."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.invoke.deaths import SHARED, Deaths
from pool.contracts.obituary import Obituary
from pool.instance import Instance
from pool.lease import Lease
from tests.support.virtual_pool import COLD, World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def leased(world: World) -> Lease:
    caller = world.arrive(world.deploy("f", concurrency=2))
    await world.clock.advance(COLD)
    assert caller.lease is not None
    return caller.lease


def deaths(world: World, found: Obituary) -> Deaths:
    async def obituary(instance: Instance) -> Obituary:
        return found

    return Deaths(world.pool.printed, obituary)


async def test_of_several_calls_at_once_each_gets_the_latest_output(world: World) -> None:
    first = await leased(world)
    second = world.arrive(world.dispatcher.functions["f"])
    await world.clock.settle()
    assert second.lease is not None
    world.pool.output(first.instance, b"Segmentation fault\n")
    found = deaths(world, Obituary("its process ended with exit status 139 (SIGSEGV)", ended=True))
    for lease in (first, second.lease):
        assert await found.of(lease) == Obituary(
            "the instance died: its process ended with exit status 139 (SIGSEGV)", ended=True
        )
        assert world.pool.printed.logs.read(lease.invocation) == f"{SHARED}Segmentation fault\n".encode()
        world.dispatcher.release(lease)


async def test_output_of_the_call_itself_is_enough(world: World) -> None:
    lease = await leased(world)
    world.pool.output(lease.instance, b"its own\n")
    await deaths(world, Obituary("it closed its connection", ended=False)).of(lease)
    assert world.pool.printed.logs.read(lease.invocation) == b"its own\n"
    world.dispatcher.release(lease)


async def test_a_handler_that_closes_its_connection_counts_as_dead(world: World) -> None:
    """Even if the engine says nothing in time: a shim that lives closes none."""
    lease = await leased(world)
    death = await deaths(world, Obituary("it closed its connection", ended=False)).of(lease)
    assert death == Obituary("the instance died: it closed its connection", ended=True)
    world.dispatcher.release(lease)
