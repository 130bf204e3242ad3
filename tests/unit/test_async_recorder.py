"""Ends of runs on their way to the disk: together, each for itself where one has a fault; and runs that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from unit.virtual_worker import OK, World

from scheduler.durable.model import Claim, NewCall, Result, Status
from scheduler.durable.plans import FunctionPlan
from scheduler.durable.running import Ended, Run, TaskRun
from scheduler.durable.terms import Policy


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
        made = NewCall(claim.call.id[::-1], "g", "POST", b"", b"", [], b"")
        return [made if claim.call.id != ids[4] else object()]

    world.worker.followers.append(follow)
    followed: list[str] = []
    world.worker.on_followed.append(lambda works: followed.extend(work.id for work in works))  # type: ignore[attr-defined]
    await world.start()
    await world.advance(1.2)
    assert [await world.status(id) for id in ids] == [Status.SUCCEEDED] * 10
    assert sorted(followed) == sorted(id[::-1] for id in ids if id != ids[4])
    assert f"invocation {ids[4]} of f: what follows from its end is not begun" in caplog.text
    await world.advance(60.0)


async def test_a_run_that_raises_is_the_platforms_fault_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.plans["f"] = FunctionPlan(Policy(attempts=1, backoff=1.0))
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
        world.worker._attempts[first].ended(OK)

    run_ended()
    await world.worker.close()
    assert await world.status(first) is Status.SUCCEEDED
    assert await world.status(second) is Status.RUNNING, "as far as the store knows, until the next start"
    await world.kill()
    await world.start()
    await world.advance(2.0)
    assert await world.status(second) is Status.SUCCEEDED
