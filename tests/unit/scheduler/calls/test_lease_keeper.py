"""The keeper of a process's leases, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Claim, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.lease_keeper import (
    HEARTBEAT_SECONDS,
    SILENT_SECONDS,
    TAKE_OVER_RETRY,
    LeaseKeeper,
)
from scheduler.calls.running.running import TaskRun
from scheduler.calls.store import StoreError
from scheduler.store.sqlite.leases import SqliteLeaseStore
from tests.support.lease_owners import SOMEBODY_ELSE, take_all_leases
from tests.support.virtual_worker import OK, World


class Database:
    """A store of leases that does as it is told, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.exists = True
        self.fails = self.has_lost = False
        self.beats: list[tuple[LeaseOwner, float]] = []
        self.taken_over: list[LeaseOwner] = []

    async def heartbeat(self, owner: LeaseOwner, now: float) -> bool:
        if self.fails:
            raise StoreError("the disk is full")
        self.beats.append((owner, now))
        return not self.has_lost

    async def requeue_abandoned(self, owner: LeaseOwner, now: float, silent_seconds: float) -> int:
        if self.fails:
            raise StoreError("the disk is full")
        self.taken_over.append(owner)
        return 3


class KeeperWorld:
    """One keeper, on virtual time."""

    def __init__(self) -> None:
        self.clock = VirtualClock(epoch=0.0)
        self.metrics = Metrics()
        self.database = Database()
        self.keeper = LeaseKeeper(self.database, self.clock, self.metrics, "a")
        self.holds = False
        self.told: list[LeaseOwner] = []
        self.keeper.holders.append(lambda: self.holds)
        self.keeper.on_lost.append(lambda: self.told.append(self.keeper.owner))
        self.keeper.start(Supervisor(self.clock, self.metrics))


@pytest.fixture
async def kept() -> AsyncIterator[KeeperWorld]:
    made = KeeperWorld()
    await made.clock.settle()
    yield made
    await made.keeper.close()


async def test_heartbeats_are_sent_once_a_second_while_something_is_leased_and_else_not(
    kept: KeeperWorld,
) -> None:
    await kept.clock.advance(100 * HEARTBEAT_SECONDS)
    assert kept.database.beats == []
    kept.holds = True
    for _ in range(5):
        await kept.clock.advance(HEARTBEAT_SECONDS)
    assert [round(at - 100 * HEARTBEAT_SECONDS) for _, at in kept.database.beats] == [1, 2, 3, 4, 5]
    kept.holds = False
    await kept.clock.advance(10 * HEARTBEAT_SECONDS)
    assert len(kept.database.beats) == 5


async def test_who_has_lost_its_leases_is_somebody_else_from_then_on(kept: KeeperWorld) -> None:
    before = kept.keeper.owner
    kept.holds = kept.database.has_lost = True
    await kept.clock.advance(HEARTBEAT_SECONDS)
    assert kept.keeper.owner.node == before.node and kept.keeper.owner != before
    assert kept.told == [kept.keeper.owner]
    kept.keeper.renew(before)
    assert len(kept.told) == 1, "that is known"


async def test_what_is_leased_while_nothing_else_is_takes_a_new_epoch_where_the_old_one_is_gone(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "calls.db")
    keeper = world.settings.leases
    first = await keeper.lease(lambda owner: world.store.begin_body(owner, "", 10, 0.0))
    before = keeper.owner
    await take_all_leases(world.writer)
    second = await keeper.lease(lambda owner: world.store.begin_body(owner, "", 20, 0.0))
    assert second > first and keeper.owner != before
    assert (await world.store.usage()).unfinished == 20, "the first body was discarded"
    await world.store.close()


async def test_a_store_that_fails_costs_no_lease(kept: KeeperWorld) -> None:
    before = kept.keeper.owner
    kept.holds = kept.database.fails = True
    await kept.clock.advance(SILENT_SECONDS)
    assert kept.keeper.owner == before and kept.told == []
    kept.database.fails = False
    await kept.clock.advance(HEARTBEAT_SECONDS)
    assert [owner for owner, _ in kept.database.beats] == [before]


async def test_what_earlier_processes_left_is_taken_over_once(kept: KeeperWorld) -> None:
    await kept.keeper.take_over()
    await kept.keeper.take_over()
    assert kept.database.taken_over == [kept.keeper.owner]
    assert kept.metrics.registry.get_sample_value("hearth_async_interrupted_total") == 3


