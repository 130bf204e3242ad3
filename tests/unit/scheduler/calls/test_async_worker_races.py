"""What could keep an accepted call for ever, or run it though it was cancelled: odd answers, and unlucky moments."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.work import NewCall, Request
from tests.support.virtual_worker import World

HALF = "half of a pair: \ud800"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "calls.db")
    yield world
    await world.books_agree()
    await world.worker.close()
    await world.store.close()


async def test_what_utf8_cannot_hold_is_recorded_all_the_same(world: World) -> None:
    world.answers["f"] = deque(
        [Result(500, [], b"", "handler-error", HALF, "function", HALF.encode(errors="replace"))]
    )
    await world.start()
    (id,) = await world.accept()
    await world.advance(1.0)
    record = await world.record(id)
    assert (record.status, record.detail) == (Status.QUEUED, "half of a pair: \\ud800")
    await world.advance(10.0)


async def test_a_follower_with_a_fault_keeps_no_call_from_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(claim: Claim, ending: Ending) -> list[object]:
        raise KeyError("of a follower")

    world.worker.followers.append(faulty)
    await world.start()
    (id,) = await world.accept()
    await world.advance(2.0)
    assert await world.status(id) is Status.SUCCEEDED
    assert "of a follower" in caplog.text


async def test_what_cannot_be_begun_keeps_no_call_from_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.worker.followers.append(lambda claim, ending: [object()])
    await world.start()
    (id,) = await world.accept()
    await world.advance(2.0)
    assert await world.status(id) is Status.SUCCEEDED
    assert "Expected code to be unreachable" in caplog.text


async def test_one_that_is_just_being_leased_is_interrupted(world: World) -> None:
    await world.start()
    begun, free = threading.Event(), threading.Event()

    def wait_in_the_thread(db: object) -> None:
        begun.set()
        free.wait(30)

    call = NewCall("0" * 32, "f", Request(), b"")
    await world.store.accept(call, world.clock.wall())
    blocking = asyncio.ensure_future(world.writer.do(wait_in_the_thread))
    await asyncio.to_thread(begun.wait)
    world.worker.notify()
    await world.clock.settle()
    leased = asyncio.ensure_future(world.writer.do(lambda _: None))  # in the commit that leases it
    await world.clock.settle()
    free.set()
    await blocking
    await leased
    assert await world.status(call.id) is Status.RUNNING
    assert await world.worker.cancel(call.id)
    await world.advance(5.0)
    assert await world.status(call.id) is Status.CANCELLED
