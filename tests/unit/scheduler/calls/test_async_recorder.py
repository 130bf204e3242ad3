"""Ends of runs on their way to the disk: together, each for itself where one has a fault; and runs that misbehave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.recorder import FAILING
from scheduler.calls.running.running import Ended, Run, TaskRun
from scheduler.definitions.language.call_overrides import RetryPolicy
from scheduler.work import NewCall, Request
from tests.support.virtual_worker import FAILED, OK, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "calls.db")
    yield made
    await made.books_agree()
    await made.worker.close()
    await made.store.close()


class Nothing:
    """A run that has ended already."""

    def interrupt(self) -> None: ...


async def test_those_that_end_together_come_to_disk_together(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=60)
    ids = await world.accept("f", 30)
    await world.start()
    assert sum(world.running.values()) == 30
    before = world.store.commits
    await world.advance(1.5)
    assert [await world.status(id) for id in ids] == [Status.SUCCEEDED] * 30
    shows = 30
    assert world.store.commits - before - shows <= 3, (
        "the first that ends, those meanwhile, and a look for more"
    )


async def test_one_whose_consequence_cannot_be_begun_spoils_no_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plans["f"] = FunctionPlan(slots=20)
    ids = await world.accept("f", 10)

    def follow(claim: Claim, _: object) -> list[object]:
        made = NewCall(claim.call.id[::-1], "g", Request(), b"")
        return [made if claim.call.id != ids[4] else object()]

    world.worker.followers.append(follow)
    followed: list[str] = []
    world.worker.on_followed.append(lambda works: followed.extend(work.id for work in works))  # type: ignore[attr-defined]
    await world.start()
    await world.advance(1.2)
    assert [await world.status(id) for id in ids] == [Status.SUCCEEDED] * 10
    assert sorted(followed) == sorted(id[::-1] for id in ids if id != ids[4])
    assert f"invocation {ids[4]} of f: its follow-ups are not started" in caplog.text
    await world.advance(60.0)


async def test_a_run_that_raises_is_the_platforms_fault_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=1, backoff=1.0))
    good, faults = world.worker.run, ["at its begin", "as a task"]
    assert good is not None

    async def faulty() -> Result:
        raise ValueError(faults.pop())

    def run(claim: Claim, ended: Ended) -> Run:
        if len(faults) == 2:
            raise ValueError(faults.pop())
        return TaskRun(faulty(), ended) if faults else good(claim, ended)

    world.worker.run = run
    [id] = await world.accept()
    await world.start()
    await world.advance(10.0)
    record = await world.record(id)
    assert (record.status, record.attempts) == (Status.SUCCEEDED, 3), "neither used up its only attempt"
    assert "as a task" in caplog.text and "at its begin" in caplog.text
    assert world.interrupted == []


async def test_runs_may_end_before_they_are_well_begun_and_tell_it_twice(world: World) -> None:
    def run(_: Claim, ended: Ended) -> Run:
        ended(OK)
        ended(Result(500, [], b""))
        return Nothing()

    world.worker.run = run
    ids = await world.accept("f", 300)
    await world.start()
    await world.settle()
    assert {await world.status(id) for id in ids} == {Status.SUCCEEDED}
    assert world.metrics.async_ended.value_of("f", "succeeded") == 300


async def test_what_ended_while_the_worker_closes_is_recorded(world: World) -> None:
    """Its run is over: to have it run again at the next start would be to run it twice."""
    world.plans["f"] = FunctionPlan(slots=4)
    first, second = await world.accept("f", 2)
    await world.start()

    def run_ended() -> None:
        world.ends[first](OK)

    run_ended()
    await world.worker.close()
    assert await world.status(first) is Status.SUCCEEDED
    assert await world.status(second) is Status.RUNNING, "as far as the store knows, until the next start"
    await world.kill()
    await world.start()
    await world.advance(2.0)
    assert await world.status(second) is Status.SUCCEEDED


# -- what cannot be written ---------------------------------------------------------------------------------


async def large_ones_cannot_be_kept(world: World) -> None:
    """A nearly full disk: from now on."""
    world.script(
        "CREATE TRIGGER broken BEFORE INSERT ON results WHEN length(NEW.body) > 1000"
        " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
    )


async def test_an_end_that_cannot_be_written_holds_no_other_up(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=40)
    world.plans["large"] = FunctionPlan(slots=20)
    world.answers["large"] = deque([Result(200, [], bytes(2000))] * 5)
    before = await world.accept("f", 5)
    large = await world.accept("large", 5)
    after = await world.accept("f", 5)
    await world.start()
    await large_ones_cannot_be_kept(world)
    await world.advance(3.0)
    assert {await world.status(id) for id in before + after} == {Status.SUCCEEDED}
    later = await world.accept("f", 3)
    await world.advance(3.0)
    assert {await world.status(id) for id in later} == {Status.SUCCEEDED}
    assert {await world.status(id) for id in large} == {Status.RUNNING}, "as far as the store knows"
    world.mend()
    await world.advance(2.0)
    assert {await world.status(id) for id in large} == {Status.SUCCEEDED}
    assert len(world.runs) == 18, "none was run twice"


async def test_what_could_be_written_is_not_run_again_after_closing(world: World) -> None:
    world.plans["f"] = world.plans["large"] = FunctionPlan(slots=40)
    world.answers["large"] = deque([Result(200, [], bytes(2000))])
    ids = await world.accept("f", 4)
    [large] = await world.accept("large")
    await world.start()
    await large_ones_cannot_be_kept(world)
    await world.advance(1.0)
    await world.worker.close()
    assert {await world.status(id) for id in ids} == {Status.SUCCEEDED}
    world.mend()
    await world.kill()
    await world.start()
    await world.advance(2.0)
    assert len(world.times("f")) == 4 and len(world.times("large")) == 2
    assert await world.status(large) is Status.SUCCEEDED


async def test_a_store_that_fails_for_all_is_not_asked_for_each_of_them(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=100)
    ids = await world.accept("f", 50)
    await world.start()
    asked: list[int] = []
    finish, answering = world.store.finish, asyncio.Event()

    async def counted(owner: LeaseOwner, endings: Sequence[Ending], now: float) -> Sequence[bool]:
        asked.append(len(endings))
        await answering.wait()
        return await finish(owner, endings, now)

    world.store.finish = counted  # type: ignore[method-assign]
    world.fault("UPDATE")
    together = sum(world.running.values())
    await world.advance(1.5)
    answering.set()
    await world.settle()
    assert asked == [1, together - 1, *[1] * FAILING], (
        "the first to end, those that ended meanwhile, a few of them"
    )
    asked.clear()
    await world.advance(1.1)
    assert asked == [together, *[1] * FAILING]
    world.mend()
    await world.advance(2.0)
    assert {await world.status(id) for id in ids} == {Status.SUCCEEDED}


async def test_a_result_that_no_store_could_keep_is_a_failure_that_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=2, backoff=1.0), slots=8)
    world.answers["f"] = deque([OK, Result(2**70, [], b""), Result(-(2**70), [], b"")])
    good, again, bad = await world.accept("f", 3)
    await world.start()
    await world.advance(10.0)
    assert await world.status(good) is Status.SUCCEEDED
    assert (await world.record(again)).attempts == 2, (
        "what its first run brought is not kept, and it is tried again"
    )
    record = await world.record(bad)
    assert (record.status, record.error) == (Status.FAILED, "not-kept")
    assert f"invocation {bad} of f: its result cannot be stored" in caplog.text


async def test_somebody_who_cannot_be_told_holds_nobody_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plans["f"] = FunctionPlan(slots=20)

    def tell(_: str) -> None:
        raise ValueError("nobody is there")

    world.worker.on_ended["owner"] = tell
    [owned] = await world.accept("f", owner="owner:1", part="0")
    ids = await world.accept("f", 5)
    await world.start()
    await world.advance(2.0)
    later = await world.accept("f", 2)
    await world.advance(2.0)
    assert {await world.status(id) for id in [owned, *ids, *later]} == {Status.SUCCEEDED}
    assert "nobody is there" in caplog.text


# -- cancelling meanwhile -----------------------------------------------------------------------------------


class Held:
    """Runs that end when they are told to."""

    def __init__(self, world: World) -> None:
        self.ended: dict[str, Ended] = {}
        self.begun: list[str] = []
        world.worker.run = self

    def __call__(self, claim: Claim, ended: Ended) -> Run:
        self.ended[claim.call.id] = ended
        self.begun.append(claim.call.id)
        return Nothing()


@pytest.mark.parametrize("turns", range(6))
async def test_one_that_has_failed_and_is_not_written_yet_can_be_cancelled(world: World, turns: int) -> None:
    """Its end waits for the commit under way, or is in it."""
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=5, backoff=1.0), slots=20)
    held = Held(world)
    [other] = await world.accept("other")
    [id] = await world.accept("f")
    await world.start()
    held.ended[other](OK)
    await asyncio.sleep(0)
    held.ended[id](FAILED)
    for _ in range(turns):
        await asyncio.sleep(0)
    # As DELETE /invocations/{id} does it.
    record = await world.store.cancel(id, world.clock.wall())
    if record is not None and record.status is Status.RUNNING and not await world.worker.cancel(id):
        record = await world.store.cancel(id, world.clock.wall())
    assert await world.status(id) is Status.CANCELLED
    await world.advance(10.0)
    assert held.begun.count(id) == 1


async def test_who_cancels_is_let_go_when_it_cannot_come_to_disk(world: World) -> None:
    [id] = await world.accept()
    await world.start()
    world.fault("UPDATE")
    cancelling = asyncio.ensure_future(world.worker.cancel(id))
    await world.settle()
    assert not cancelling.done()
    await world.worker.close()
    await world.settle()
    assert cancelling.done()
    world.mend()
    await world.kill()
    await world.start()
    await world.advance(2.0)
    assert await world.status(id) is Status.SUCCEEDED
