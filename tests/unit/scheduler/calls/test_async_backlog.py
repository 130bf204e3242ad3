"""A backlog of a hundred thousand calls: whom it holds up. Counted on virtual time, over a real store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.calls.model import Ending, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.fairness import MAX_LEASED_AHEAD, places
from scheduler.calls.running.worker import MOST_AT_ONCE, MOST_IN_HAND
from scheduler.store.sqlite.rows.batch_rows import insert_all
from scheduler.store.sqlite.rows.claim_rows import backlogs_of, claim
from scheduler.work import NewCall, Request
from tests.support.lease_owners import ME
from tests.support.virtual_worker import OK, World

FLOOD = 100_000


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "calls.db")
    yield made
    await made.worker.close()
    await made.store.close()


async def flood(world: World, *functions: str) -> None:
    """Queue as many calls of these functions together, all before anything else."""
    share = FLOOD // len(functions)
    calls = [
        NewCall(f"{name}-{number:08}", name, Request(), b"{}")
        for number in range(share)
        for name in functions
    ]
    await world.writer.do(lambda db: insert_all(db, [(call, 0.0) for call in calls]))
    world.accepted = FLOOD


def begun_before(world: World, function: str) -> int:
    """Runs of others that began before the first of a function."""
    names = [run.claim.call.function for run in world.runs]
    return names.index(function)


@pytest.mark.parametrize("exec_seconds", [None, 0.001])
async def test_a_flood_of_one_function_holds_no_other_up(world: World, exec_seconds: float | None) -> None:
    world.plans["flood"] = FunctionPlan(slots=16, exec_seconds=exec_seconds)
    await flood(world, "flood")
    await world.start()
    await world.advance(2.5)
    before = len(world.runs)
    await world.accept("other")
    await world.settle()
    assert begun_before(world, "other") == before, "it began at once: none of the flood came in between"
    await world.advance(5.0)
    at_once = places(16, exec_seconds)
    assert world.most["flood"] == at_once, "the other slots are left to direct calls, all the time"
    assert sum(lane.running for lane in world.worker.lanes if lane.function == "flood") <= at_once
    assert (
        sum(lane.held for lane in world.worker.lanes if lane.function == "flood")
        <= at_once + MAX_LEASED_AHEAD
    )


async def test_floods_of_many_functions_hold_one_more_up_for_two_runs_at_most(world: World) -> None:
    names = [f"flood-{number}" for number in range(10)]
    world.plans |= {name: FunctionPlan(slots=100) for name in names}
    await flood(world, *names)
    await world.start()
    await world.advance(2.5)
    assert sum(world.running.values()) == MOST_AT_ONCE, "every place is taken"
    before = len(world.runs)
    await world.accept("other")
    await world.advance(2.0)
    assert begun_before(world, "other") - before <= MOST_AT_ONCE


async def test_a_newcomer_has_the_next_place_though_as_many_are_leased_as_can_be(world: World) -> None:
    """Short calls are leased ahead: those of these floods are all that fit into memory."""
    world.plans |= {name: FunctionPlan(slots=40, exec_seconds=0.001) for name in ("flood", "other-flood")}
    await flood(world, "flood", "other-flood")
    await world.start()
    await world.settle()
    assert sum(lane.held for lane in world.worker.lanes) == MOST_IN_HAND
    before = len(world.runs)
    await world.accept("other")
    await world.advance(5.0)
    assert begun_before(world, "other") - before <= MOST_AT_ONCE


async def test_leasing_and_recording_look_nothing_up_by_reading_everything(world: World) -> None:
    await flood(world, "f", "g")
    said: list[str] = []

    def watched(db: sqlite3.Connection) -> list[str]:
        db.execute("ANALYZE")
        db.set_trace_callback(said.append)
        return [one.call.id for one in claim(db, ME, dict.fromkeys(backlogs_of(db, 1.0), 64), 1.0)]

    ids = await world.writer.do(watched)
    assert len(ids) == 128
    for id in ids:
        assert await world.store.finish(ME, [Ending(id, Status.SUCCEEDED, 0, OK)], 2.0) == [True]

    def plans(db: sqlite3.Connection) -> list[str]:
        db.set_trace_callback(None)
        asked = [one for one in said if one.startswith(("SELECT", "UPDATE", "WITH", "INSERT"))]
        return [row[3] for one in asked for row in db.execute(f"EXPLAIN QUERY PLAN {one}")]

    steps = await world.writer.do(plans)
    assert any("invocations_due" in step for step in steps)
    slow = [step for step in steps if step.startswith(("SCAN invocations", "SCAN requests", "USE TEMP"))]
    assert slow == []
