"""How accepted calls end: cancelled wherever they are, awaited, as parts of something, with a destination."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.calls.destinations import MAX_CALL_DEPTH, MAX_TOLD_BYTES
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.running import Ended, TaskRun
from scheduler.calls.store import STORE_RETRY
from scheduler.definitions.language.call_overrides import RetryPolicy
from scheduler.work import NewCall, Request
from tests.support.virtual_worker import FAILED, OK, World

QUEUED_AHEAD = FunctionPlan(slots=2, exec_seconds=0.001)
"""One place, and some calls are leased ahead."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "calls.db")
    yield world
    await world.books_agree()
    await world.worker.close()
    await world.store.close()


# -- cancelling ---------------------------------------------------------------------------------------------


async def test_one_that_runs_is_interrupted(world: World) -> None:
    await world.start()
    first, second = await world.accept("f", 2)
    await world.advance(0.5)
    assert await world.worker.cancel(first)
    assert world.interrupted == [first]
    record = await world.record(first)
    assert (record.status, record.ended, record.error) == (Status.CANCELLED, 0.5, None)
    await world.advance(1.0)
    assert world.times() == [0.0, 0.5], "its place is free at once"
    assert await world.status(second) is Status.SUCCEEDED
    assert world.metrics.async_ended.labels("f", Status.CANCELLED).value == 1
    assert not await world.worker.cancel(first)


async def test_one_that_is_leased_but_does_not_run_yet_never_does(world: World) -> None:
    world.plans["f"] = QUEUED_AHEAD
    first, second, third = await world.accept("f", 3)
    await world.start()
    assert await world.status(second) is Status.RUNNING, "as far as the store knows"
    assert await world.worker.cancel(second)
    assert await world.status(second) is Status.CANCELLED
    await world.advance(5.0)
    assert [run.claim.call.id for run in world.runs] == [first, third]


async def test_one_that_has_just_been_begun(world: World) -> None:
    """Its task has not taken its first step."""
    [id] = await world.accept()
    cancels: list[asyncio.Task[bool]] = []

    def with_somebody_who_cancels(claim: Claim, ended: Ended) -> TaskRun:
        cancels.append(asyncio.ensure_future(world.worker.cancel(id)))
        return world.begin_run(claim, ended)

    world.worker.run = with_somebody_who_cancels
    await world.start()
    [cancel] = cancels
    assert await cancel
    assert world.interrupted == [id]
    assert await world.status(id) is Status.CANCELLED


async def test_one_that_waits_to_be_tried_again_is_the_stores(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(backoff=10.0))
    world.answers["f"] = deque([FAILED])
    await world.start()
    [id] = await world.accept()
    await world.advance(2.0)
    assert not await world.worker.cancel(id), "it is not leased"
    before = await world.store.cancel(id, world.clock.wall())
    assert before is not None and before.status is Status.QUEUED
    await world.advance(60.0)
    assert len(world.runs) == 1
    assert await world.status(id) is Status.CANCELLED