async def test_a_store_that_does_not_exist_is_not_made_by_a_look_for_leases(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db")
    await world.settings.leases.take_over()
    assert not (tmp_path / "calls.db").exists()
    await world.store.close()


async def test_taking_over_waits_for_a_store_that_fails() -> None:
    world = KeeperWorld()
    world.database.fails = True

    task = asyncio.ensure_future(world.keeper.take_over())
    await world.clock.advance(2 * TAKE_OVER_RETRY.longest)
    assert not task.done()
    world.database.fails = False
    await world.clock.advance(TAKE_OVER_RETRY.longest)
    await task
    assert world.database.taken_over == [world.keeper.owner]
    await world.keeper.close()


async def test_a_worker_that_has_lost_its_leases_stops_its_runs_and_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db")
    world.plans["f"] = FunctionPlan(slots=2, exec_seconds=0.001)
    world.seconds["f"] = 100.0
    ids = await world.accept("f", 3)
    await world.start()
    assert (await world.store.counts())["f", Status.RUNNING] == 3, "one runs, two are leased ahead"
    other = SqliteLeaseStore(world.writer)
    assert (
        await other.requeue_abandoned(SOMEBODY_ELSE, world.clock.wall() + 2 * SILENT_SECONDS, SILENT_SECONDS)
        == 3
    )
    world.worker.notify()
    world.settings.leases.renew(world.settings.leases.owner)
    await world.advance(0.5)
    assert world.interrupted == [ids[0]]
    assert world.metrics.async_ended.value_of("f", "cancelled") == 0
    world.seconds["f"] = 1.0
    await world.advance(10.0 + 2 * SILENT_SECONDS + 200.0)
    assert {await world.status(id) for id in ids} == {Status.SUCCEEDED}
    assert world.metrics.async_ended.value_of("f", "succeeded") == 3
    await world.books_agree()
    await world.worker.close()
    await world.store.close()


async def test_a_call_that_is_leased_again_before_its_lost_run_has_ended_leaves_its_place_to_the_next(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "calls.db")

    async def end_slowly(claim: Claim) -> Result:
        try:
            return await world.run(claim)
        except asyncio.CancelledError:
            await world.clock.sleep(50.0)
            raise

    world.worker.run = lambda claim, ended: TaskRun(end_slowly(claim), ended)
    world.plans["f"] = FunctionPlan(slots=4)
    world.seconds["f"] = 100.0
    (id,) = await world.accept()
    await world.start()
    world.seconds["f"] = 1.0
    other, later = SqliteLeaseStore(world.writer), world.clock.wall() + 2 * SILENT_SECONDS
    await other.requeue_abandoned(SOMEBODY_ELSE, later, SILENT_SECONDS)
    world.settings.leases.renew(world.settings.leases.owner)
    world.worker.notify()
    await world.advance(100.0)
    assert (world.times(), await world.status(id)) == ([0.0, 20.0], Status.SUCCEEDED)
    await world.accept("f", 2)
    await world.advance(10.0)
    assert world.times() == [0.0, 20.0, 100.0, 100.0], "both places are free again"
    await world.worker.close()
    await world.store.close()


async def test_a_worker_that_loses_its_leases_while_it_closes_comes_to_its_end(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db")
    go_on = asyncio.Event()

    async def end_late(_: Claim) -> Result:
        while not go_on.is_set():
            with suppress(asyncio.CancelledError):
                await go_on.wait()
        return OK

    world.worker.run = lambda claim, ended: TaskRun(end_late(claim), ended)
    await world.accept()
    await world.start()
    closing = asyncio.ensure_future(world.worker.close())
    await world.settle()
    waits_for_its_run = not closing.done()
    world.settings.leases.renew(world.settings.leases.owner)
    await world.settle()
    has_closed = closing.done()
    go_on.set()  # before anything is asserted: a task that cannot be cancelled would hold up the test's end
    await world.settle()
    await world.store.close()
    assert waits_for_its_run and has_closed


async def test_an_end_that_comes_after_the_lease_was_lost_is_not_recorded(tmp_path: Path) -> None:
    world = World(tmp_path / "calls.db")
    (id,) = await world.accept()
    await world.start()
    other = SqliteLeaseStore(world.writer)
    await other.requeue_abandoned(SOMEBODY_ELSE, world.clock.wall() + 2 * SILENT_SECONDS, SILENT_SECONDS)
    await world.store.claim(SOMEBODY_ELSE, {"f": 1}, world.clock.wall() + 3 * SILENT_SECONDS)
    await world.advance(2.0)
    assert world.metrics.async_ended.value_of("f", "succeeded") == 0
    record = await world.record(id)
    assert (record.status, record.attempts) == (Status.RUNNING, 2)
    assert await world.store.result(id) is None
    await world.worker.close()
    await world.store.close()
