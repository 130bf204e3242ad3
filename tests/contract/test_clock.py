"""Both clocks tell time and wake in order; the virtual one does it without any time passing."""

from __future__ import annotations

import asyncio
import time

import pytest

from pool.clock import Clock, LazyTimer, LoopClock, VirtualClock


@pytest.fixture(params=[LoopClock, VirtualClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


async def passes(clock: Clock, seconds: float) -> None:
    await (clock.advance(seconds) if isinstance(clock, VirtualClock) else asyncio.sleep(seconds))


async def test_timers_and_sleepers_wake_in_order_and_not_before(clock):
    woken: list[tuple[str, bool]] = []
    began = clock.now()

    def wake(name: str, due: float) -> None:
        woken.append((name, clock.now() - began >= due))

    async def sleeper() -> None:
        await clock.sleep(0.04)
        wake("sleeper", 0.04)

    task = asyncio.create_task(sleeper())
    clock.call_later(0.06, wake, "late", 0.06)
    clock.call_later(0.02, wake, "early", 0.02)
    cancelled = clock.call_later(0.03, wake, "cancelled", 0.03)
    cancelled.cancel()
    cancelled.cancel()
    await passes(clock, 0.1)
    assert woken == [("early", True), ("sleeper", True), ("late", True)]
    await task


async def test_a_cancelled_sleeper_stops(clock):
    task = asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if isinstance(clock, VirtualClock):
        assert clock.next_due() is None


async def test_now_and_wall_go_on_together(clock):
    now, wall = clock.now(), clock.wall()
    await passes(clock, 0.05)
    assert clock.now() - now >= 0.05
    assert clock.wall() - wall == pytest.approx(clock.now() - now, abs=0.02)


async def test_no_sleep_is_a_turn_for_the_others(clock):
    turns: list[str] = []
    other = asyncio.create_task(asyncio.sleep(0, turns.append("other")))
    await clock.sleep(0)
    await clock.sleep(-1)
    assert turns == ["other"]
    await other


async def test_a_timeout_ends_what_takes_longer_and_nothing_else(clock):
    began, ended = clock.now(), []

    async def bounded(seconds: float | None, work: float) -> None:
        try:
            async with clock.timeout(seconds):
                await clock.sleep(work)
            ended.append("done")
        except TimeoutError:
            ended.append("late")
            assert clock.now() - began >= 0.02

    tasks = [asyncio.create_task(bounded(*times)) for times in ((None, 0.01), (0.02, 10.0), (10.0, 0.04))]
    await passes(clock, 0.1)
    await asyncio.gather(*tasks)
    assert ended == ["done", "late", "done"]
    if isinstance(clock, VirtualClock):
        assert clock.next_due() is None


async def test_a_cancellation_inside_a_timeout_stays_one(clock):
    async def bounded() -> None:
        async with clock.timeout(10.0):
            await clock.sleep(20.0)

    task = asyncio.create_task(bounded())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_can_be_ended_before_its_time(clock):
    scope = clock.timeout(None)
    with pytest.raises(TimeoutError):
        async with scope:
            scope.expire()
            scope.expire()
            await asyncio.Event().wait()
    scope.expire()


async def test_a_year_takes_no_time():
    clock, ticks = VirtualClock(), []

    async def tick() -> None:
        while True:
            await clock.sleep(86_400)
            ticks.append(clock.now())

    task = asyncio.create_task(tick())
    began = time.monotonic()
    await clock.advance(365 * 86_400)
    assert time.monotonic() - began < 5
    assert ticks == [day * 86_400.0 for day in range(1, 366)]
    task.cancel()


async def test_what_a_timer_wakes_runs_before_the_next_timer():
    clock, seen, ready = VirtualClock(), [], asyncio.Event()

    async def waiter() -> None:
        await ready.wait()
        await asyncio.sleep(0)
        seen.append("waiter")

    task = asyncio.create_task(waiter())
    clock.call_later(1, ready.set)
    clock.call_later(1, seen.append, "second timer")
    await clock.advance(1)
    assert seen == ["waiter", "second timer"]
    await task


async def test_run_lets_as_much_time_pass_as_the_work_needs():
    clock = VirtualClock()

    async def work() -> str:
        await clock.sleep(5)
        await clock.sleep(7)
        return "done"

    assert await clock.run(work()) == "done" and clock.now() == 12
    with pytest.raises(RuntimeError, match="stuck"):
        await clock.run(asyncio.Event().wait())


async def test_tasks_that_never_rest_are_found_out():
    clock = VirtualClock()

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    task = asyncio.create_task(spin())
    with pytest.raises(RuntimeError, match="awake"):
        await clock.settle()
    task.cancel()


async def test_a_lazy_timer_rings_once_at_the_latest_time_that_was_set():
    clock = VirtualClock()
    rung: list[float] = []
    timer = LazyTimer(clock, lambda: rung.append(clock.now()))
    for due in (5.0, 9.0, 3.0):  # put off, and then sooner than it was at first
        timer.set(due)
    await clock.advance(2)
    timer.set(6.0)
    await clock.advance(10)
    assert rung == [6.0]
    timer.set(20.0)
    timer.stop()
    await clock.advance(10)
    timer.set(30.0)
    timer.close()
    assert clock.next_due() is None
    timer.set(40.0)
    await clock.advance(30)
    assert rung == [6.0, 40.0]
