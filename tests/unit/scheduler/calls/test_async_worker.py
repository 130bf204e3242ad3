"""The worker of accepted calls: leases and places, what it tries again, faults of the store, its end."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pool.supervise import RESTART
from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Ending, Result, Status
from scheduler.calls.plans import FunctionPlan
from scheduler.calls.running.lease_keeper import TAKE_OVER_RETRY
from scheduler.calls.running.worker import MOST_AT_ONCE, MOST_IN_HAND, PRUNE_EVERY
from scheduler.calls.store import MOST_BYTES, STORE_RETRY, StoreError
from scheduler.definitions.language.call_overrides import CallOverrides, RetryPolicy
from scheduler.work import NewCall, Request
from tests.support.virtual_worker import FAILED, OK, RETENTION, World

AWAY = Result(503, [], b"", "engine-down", "it is away", "platform")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "calls.db")
    yield world
    await world.worker.close()
    await world.store.close()


# -- leases and places --------------------------------------------------------------------------------------


async def test_what_is_accepted_is_run_once_and_recorded(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.settle()
    assert world.times() == [0.0]
    assert await world.status(id) is Status.RUNNING
    await world.advance(1.0)
    record = await world.record(id)
    assert (record.status, record.attempts, record.started, record.ended) == (Status.SUCCEEDED, 1, 0.0, 1.0)
    assert await world.store.result(id) == OK
    assert world.metrics.async_ended.labels("f", Status.SUCCEEDED).value == 1
    await world.advance(100.0)
    assert len(world.runs) == 1
    await world.books_agree()


async def test_a_worker_without_a_file_makes_none(world: World) -> None:
    await world.start()
    world.worker.notify()
    await world.advance(2 * PRUNE_EVERY)
    assert not world.runs
    await world.worker.close()
    assert world.taken_over() == 0


@pytest.mark.parametrize(("slots", "at_once"), [(1, 1), (2, 1), (8, 4), (1000, MOST_AT_ONCE // 2)])
async def test_a_function_has_half_of_its_slots_for_accepted_calls(
    world: World, slots: int, at_once: int
) -> None:
    world.plans["f"] = FunctionPlan(slots=slots)
    await world.accept("f", 2 * at_once + 1)
    await world.start()
    assert world.running["f"] == at_once
    await world.advance(3.0)
    assert len(world.runs) == 2 * at_once + 1
    assert world.most["f"] == at_once
    await world.books_agree()


async def test_the_oldest_calls_of_a_function_come_first(world: World) -> None:
    ids = await world.accept("f", 5)
    await world.start()
    await world.advance(5.0)
    assert [run.claim.call.id for run in world.runs] == ids
    assert world.times() == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_a_long_backlog_delays_nobody_else(world: World) -> None:
    world.plans["greedy"] = FunctionPlan(slots=1000, exec_seconds=0.001)
    world.seconds["greedy"] = 10.0
    await world.accept("greedy", 400)
    await world.start()
    assert world.running["greedy"] == MOST_AT_ONCE // 2
    await world.accept("modest", 2)
    await world.advance(2.0)
    assert world.times("modest") == [0.0, 1.0]
    assert not world.interrupted


async def test_no_more_run_at_once_than_there_are_places(world: World) -> None:
    for name in ("a", "b", "c"):
        world.plans[name] = FunctionPlan(slots=1000)
        await world.accept(name, 60)
    await world.start()
    assert world.running.total() == MOST_AT_ONCE
    assert max(world.running.values()) - min(world.running.values()) <= 1, "who has fewest comes next"
    await world.advance(3.0)
    assert len(world.runs) == 180
    await world.books_agree()


async def test_calls_that_have_become_short_take_the_further_places_at_once(world: World) -> None:
    short, long = (FunctionPlan(slots=16, exec_seconds=seconds) for seconds in (0.001, 0.5))
    world.plans["f"] = short
    await world.accept("f", 300)
    await world.start()
    [lane] = world.worker.lanes
    assert (lane.running, len(lane.ready)) == (15, 285)
    world.plans["f"] = long
    await world.advance(2.5)
    assert lane.running == 8, "half of the slots"
    world.plans["f"] = short
    await world.advance(1.0)
    assert lane.running == 15 and len(lane.ready) > lane.few, "though none was leased meanwhile"
    await world.advance(60.0)
    assert len(world.runs) == 300
    await world.books_agree()


async def test_of_large_bodies_few_are_in_hand(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=2, exec_seconds=0.0001)
    body = bytes(MOST_BYTES // 3 + 1)
    for number in range(7):
        await world.store.accept(NewCall(str(number), "f", Request(), body), 0.0)
    await world.accept("g")
    await world.start()
    assert {lane.function: lane.held for lane in world.worker.lanes} == {"f": 3, "g": 1}
    await world.advance(10.0)
    assert [len(run.claim.call.body) for run in world.runs if run.claim.call.function == "f"] == [
        len(body)
    ] * 7
    await world.books_agree()


async def test_no_more_are_in_hand_than_fit_into_memory(world: World) -> None:
    """Many functions of short calls, each of which is leased ahead."""
    names = [f"f{number}" for number in range(48)]
    for name in names:
        world.plans[name] = FunctionPlan(slots=2, exec_seconds=0.0001)
        await world.accept(name, 40)
    await world.start()
    leased = {key: n for key, n in (await world.store.counts()).items() if key[1] is Status.RUNNING}
    assert sum(leased.values()) == MOST_IN_HAND
    assert all(leased[name, Status.RUNNING] > 1 for name in names)
    world.worker.notify()  # of what is new there is no room for
    await world.settle()
    await world.advance(40.0)
    assert len(world.runs) == 48 * 40
    assert set(world.most.values()) == {1}
    await world.books_agree()


# -- trying again -------------------------------------------------------------------------------------------


async def test_what_failed_is_tried_again_after_growing_pauses_and_then_dead(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=3, backoff=10.0))
    world.answers["f"] = deque([FAILED] * 3)
    await world.start()
    [id] = await world.accept()
    await world.advance(1.0)
    record = await world.record(id)
    assert (record.status, record.error, record.blame) == (Status.QUEUED, "function-error", "function")
    assert 1 + 7.5 <= record.due <= 1 + 10
    await world.advance(100.0)
    first, second, third = world.times()
    assert 1 + 7.5 <= second - first <= 1 + 10
    assert 1 + 15 <= third - second <= 1 + 20
    assert [run.claim.attempt for run in world.runs] == [1, 2, 3]
    record = await world.record(id)
    assert (record.status, record.attempts, record.error) == (Status.DEAD, 3, "function-error")
    assert world.metrics.async_retries.labels("f").value == 2
    assert world.metrics.async_ended.labels("f", Status.DEAD).value == 1
    await world.books_agree()


async def test_one_that_waits_to_be_tried_again_holds_no_place(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(backoff=10.0))
    world.answers["f"] = deque([FAILED])
    ids = await world.accept("f", 3)
    await world.start()
    await world.advance(3.0)
    assert [await world.status(id) for id in ids] == [Status.QUEUED, Status.SUCCEEDED, Status.SUCCEEDED]
    await world.advance(10.0)
    assert await world.status(ids[0]) is Status.SUCCEEDED
    assert [run.claim.call.id for run in world.runs] == [*ids, ids[0]]


async def test_the_worker_wakes_for_whichever_is_due_first(world: World) -> None:
    world.plans |= {
        "slow": FunctionPlan(RetryPolicy(backoff=100.0)),
        "fast": FunctionPlan(RetryPolicy(backoff=10.0)),
    }
    world.answers |= {"slow": deque([FAILED]), "fast": deque([FAILED])}
    await world.accept("slow")
    await world.accept("fast")
    await world.start()
    await world.advance(12.0)
    assert (len(world.times("slow")), len(world.times("fast"))) == (1, 2)
    await world.advance(90.0)
    assert len(world.times("slow")) == 2


async def test_a_retry_is_in_time_though_a_newer_call_of_its_function_was_leased_before_it(
    world: World,
) -> None:
    world.plans |= {
        "slow": FunctionPlan(RetryPolicy(backoff=100.0)),
        "fast": FunctionPlan(RetryPolicy(backoff=10.0), slots=4),
    }
    world.answers |= {"slow": deque([FAILED]), "fast": deque([FAILED])}
    await world.accept("slow")
    [failed] = await world.accept("fast")
    await world.start()
    await world.advance(2.0)
    world.seconds["fast"] = 1000.0
    [long] = await world.accept("fast")
    await world.advance(10.0)
    assert [run.claim.call.id for run in world.runs if run.claim.call.function == "fast"] == [
        failed,
        long,
        failed,
    ]


async def test_what_does_not_reach_its_function_uses_up_no_attempt(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=1, backoff=1.0, max_backoff=2.0))
    world.answers["f"] = deque([AWAY] * 5)
    await world.start()
    [id] = await world.accept()
    await world.advance(0.99 + 1.0)
    record = await world.record(id)
    assert (record.error, record.detail, record.blame) == ("engine-down", "it is away", "platform")
    await world.advance(20.0)
    assert [run.claim.attempt for run in world.runs] == [1, 2, 3, 4, 5, 6]
    assert {run.claim.failures for run in world.runs} == {0}
    assert await world.status(id) is Status.SUCCEEDED


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Result(404, [], b""), Status.FAILED, "function-error"),
        (Result(504, [], b"", "timeout", "too slow", "function"), Status.TIMED_OUT, "timeout"),
        (Result(502, [], b"", "instance-died", "gone", "function"), Status.FAILED, "instance-died"),
    ],
)
async def test_what_the_policy_does_not_name_is_not_tried_again(
    world: World, answer: Result, status: Status, error: str
) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(on=frozenset({"platform"})))
    world.answers["f"] = deque([answer])
    await world.start()
    [id] = await world.accept()
    await world.advance(100.0)
    record = await world.record(id)
    assert (record.status, record.error, record.blame) == (status, error, "function")
    assert len(world.runs) == 1
    assert await world.store.result(id) == answer


async def test_a_call_may_have_a_policy_of_its_own(world: World) -> None:
    world.answers["f"] = deque([FAILED] * 2)
    await world.start()
    [own] = await world.accept(overrides=CallOverrides(policy=RetryPolicy(attempts=1)))
    await world.settle()
    [other] = await world.accept()
    await world.advance(60.0)
    assert await world.status(own) is Status.DEAD
    assert await world.status(other) is Status.SUCCEEDED


async def test_what_is_too_old_is_not_run(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(max_event_age=5.0))
    world.seconds["f"] = 3.0
    ids = await world.accept("f", 3)
    await world.start()
    await world.advance(20.0)
    assert world.times() == [0.0, 3.0]
    record = await world.record(ids[2])
    assert (record.status, record.error) == (Status.EXPIRED, "expired")
    assert "5 s (max_event_age)" in record.detail
    assert await world.store.result(ids[2]) is None
    await world.books_agree()


async def test_what_would_be_too_old_when_it_is_tried_again_expires_at_once(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(backoff=10.0, max_event_age=5.0))
    world.answers["f"] = deque([FAILED])
    await world.start()
    [id] = await world.accept()
    await world.advance(1.0)
    assert await world.status(id) is Status.EXPIRED
    assert await world.store.result(id) == FAILED


# -- the store fails ----------------------------------------------------------------------------------------


async def test_a_store_that_cannot_lease_is_asked_again(world: World) -> None:
    await world.accept()
    await world.start()
    await world.advance(1.0)
    world.fault("UPDATE")
    [id] = await world.accept()
    await world.advance(STORE_RETRY.longest * 3.5)
    assert len(world.runs) == 1
    world.mend()
    await world.advance(STORE_RETRY.longest)
    assert len(world.runs) == 2
    await world.advance(1.0)
    assert await world.status(id) is Status.SUCCEEDED


async def test_what_came_of_a_run_is_recorded_when_the_store_can(world: World) -> None:
    """Meanwhile nobody is told that it has ended, and it is not run a second time."""
    told: list[str] = []
    world.worker.on_ended["job"] = told.append
    await world.start()
    [id] = await world.accept(owner="job:1")
    await world.settle()
    world.fault("UPDATE")
    await world.advance(10 * STORE_RETRY.longest)
    assert await world.status(id) is Status.RUNNING
    assert not told
    world.mend()
    await world.advance(STORE_RETRY.longest)
    record = await world.record(id)
    assert (record.status, record.attempts) == (Status.SUCCEEDED, 1)
    assert told == ["1"]
    assert len(world.runs) == 1
    await world.books_agree()


# -- an earlier process, and the end of this one ------------------------------------------------------------


async def test_what_ran_when_the_process_died_is_run_again_and_counted(world: World) -> None:
    await world.start()
    ids = await world.accept("f", 3)
    await world.advance(1.5)
    await world.kill()
    await world.start()
    assert world.taken_over() == 1
    await world.advance(5.0)
    assert {await world.status(id) for id in ids} == {Status.SUCCEEDED}
    attempts = {(run.claim.call.id, run.claim.attempt) for run in world.runs}
    assert attempts == {(ids[0], 1), (ids[1], 1), (ids[1], 2), (ids[2], 1)}
    assert len(world.runs) == 4


async def test_no_call_runs_twice_because_leasing_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is started again beside what it has leased before."""
    await world.start()
    first = await world.accept("f", 3)
    await world.settle()
    running = len(world.runs)
    with monkeypatch.context() as patch:

        async def broken(now: float) -> None:
            raise KeyError("unforeseen")

        patch.setattr(world.store, "backlogs", broken)
        later = await world.accept("f", 2)
        await world.settle()
        assert world.metrics.loop_restarts.value_of("calls") == 0
        await world.advance(RESTART.first)
        assert world.metrics.loop_restarts.value_of("calls") == 1
    assert running and world.taken_over() == 0
    await world.advance(20.0)
    assert {await world.status(id) for id in (*first, *later)} == {Status.SUCCEEDED}
    assert [run.claim.attempt for run in world.runs] == [1] * 5
    await world.books_agree()