async def test_one_that_has_ended_or_never_was(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.advance(1.0)
    assert not await world.worker.cancel(id)
    assert not await world.worker.cancel("never")
    assert await world.status(id) is Status.SUCCEEDED


async def test_one_whose_run_is_over_but_not_recorded_keeps_what_it_brought(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.settle()
    world.fault("UPDATE")
    await world.advance(1.5)
    assert not await world.worker.cancel(id)
    world.mend()
    await world.advance(STORE_RETRY.longest)
    assert await world.status(id) is Status.SUCCEEDED


async def test_a_cancellation_is_recorded_when_the_store_can(world: World) -> None:
    world.plans["f"] = QUEUED_AHEAD
    running, ready = await world.accept("f", 2)
    await world.start()
    world.fault("UPDATE")
    cancels = [asyncio.ensure_future(world.worker.cancel(id)) for id in (running, ready)]
    await world.advance(2.5 * STORE_RETRY.longest)
    assert not any(cancel.done() for cancel in cancels)
    assert world.interrupted == [running]
    world.mend()
    await world.advance(STORE_RETRY.longest)
    assert [cancel.result() for cancel in cancels] == [True, True]
    assert [await world.status(id) for id in (running, ready)] == [Status.CANCELLED] * 2
    assert len(world.runs) == 1


async def test_two_who_cancel_the_same(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.advance(0.5)
    outcomes = await asyncio.gather(world.worker.cancel(id), world.worker.cancel(id))
    assert sorted(outcomes) == [False, True]
    assert await world.status(id) is Status.CANCELLED


async def test_a_run_that_ends_all_the_same_is_cancelled(world: World) -> None:
    """What it brought comes just as it is interrupted."""

    async def stubborn(claim: Claim) -> Result:
        try:
            return await world.run(claim)
        except asyncio.CancelledError:
            return OK

    world.worker.run = lambda claim, ended: TaskRun(stubborn(claim), ended)
    await world.start()
    [id] = await world.accept()
    await world.advance(0.5)
    assert await world.worker.cancel(id)
    assert await world.status(id) is Status.CANCELLED
    assert await world.store.result(id) is None


# -- who waits ----------------------------------------------------------------------------------------------


async def waits(world: World, id: str, seconds: float) -> asyncio.Task[None]:
    """Somebody who waits for a call, since before it could run."""
    task = asyncio.ensure_future(world.worker.wait(id, seconds))
    await asyncio.sleep(0)
    return task


async def test_who_waits_is_told_when_it_has_ended(world: World) -> None:
    [id] = await world.accept()
    first, second = await waits(world, id, 60.0), await waits(world, id, 60.0)
    await world.start()
    await world.advance(0.9)
    assert not first.done()
    await world.advance(0.2)
    assert first.done() and second.done()
    assert await world.status(id) is Status.SUCCEEDED, "it is on disk before anybody is told"


async def test_nobody_waits_longer_than_they_wanted(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(backoff=10.0))
    world.answers["f"] = deque([FAILED])
    [id] = await world.accept()
    short, long = await waits(world, id, 5.0), await waits(world, id, 60.0)
    await world.start()
    await world.advance(4.9)
    assert not short.done(), "a run that is to be tried again is no end"
    await world.advance(0.2)
    assert short.done() and not long.done()
    await world.advance(10.0)
    assert long.done()


async def test_who_waits_may_leave(world: World) -> None:
    [id] = await world.accept()
    gone, stays = await waits(world, id, 60.0), await waits(world, id, 60.0)
    gone.cancel()
    await world.start()
    await world.advance(1.0)
    assert gone.cancelled() and stays.done()


@pytest.mark.parametrize("place", ["running", "ready"])
async def test_who_waits_is_told_of_a_cancellation(world: World, place: str) -> None:
    world.plans["f"] = QUEUED_AHEAD
    running, ready = await world.accept("f", 2)
    id = {"running": running, "ready": ready}[place]
    waiting = await waits(world, id, 60.0)
    await world.start()
    await world.worker.cancel(id)
    await world.settle()
    assert waiting.done()
    await world.advance(2.0)


# -- owners -------------------------------------------------------------------------------------------------


async def test_the_owner_of_a_call_is_told_of_its_end_once(world: World) -> None:
    jobs: list[str] = []
    world.worker.on_ended["job"] = jobs.append
    world.answers["f"] = deque([FAILED])
    await world.start()
    await world.accept(owner="job:a:b", part="1")
    await world.accept(owner="run:c", part="1")
    await world.accept()
    await world.advance(1.0)
    assert not jobs, "it is to be tried again"
    await world.advance(60.0)
    assert jobs == ["a:b"], "nobody hears of those of kinds that nobody knows"


# -- destinations -------------------------------------------------------------------------------------------

LAST = RetryPolicy(attempts=1)
ROUTED = FunctionPlan(LAST, on_success="glad", on_failure="sorry")


async def told(world: World, function: str) -> dict[str, Any]:
    """What the only call of a destination was told."""
    [run] = [run for run in world.runs if run.claim.call.function == function]
    body = run.claim.call.body
    assert (b"content-length", b"%d" % len(body)) in run.claim.call.request.headers
    return dict(json.loads(body))


@pytest.mark.parametrize(
    ("answer", "destination", "says"),
    [
        (OK, "glad", {"status": "succeeded", "attempts": 1, "error": None, "blame": "none"}),
        (FAILED, "sorry", {"status": "dead", "error": "function-error", "blame": "function"}),
        (Result(404, [], b""), "sorry", {"status": "failed"}),
        (
            Result(504, [], b"", "timeout", "too slow", "function"),
            "sorry",
            {"status": "dead", "error": "timeout", "detail": "too slow"},
        ),
    ],
)
async def test_what_a_destination_is_told(
    world: World, answer: Result, destination: str, says: dict[str, Any]
) -> None:
    world.plans["f"] = ROUTED
    world.answers["f"] = deque([answer])
    await world.start()
    [id] = await world.accept()
    await world.advance(2.0)
    message = await told(world, destination)
    assert {key: message[key] for key in says} == says
    assert (message["invocation_id"], message["function"]) == (id, "f")
    assert message["result"]["status"] == answer.status
    assert {run.claim.call.function for run in world.runs} == {"f", destination}


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (OK, {"status": 200, "content_type": "text/plain", "body": "well"}),
        (Result(200, [], b""), {"status": 200, "content_type": None, "body": ""}),
        (
            Result(200, [], b"\xff\x00"),
            {"status": 200, "content_type": None, "body_base64": base64.b64encode(b"\xff\x00").decode()},
        ),
        (Result(200, [], b"x" * MAX_TOLD_BYTES), {"status": 200, "body": "x" * MAX_TOLD_BYTES}),
        (Result(200, [], b"x" * (MAX_TOLD_BYTES + 1)), {"status": 200, "url": "/invocations/{id}/result"}),
    ],
    ids=["text", "nothing", "bytes", "largest", "larger"],
)
async def test_how_a_destination_is_told_the_answer(
    world: World, answer: Result, result: dict[str, Any]
) -> None:
    world.plans["f"] = ROUTED
    world.answers["f"] = deque([answer])
    await world.start()
    [id] = await world.accept()
    await world.advance(2.0)
    said = (await told(world, "glad"))["result"]
    wanted = {key: value.format(id=id) if key == "url" else value for key, value in result.items()}
    assert said == {"content_type": None} | wanted


async def test_a_destination_is_told_of_what_was_never_run(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(max_event_age=5.0), on_failure="sorry")
    await world.accept()
    await world.clock.advance(6.0)
    await world.start()
    await world.advance(1.0)
    message = await told(world, "sorry")
    assert (message["status"], message["error"], message["result"]) == ("expired", "expired", None)


async def test_what_has_no_destination(world: World) -> None:
    """What is tried again, was cancelled, is a part of something, or ended so that no destination is named for it."""
    world.plans |= {"f": ROUTED, "retried": FunctionPlan(on_failure="sorry")}
    world.plans["half"] = FunctionPlan(LAST, on_success="glad")
    world.answers |= {"retried": deque([FAILED]), "half": deque([FAILED])}
    await world.start()
    [cancelled] = await world.accept()
    await world.settle()
    await world.worker.cancel(cancelled)
    await world.accept(owner="job:1")
    await world.accept("retried")
    await world.accept("half")
    await world.advance(60.0)
    assert {run.claim.call.function for run in world.runs} == {"f", "retried", "half"}


async def test_a_circle_of_destinations_ends(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.plans["f"] = FunctionPlan(on_success="g")
    world.plans["g"] = FunctionPlan(on_success="f")
    await world.start()
    await world.accept()
    await world.advance(60.0)
    assert [run.claim.call.depth for run in world.runs] == list(range(MAX_CALL_DEPTH + 1))
    assert [run.claim.call.function for run in world.runs] == ["f", "g"] * (MAX_CALL_DEPTH // 2) + ["f"]
    assert f"g is not called, {MAX_CALL_DEPTH} calls led here already" in caplog.text


async def test_a_destination_is_accepted_in_the_commit_that_records_its_cause(world: World) -> None:
    """Either is there or neither: a process that dies in between would lose one or call it twice."""
    world.plans["f"] = ROUTED
    await world.start()
    [id] = await world.accept()
    await world.settle()
    world.fault("INSERT")
    await world.advance(10.0)
    assert await world.status(id) is Status.RUNNING
    assert not await world.calls_of("glad")
    world.mend()
    await world.advance(STORE_RETRY.longest)
    assert await world.status(id) is Status.SUCCEEDED
    assert len(await world.calls_of("glad")) == 1
    await world.advance(1.0)


async def test_all_that_follows_from_an_end_is_begun_with_it(world: World) -> None:
    def two_more(claim: Claim, ending: Ending) -> list[NewCall]:
        if claim.call.function != "f":
            return []
        return [NewCall(f"{number:032x}", "after", Request(), b"") for number in (101, 102)]

    world.worker.followers.append(two_more)
    world.answers["f"] = deque([FAILED])
    world.plans["f"] = FunctionPlan(on_success="glad")
    await world.start()
    await world.accept()
    await world.advance(1.0)
    assert not await world.calls_of("after"), "a run that is to be tried again is no end"
    await world.advance(2.0)
    assert len(await world.calls_of("after")) == 2
    assert len(await world.calls_of("glad")) == 1
    await world.advance(10.0)