async def test_a_store_that_fails_at_the_start_is_tried_again(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.settle()
    await world.kill()
    world.fault("UPDATE")
    await world.start()
    await world.advance(2 * TAKE_OVER_RETRY.longest)
    assert len(world.runs) == 1
    world.mend()
    await world.advance(TAKE_OVER_RETRY.longest + 1.0)
    assert await world.status(id) is Status.SUCCEEDED
    assert [run.claim.attempt for run in world.runs] == [1, 2]


async def test_stopping_gives_back_what_has_not_begun_and_lets_run_what_has(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=2, exec_seconds=0.001)
    ids = await world.accept("f", 5)
    await world.start()
    assert (await world.store.counts())["f", Status.RUNNING] == 5, "leased ahead"
    await world.worker.stop()
    assert await world.store.counts() == {("f", Status.RUNNING): 1, ("f", Status.QUEUED): 4}
    await world.advance(1.0)
    assert await world.status(ids[0]) is Status.SUCCEEDED
    await world.accept()
    await world.advance(100.0)
    assert len(world.runs) == 1, "it leases nothing more"
    await world.kill()
    await world.start()
    await world.advance(10.0)
    assert world.taken_over() == 0
    assert [run.claim.attempt for run in world.runs] == [1] * 6, "what was given back was no attempt"


async def test_stopping_gives_back_what_is_just_being_leased(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    while not world.writer.asked:
        await asyncio.sleep(0)
    await world.worker.stop()
    assert await world.status(id) is Status.QUEUED
    await world.kill()
    await world.start()
    await world.advance(1.0)
    assert world.taken_over() == 0
    assert [run.claim.attempt for run in world.runs] == [1]


async def test_what_cannot_be_given_back_is_left_to_the_next_start(world: World) -> None:
    world.plans["f"] = FunctionPlan(slots=2, exec_seconds=0.001)
    await world.accept("f", 3)
    await world.start()
    world.fault("UPDATE")
    await world.worker.stop()
    world.mend()
    await world.advance(1.0)
    await world.kill()
    await world.start()
    assert world.taken_over() == 2
    await world.advance(2.0)
    assert await world.store.counts() == {}


async def test_closing_interrupts_what_runs_and_the_next_start_runs_it_again(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.advance(0.5)
    await world.worker.close()
    assert world.interrupted == [id]
    assert await world.status(id) is Status.RUNNING
    await world.kill()
    await world.start()
    await world.advance(1.0)
    assert await world.status(id) is Status.SUCCEEDED
    assert [run.claim.attempt for run in world.runs] == [1, 2]


async def test_closing_does_not_wait_for_a_store_that_fails(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.settle()
    world.fault("UPDATE")
    await world.advance(5.0)
    await world.worker.close()
    world.mend()
    assert await world.status(id) is Status.RUNNING


# -- retention ----------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_is_forgotten(world: World) -> None:
    await world.start()
    old = await world.accept("f", 2)
    await world.advance(RETENTION)
    [new] = await world.accept()
    await world.advance(2 * PRUNE_EVERY)
    assert [await world.store.show(id) for id in old] == [None, None]
    assert await world.status(new) is Status.SUCCEEDED


async def test_forgetting_is_tried_again(world: World) -> None:
    await world.start()
    [id] = await world.accept()
    await world.advance(1.0)
    world.fault("DELETE")
    await world.advance(RETENTION + 2 * PRUNE_EVERY)
    assert await world.status(id) is Status.SUCCEEDED
    world.mend()
    await world.advance(PRUNE_EVERY)
    assert await world.store.show(id) is None


async def test_no_run_begins_while_much_that_was_brought_is_not_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.plans["f"] = FunctionPlan(slots=16, exec_seconds=0.001)
    brought = Result(200, [], bytes(MOST_BYTES // 8))
    world.answers["f"] = deque([brought] * 24)
    fails = True
    finish = world.store.finish

    async def failing(owner: LeaseOwner, endings: Sequence[Ending], now: float) -> Sequence[bool]:
        if fails:
            raise StoreError("the disk does not answer")
        return await finish(owner, endings, now)

    monkeypatch.setattr(world.store, "finish", failing)
    await world.accept("f", 24)
    await world.start()
    await world.advance(10.0)
    begun = len(world.runs)
    assert 9 <= begun < 24, "as many as bring more than may wait, and those that ran beside them"
    fails = False
    await world.advance(60.0)
    assert len(world.runs) == 24
    await world.books_agree()


async def test_what_does_not_fit_into_the_store_ends_its_call_with_a_named_error(world: World) -> None:
    world.plans["f"] = FunctionPlan(RetryPolicy(attempts=3), on_failure="told")
    world.answers["f"] = deque([Result(200, [], bytes(450_000)), OK])
    world.store.room.size = 500_000
    (large, small) = await world.accept("f", 2)
    await world.start()
    await world.advance(10.0)
    record = await world.record(large)
    assert (record.status, record.error, record.attempts) == (Status.FAILED, "not-kept", 1)
    assert "HEARTH_ASYNC_SIZE" in record.detail
    assert await world.store.result(large) is None
    assert (await world.record(small)).status is Status.SUCCEEDED
    assert [run.claim.call.function for run in world.runs].count("told") == 1, "it has failed for who is told"
    assert world.metrics.async_ended.value_of("f", "failed") == 1


async def test_what_is_leased_is_decided_on_the_loop_and_not_on_a_thread_of_the_store(world: World) -> None:
    asked: set[int] = set()

    def plan_of(function: str) -> FunctionPlan:
        asked.add(threading.get_ident())
        return FunctionPlan()

    world.plan_of = plan_of  # type: ignore[method-assign]
    world.put_together()
    await world.start()
    await world.accept("f", 2)
    await world.accept("g", 2)
    await world.advance(10.0)
    assert asked == {threading.get_ident()}
    await world.books_agree()
